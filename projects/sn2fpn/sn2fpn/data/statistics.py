"""Tables of the boxes in a data set, by class and by size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from ..errors import counted
from ..structures import box_of
from .records import DatasetDicts, Records

__all__ = ["class_histogram", "size_histogram", "box_area", "SIZE_BINS"]

SIZE_BINS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}
"""COCO's ranges of an object's area in square pixels."""


def class_histogram(dataset_dicts: DatasetDicts | Records, names: Sequence[str], columns: int = 3) -> str:
    """Return a table of the boxes (without crowd regions) and images of each class, with totals."""
    boxes, images = Counter[int](), Counter[int]()
    crowds = 0
    for record in dataset_dicts:
        annotations = record.get("annotations", ())
        ids = [a["category_id"] for a in annotations if not a.get("iscrowd", 0)]
        crowds += len(annotations) - len(ids)
        boxes.update(ids)
        images.update(set(ids))
    cells = [(name, boxes[i], images[i]) for i, name in enumerate(names)]
    columns = max(1, min(columns, -(-len(cells) // 4)))
    height = -(-len(cells) // columns)
    rows = [sum(cells[r::height], ()) for r in range(height)]
    table = tabulate(rows, headers=["class", "boxes", "images"] * columns, tablefmt="simple")
    objects = counted(sum(boxes.values()), "box", "boxes")
    objects += f" and {counted(crowds, 'crowd region')}" if crowds else ""
    sizes = counted(len(dataset_dicts), "image"), objects, counted(len(names), "class", "classes")
    return f"{table}\n{', '.join(sizes)}"


def size_histogram(dataset_dicts: DatasetDicts) -> str:
    """Return a table of the boxes in each of COCO's size ranges."""
    areas = [box_area(a) for record in dataset_dicts for a in record.get("annotations", ()) if not a.get("iscrowd", 0)]
    rows = []
    for name, (low, high) in SIZE_BINS.items():
        count = sum(low <= a < high for a in areas)
        limits = f">= {low**0.5:.0f}^2 px" if high == float("inf") else f"{low**0.5:.0f}^2 to {high**0.5:.0f}^2 px"
        rows.append((name, limits, count, f"{100 * count / max(len(areas), 1):.1f} %"))
    return tabulate(rows, headers=["size", "area", "boxes", "share"], tablefmt="simple")


def box_area(annotation: dict[str, Any]) -> float:
    """Return the annotated area of an object, usually that of its mask, or else the area of its box."""
    if "area" in annotation:
        return float(annotation["area"])
    x1, y1, x2, y2 = box_of(annotation)
    return float((x2 - x1) * (y2 - y1))
