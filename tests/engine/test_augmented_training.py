"""Tests of trainings with all augmentations: they run, resume bitwise, and find the function of the user's own."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.config import CfgNode
from sn2fpn.engine import Trainer, main, run

_ROOT = Path(__file__).parents[2]
_ALL = {
    "INPUT.PHOTOMETRIC.ENABLED": True,
    "INPUT.SCALE_JITTER.ENABLED": True,
    "INPUT.SCALE_JITTER.SIZE": (96, 96),
    "INPUT.CROP.ENABLED": True,
    "INPUT.MOSAIC.PROB": 0.5,
    "INPUT.MOSAIC.SIZE": (120, 120),
    "INPUT.COPY_PASTE.PROB": 0.5,
    "INPUT.MIN_VISIBLE": 0.1,
}
_MASKS = {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "INPUT.MASK_FORMAT": "bitmask",
}


@pytest.mark.slow
def test_a_training_with_all_augmentations_resumes_bitwise(tiny_cfg: Callable[..., CfgNode], tmp_path: Path) -> None:
    keys = _ALL | _MASKS | {"SEED": 3, "DATALOADER.NUM_WORKERS": 2, "DATASETS.TEST": (), "SOLVER.MAX_ITER": 6}
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    args = argparse.Namespace(resume=False, eval_only=False, num_gpus=1, num_machines=1)
    run(tiny_cfg(keys | {"OUTPUT_DIR": str(straight), "SOLVER.CHECKPOINT_PERIOD": 3}), args)
    rows = [json.loads(line) for line in (straight / "metrics.json").read_text().splitlines()]
    assert all(math.isfinite(value) for row in rows for name, value in row.items() if "loss" in name)
    cut.mkdir()
    (cut / "model_0000002.pth").write_bytes((straight / "model_0000002.pth").read_bytes())
    (cut / "last_checkpoint").write_text("model_0000002.pth")
    resumed = Trainer(tiny_cfg(keys | {"OUTPUT_DIR": str(cut)}))
    resumed.resume_or_load(True)
    assert resumed.start_iter == 3
    resumed.train()
    expected = torch.load(straight / "model_final.pth", weights_only=True)["model"]
    found = resumed.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def _arguments(tmp_path: Path, keys: dict[str, Any], *flags: str) -> list[str]:
    keys = keys | {"SOLVER.MAX_ITER": 1, "DATASETS.TEST": "()", "OUTPUT_DIR": tmp_path / "out"}
    pairs = [str(x) for pair in keys.items() for x in pair]
    return ["--engine", "native", *flags, "--config-file", str(_ROOT / "configs/quick/Base-Shapes.yaml"), *pairs]


@pytest.mark.slow
def test_a_function_of_the_users_own_runs_in_all_processes(
    tmp_path: Path, tiny_keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file, log = tmp_path / "my_augmentation.py", tmp_path / "log.txt"
    file.write_text(
        f"import os\n\n\ndef note(**given):\n    with open({str(log)!r}, 'a') as log:\n"
        "        print(os.getppid(), file=log)\n    return given\n"
    )
    keys = tiny_keys | {"INPUT.FUNCTION": f"{file}:note", "DATALOADER.NUM_WORKERS": 1}
    assert main(_arguments(tmp_path, keys)) == 2
    assert f"add --import {file}" in capsys.readouterr().err and not log.exists()
    arguments = _arguments(tmp_path, keys, "--import", str(file), "--num-gpus", "2")
    command = [sys.executable, str(_ROOT / "train_net.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(set(log.read_text().split())) == 2  # a worker of each process
