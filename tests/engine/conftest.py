"""Fixtures of the engine's tests: a detector and a data set that train in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data.shapes import write_shapes

_ROOT = Path(__file__).parents[2]
_VOLATILE = {"time", "data_time", "eta_seconds", "peak_memory_mib"}


@pytest.fixture(autouse=True)
def _runs_leave_no_trace(leave_no_trace: None) -> None:
    """Restore logging and determinism after each test, since any of them may run a trainer."""


@pytest.fixture(scope="session")
def tiny_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The configuration keys of a small run on 8 images of shapes."""
    root = tmp_path_factory.mktemp("tiny") / "shapes"
    write_shapes(root, {"train": (8, 1), "val": (4, 2)})
    custom = [
        {
            "NAME": f"tiny_{s}",
            "FORMAT": "coco",
            "JSON": str(root / f"annotations/instances_{s}.json"),
            "IMAGES": str(root / s),
        }
        for s in ("train", "val")
    ]
    return {
        "DATASETS.CUSTOM": custom,
        "DATASETS.TRAIN": ["tiny_train"],
        "DATASETS.TEST": ["tiny_val"],
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MIN_SIZE_TRAIN": (96,),
        "INPUT.MIN_SIZE_TEST": 96,
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 60,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 40,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.WARMUP_ITERS": 5,
        "SOLVER.MAX_ITER": 8,
        "SOLVER.STEPS": (),
    }


@pytest.fixture
def tiny_cfg(tiny_keys: dict[str, Any], tmp_path: Path) -> Callable[..., CfgNode]:
    """`tiny_cfg({"SOLVER.MAX_ITER": 4, …})` returns the configuration of the small run with changes."""

    def make(changes: dict[str, Any] | None = None) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(str(_ROOT / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"))
        keys = tiny_keys | {"OUTPUT_DIR": str(tmp_path / "out")} | (changes or {})
        cfg.merge_from_list([x for pair in keys.items() for x in pair])
        return cfg

    return make


@pytest.fixture
def lasting_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """`lasting_rows(folder)` returns the rows of `metrics.json` without the columns that differ from run to run."""

    def read(folder: Path) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k not in _VOLATILE} for row in rows]

    return read
