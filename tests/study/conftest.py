"""Fixtures: a study of two pyramids that trains in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sn2fpn.data.shapes import write_shapes
from sn2fpn.study.report import charts, curve_charts, error_section

_ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _runs_leave_no_trace(leave_no_trace: None) -> None:
    """Clean up after every test, since each may run a trainer."""


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the content of a study file: fpn and sni with two seeds, 6 iterations on 8 images of shapes."""
    root = tmp_path_factory.mktemp("tiny_study") / "shapes"
    write_shapes(root, {"train": (8, 1), "val": (4, 2)})
    custom = [
        {
            "NAME": f"tiny_study_{s}",
            "FORMAT": "coco",
            "JSON": str(root / f"annotations/instances_{s}.json"),
            "IMAGES": str(root / s),
        }
        for s in ("train", "val")
    ]
    return {
        "NAME": "tiny",
        "BASE": str(_ROOT / "configs/quick/Base-Shapes.yaml"),
        "SET": {
            "MODEL": {
                "FPN.OUT_CHANNELS": 16,
                "ROI_BOX_HEAD.FC_DIM": 32,
                "RPN.POST_NMS_TOPK_TRAIN": 60,
                "RPN.POST_NMS_TOPK_TEST": 40,
                "ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
            },
            "INPUT": {"MIN_SIZE_TRAIN": [64], "MIN_SIZE_TEST": 64},
            "DATALOADER.NUM_WORKERS": 0,
            "DATASETS": {"CUSTOM": custom, "TRAIN": ["tiny_study_train"], "TEST": ["tiny_study_val"]},
            "SOLVER": {"MAX_ITER": 6, "IMS_PER_BATCH": 2, "STEPS": [], "WARMUP_ITERS": 2, "CHECKPOINT_PERIOD": 3},
        },
        "AXES": {"pyramid": ["fpn", "sni"]},
        "SEEDS": [1, 2],
        "BASELINE": {"pyramid": "fpn"},
        "ENGINE": "native",
    }


@pytest.fixture
def plain_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reports make their charts but not draw them, for tests that read texts, because drawing takes seconds."""
    for module in (charts, curve_charts, error_section):
        monkeypatch.setattr(module, "to_svg", lambda figure: '<svg viewBox="0 0 9 9"></svg>')


@pytest.fixture
def write_study(tiny_study: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the tiny study with changed keys to a file; a value of None removes the key."""

    def write(**changes: Any) -> Path:
        content = {k: v for k, v in (tiny_study | changes).items() if v is not None}
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write
