"""Tests of runs of several processes: what they evaluate is the model that they save."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]


def _run(flags: list[str], keys: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """Run train_net.py and return the detections of its last evaluation."""
    opts = [str(x) for pair in (keys | {"OUTPUT_DIR": out}).items() for x in pair]
    config = str(_ROOT / "configs/quick/faster_rcnn_R18_sni_shapes.yaml")
    command = [sys.executable, str(_ROOT / "train_net.py"), "--engine", "native", "--config-file", config]
    done = subprocess.run(
        [*command, *flags, *opts],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "inference/tiny_val/coco_instances_results.json").read_text())


@pytest.mark.parametrize("average", [False, True])
def test_two_processes_evaluate_the_model_that_they_save(
    average: bool, tiny_keys: dict[str, Any], tmp_path: Path
) -> None:
    keys = tiny_keys | {
        "MODEL.BACKBONE.NAME": "build_sn2_ihp_backbone",
        "MODEL.IHP.NORM": "BN",
        "MODEL.RESNETS.NORM": "BN",
        "SOLVER.EMA.ENABLED": average,
        "SOLVER.EMA.DECAY": 0.7,
        "SEED": 1,
    }
    printed = _run(["--num-gpus", "2"], keys, tmp_path / "run")
    weights = tmp_path / "run/model_final.pth"
    assert printed
    assert _run(["--eval-only"], keys | {"MODEL.WEIGHTS": weights}, tmp_path / "alone") == printed
    state = torch.load(weights, weights_only=True)["model"]
    # the processes have seen different images, and the first one keeps the mean of what they have seen
    assert any(name.endswith("running_mean") and value.any() for name, value in state.items())
