"""One small data set in each format: two images with a dog and a cat, whose boxes are the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sn2fpn.data import DatasetCatalog, MetadataCatalog, register_custom
from sn2fpn.structures import BoxMode

SIZE = 60, 80
BOXES = {"dog": (8.0, 6.0, 40.0, 30.0), "cat": (16.0, 12.0, 64.0, 54.0)}  # (x1, y1, x2, y2)


def write_images(folder: Path, names: tuple[str, ...] = ("a.jpg", "b.jpg")) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*SIZE, 3), 40 * (i + 1), np.uint8)).save(folder / name)


@pytest.fixture
def yolo_root(tmp_path: Path) -> Path:
    """The images a and b as the split `train`, and c as the split `val`."""
    root = tmp_path / "yolo"
    write_images(root / "images" / "train")
    write_images(root / "images" / "val", ("c.jpg",))
    height, width = SIZE
    lines = []
    for i, (x1, y1, x2, y2) in enumerate(BOXES.values()):
        lines.append(f"{i} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}")
    for name in ("train/a", "train/b", "val/c"):
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / f"{name}.txt").write_text("\n".join(lines) + "\n\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: dog, 1: cat}\n")
    return root


@pytest.fixture
def labelme_root(tmp_path: Path) -> Path:
    root = tmp_path / "labelme"
    write_images(root)
    for name in "ab":
        shapes = [
            {"label": label, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle", "group_id": None, "flags": {}}
            for label, (x1, y1, x2, y2) in BOXES.items()
        ]
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
        (root / f"{name}.json").write_text(json.dumps({**content, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}))
    return root


@pytest.fixture
def cvat_file(tmp_path: Path) -> Path:
    root = tmp_path / "cvat"
    write_images(root / "images")
    labels = "".join(f"<label><name>{name}</name><type>any</type></label>" for name in BOXES)
    boxes = "".join(
        f'<box label="{label}" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0"></box>\n'
        for label, (x1, y1, x2, y2) in BOXES.items()
    )
    images = "".join(
        f'<image id="{i}" name="{name}.jpg" subset="{subset}" width="{SIZE[1]}" height="{SIZE[0]}">\n{boxes}</image>\n'
        for i, (name, subset) in enumerate([("a", "train"), ("b", "val")])
    )
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version>{meta}\n{images}</annotations>")
    return root / "annotations.xml"


@pytest.fixture
def lvis_file(tmp_path: Path) -> Path:
    """The images lie in the folder `val2017` beside the file."""
    root = tmp_path / "lvis"
    write_images(root / "val2017")
    height, width = SIZE
    images, annotations = [], []
    for i, name in enumerate("ab", 1):
        url = f"http://images.cocodataset.org/val2017/{name}.jpg"
        more = {"neg_category_ids": [5], "not_exhaustive_category_ids": [9]}
        images.append({"id": i, "coco_url": url, "height": height, "width": width, **more})
        for category, (x1, y1, x2, y2) in zip((5, 9), BOXES.values()):
            polygon = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            box = [x1, y1, x2 - x1, y2 - y1]
            found = {"image_id": i, "category_id": category, "bbox": box, "area": box[2] * box[3]}
            annotations.append({"id": len(annotations) + 1, "segmentation": polygon, **found})
    categories = [
        {"id": 5, "name": "dog", "synset": "dog.n.01", "frequency": "f"},
        {"id": 9, "name": "cat", "synset": "cat.n.01", "frequency": "r"},
    ]
    content = {"annotations": annotations, "images": images, "categories": categories}
    (root / "lvis_v1_val.json").write_text(json.dumps(content))
    return root / "lvis_v1_val.json"


@pytest.fixture
def read(registered: None) -> Callable[..., list[dict[str, Any]]]:
    """Register and read an entry of `DATASETS.CUSTOM` that has the name `own`."""

    def read_entry(annotations: Path, **keys: Any) -> list[dict[str, Any]]:
        if "own" in DatasetCatalog:
            DatasetCatalog.remove("own")
        register_custom([{"NAME": "own", "ANNOTATIONS": str(annotations), **keys}])
        return DatasetCatalog.get("own")

    return read_entry


@pytest.fixture
def boxes_of() -> Callable[[dict[str, Any]], list[tuple[str, list[float]]]]:
    """Return the class names and the boxes (x1, y1, x2, y2) of a data set dict of the data set `own`."""

    def boxes(record: dict[str, Any]) -> list[tuple[str, list[float]]]:
        names = MetadataCatalog.get("own").thing_classes
        found = record["annotations"]
        return [
            (names[a["category_id"]], [float(v) for v in BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)])
            for a in found
        ]

    return boxes


@pytest.fixture
def expected_boxes() -> list[tuple[str, Any]]:
    return [(name, pytest.approx(list(box))) for name, box in BOXES.items()]
