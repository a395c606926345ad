"""Small valid data sets, which the tests then damage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sn2fpn.config import get_cfg
from sn2fpn.data import DatasetCatalog, register_coco_instances
from sn2fpn.data.shapes import write_shapes


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Return a smooth colourful image, (H, W, 3) uint8 RGB, that JPEG compression hardly changes."""
    y, x = np.mgrid[:height, :width] / 40.0
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    return (128 + 90 * np.sin(x[:, :, None] + y[:, :, None] / 2 + phase)).astype(np.uint8)


class CocoSet:
    """Three images with two boxes each as COCO JSON; tests change `content` and call `write()`."""

    def __init__(self, root: Path) -> None:
        self.images, self.json = root / "images", root / "instances.json"
        self.images.mkdir()
        self.content: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        }
        for i, (height, width) in enumerate([(60, 80), (80, 60), (64, 64)], 1):
            Image.fromarray(picture(i, height, width)).save(self.images / f"{i}.jpg", quality=95)
            self.content["images"].append({"id": i, "file_name": f"{i}.jpg", "height": height, "width": width})
            for j, (category, box) in enumerate([(7, [5.0, 6.0, 20.0, 15.5]), (3, [30.0, 10.0, 22.0, 40.0])]):
                self.content["annotations"].append(
                    {
                        "id": 2 * i + j - 1,
                        "image_id": i,
                        "category_id": category,
                        "bbox": box,
                        "iscrowd": 0,
                        "area": box[2] * box[3],
                        "segmentation": [],
                    }
                )
        self.write()

    def write(self) -> CocoSet:
        self.json.write_text(json.dumps(self.content))
        return self


@pytest.fixture
def coco_set(tmp_path: Path) -> CocoSet:
    return CocoSet(tmp_path)


XML = """<annotation><filename>{id}.jpg</filename>
<size><width>80</width><height>60</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult>
  <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>80</xmax><ymax>60</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult>
  <bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>50</ymax></bndbox></object>
</annotation>
"""


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """A VOC folder with the images a, b and c, which the list `all` names."""
    root = tmp_path / "VOCtest"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for i, file_id in enumerate("abc"):
        (root / "Annotations" / f"{file_id}.xml").write_text(XML.format(id=file_id))
        Image.fromarray(picture(i, 60, 80)).save(root / "JPEGImages" / f"{file_id}.jpg")
    (root / "ImageSets" / "Main" / "all.txt").write_text("a\n\nb  \n\tc\n")
    return root


@pytest.fixture
def registered() -> Iterator[None]:
    """Remove the data sets that a test registers."""
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)


@pytest.fixture
def coco_name(coco_set: CocoSet, registered: None) -> str:
    register_coco_instances("tiny_coco", {}, coco_set.json, coco_set.images)
    return "tiny_coco"


@pytest.fixture(scope="session")
def tiny_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `$DETECTRON2_DATASETS` with a small data set `shapes`."""
    root = tmp_path_factory.mktemp("datasets")
    write_shapes(root / "shapes", {"train": (12, 1), "val": (5, 2)})
    return root


@pytest.fixture
def shapes_cfg(tiny_shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make configurations that use the small data set `shapes`; the arguments are overrides."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tiny_shapes))

    def make(*overrides: Any) -> Any:
        cfg = get_cfg()
        cfg.merge_from_list(
            [
                "DATASETS.TRAIN",
                ("shapes_train",),
                "DATASETS.TEST",
                ("shapes_val",),
                "MODEL.ROI_HEADS.NUM_CLASSES",
                6,
                "SOLVER.IMS_PER_BATCH",
                4,
                "INPUT.MIN_SIZE_TRAIN",
                (64, 96),
                "INPUT.MIN_SIZE_TEST",
                96,
                "DATALOADER.NUM_WORKERS",
                0,
                "SEED",
                5,
                *overrides,
            ]
        )
        return cfg

    return make
