"""Tests of `--import` in both engines: the user's file reaches every process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from own_pyramid import write_pyramid
from sn2fpn.pyramids import PYRAMIDS

_ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_spawned_processes_know_the_pyramid(tmp_path: Path, tiny_keys: dict) -> None:
    keys = tiny_keys | {
        "MODEL.BACKBONE.NAME": "build_sn2_spawned_backbone",
        "SOLVER.MAX_ITER": 1,
        "DATASETS.TEST": "()",
        "OUTPUT_DIR": tmp_path / "out",
    }
    done = subprocess.run(
        [
            sys.executable,
            str(_ROOT / "train_net.py"),
            "--engine",
            "native",
            "--num-gpus",
            "2",
            "--import",
            str(write_pyramid(tmp_path, "spawned")),
            "--config-file",
            str(_ROOT / "configs/quick/Base-Shapes.yaml"),
            *[str(x) for pair in keys.items() for x in pair],
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/model_final.pth").is_file()


@pytest.mark.detectron2
def test_detectron2_knows_the_pyramid(tmp_path: Path) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from sn2fpn.engine import default_argument_parser, prepare
    from sn2fpn.integrations import detectron2  # noqa: F401 - before the pyramid is registered

    path = write_pyramid(tmp_path, "theirs")
    try:
        _, cfg = prepare(
            default_argument_parser().parse_args(
                [
                    "--engine",
                    "detectron2",
                    "--import",
                    str(path),
                    "--config-file",
                    str(_ROOT / "configs/quick/Base-Shapes.yaml"),
                    "MODEL.BACKBONE.NAME",
                    "build_sn2_theirs_backbone",
                ]
            )
        )
        assert cfg.MODEL.BACKBONE.NAME == "build_sn2_theirs_backbone"
    finally:
        PYRAMIDS.remove("theirs")
