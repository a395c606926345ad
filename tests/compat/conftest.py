"""Fixtures for scripts of Detectron2's users: a small data set that a function returns, and a small configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sn2fpn.compat import model_zoo
from sn2fpn.compat.data import DatasetCatalog, MetadataCatalog
from sn2fpn.compat.engine import DefaultTrainer
from sn2fpn.compat.structures import BoxMode
from sn2fpn.config import CfgNode


@pytest.fixture(autouse=True)
def _scripts_leave_no_trace(leave_no_trace: None) -> None:
    """Restore logging and determinism after each test, since any of them may run a script."""


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    """Six pictures of 48x64 with one rectangle each, as data set dicts with boxes and polygons."""
    rng, out = np.random.default_rng(0), []
    for i in range(6):
        image = rng.integers(0, 80, (48, 64, 3), dtype=np.uint8)
        x, y = 4 + 3 * i, 6 + 2 * i
        image[y : y + 20, x : x + 30, i % 3] = 230
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        outline = [x, y, x + 30, y, x + 30, y + 20, x, y + 20]
        annotation = {
            "bbox": [x, y, 30, 20],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": i % 2,
            "segmentation": [[float(v) for v in outline]],
        }
        out.append(
            {
                "file_name": str(tmp_path / f"{i}.png"),
                "image_id": i,
                "height": 48,
                "width": 64,
                "annotations": [annotation],
            }
        )
    return out


@pytest.fixture
def rectangles(records: list[dict[str, Any]]) -> Iterator[str]:
    """The name of a data set of these pictures, which is registered for one test."""
    DatasetCatalog.register("rectangles", lambda: records)
    MetadataCatalog.get("rectangles").set(thing_classes=["even", "odd"])
    yield "rectangles"
    DatasetCatalog.remove("rectangles")


@pytest.fixture
def small_cfg(tmp_path: Path, rectangles: str) -> Callable[..., CfgNode]:
    """`small_cfg(key=value, …)` returns the configuration of a small Mask R-CNN; "__" in a key stands for a dot."""

    def make(**changes: Any) -> CfgNode:
        cfg = model_zoo.get_config("quick/mask_rcnn_R18_sni_shapes.yaml")
        cfg.merge_from_list(
            [
                *("OUTPUT_DIR", str(tmp_path / "out"), "DATASETS.TRAIN", (rectangles,), "DATASETS.TEST", (rectangles,)),
                *("MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16),
                *(
                    "MODEL.ROI_MASK_HEAD.CONV_DIM",
                    8,
                    "MODEL.RPN.POST_NMS_TOPK_TRAIN",
                    30,
                    "INPUT.MIN_SIZE_TRAIN",
                    (64,),
                ),
                *(
                    "INPUT.MIN_SIZE_TEST",
                    64,
                    "DATALOADER.NUM_WORKERS",
                    0,
                    "SOLVER.IMS_PER_BATCH",
                    2,
                    "SOLVER.STEPS",
                    (),
                ),
                *("SOLVER.MAX_ITER", 3, "SOLVER.WARMUP_ITERS", 0),
            ]
        )
        cfg.merge_from_list([x for key, value in changes.items() for x in (key.replace("__", "."), value)])
        return cfg

    return make


class TinyModel(nn.Module):
    """A model of one number, whose loss is its square."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"loss": self.weight.square().sum()}


@pytest.fixture
def tiny_trainer() -> type[DefaultTrainer]:
    """A class of trainers of a model of one number, whose steps take no time."""

    class TinyTrainer(DefaultTrainer):
        @classmethod
        def build_model(cls, cfg: CfgNode) -> nn.Module:
            return TinyModel()

        @classmethod
        def build_train_loader(cls, cfg: CfgNode) -> Iterator[list[dict[str, Any]]]:
            while True:
                yield [{"image_id": i} for i in range(cfg.SOLVER.IMS_PER_BATCH)]

    return TinyTrainer
