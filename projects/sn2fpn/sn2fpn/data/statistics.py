"""Tables about a data set: boxes per class and per size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from ..structures import BoxMode
from .catalog import DatasetDicts

__all__ = ["class_histogram", "size_histogram", "box_area", "SIZE_BINS"]

# COCO's bins of an object's area in square pixels.
SIZE_BINS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}


def class_histogram(dataset_dicts: DatasetDicts, names: Sequence[str], columns: int = 3) -> str:
    """A table of boxes (crowds not counted) and pictures per class, with totals."""
    boxes, pictures = Counter[int](), Counter[int]()
    crowds = 0
    for record in dataset_dicts:
        ids = [a["category_id"] for a in record["annotations"] if not a.get("iscrowd", 0)]
        crowds += len(record["annotations"]) - len(ids)
        boxes.update(ids)
        pictures.update(set(ids))
    cells = [(name, boxes[i], pictures[i]) for i, name in enumerate(names)]
    columns = max(1, min(columns, -(-len(cells) // 4)))
    height = -(-len(cells) // columns)
    rows = [sum(cells[r::height], ()) for r in range(height)]
    table = tabulate(rows, headers=["class", "boxes", "images"] * columns, tablefmt="simple")
    extra = f" and {crowds} crowd regions" if crowds else ""
    return f"{table}\n{len(dataset_dicts)} images, {sum(boxes.values())} boxes{extra}, {len(names)} classes"


def size_histogram(dataset_dicts: DatasetDicts) -> str:
    """A table of boxes by COCO's size bins."""
    areas = [box_area(a) for record in dataset_dicts for a in record["annotations"] if not a.get("iscrowd", 0)]
    rows = []
    for name, (low, high) in SIZE_BINS.items():
        count = sum(low <= a < high for a in areas)
        limits = f">= {low**0.5:.0f}^2 px" if high == float("inf") else f"{low**0.5:.0f}^2 to {high**0.5:.0f}^2 px"
        rows.append((name, limits, count, f"{100 * count / max(len(areas), 1):.1f} %"))
    return tabulate(rows, headers=["size", "area", "boxes", "share"], tablefmt="simple")


def box_area(annotation: dict[str, Any]) -> float:
    """The annotated area of an object (of its mask, where the file says so), else that of its box."""
    if "area" in annotation:
        return float(annotation["area"])
    x1, y1, x2, y2 = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return float((x2 - x1) * (y2 - y1))
