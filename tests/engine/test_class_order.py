"""Tests of what is done with a checkpoint whose classes are not those of the data, or have another order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.config import CfgNode
from sn2fpn.engine import Trainer, main
from sn2fpn.engine.record import check_class_order
from sn2fpn.errors import UserError

_CONFIG = str(Path(__file__).parents[2] / "configs/quick/faster_rcnn_R18_sni_shapes.yaml")
_SHORT = {"SOLVER.MAX_ITER": 1, "DATASETS.TEST": []}


@pytest.fixture
def checkpoint(tiny_cfg: Callable[..., CfgNode], tmp_path: Path) -> Path:
    """A checkpoint whose first two classes have changed their places."""
    trainer = Trainer(tiny_cfg(_SHORT))
    trainer.resume_or_load()
    trainer.train()
    file = tmp_path / "out/model_final.pth"
    saved = torch.load(file, weights_only=True)
    first, second, *others = saved["class_names"]
    assert (first, second) == ("circle", "square")
    torch.save(saved | {"class_names": [second, first, *others]}, file)
    return file


def _run(flag: str, keys: dict[str, Any], *flags: str) -> int:
    opts = [str(x) for pair in keys.items() for x in pair]
    return main(["--engine", "native", "--config-file", _CONFIG, flag, *flags, *opts])


def test_an_evaluation_on_classes_in_another_order_is_refused(
    checkpoint: Path, tiny_keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tiny_keys | {"MODEL.WEIGHTS": checkpoint, "OUTPUT_DIR": tmp_path / "new"}
    assert _run("--eval-only", keys) == 2
    said = capsys.readouterr().out
    assert f"MODEL.WEIGHTS: class 0 is 'square' in {checkpoint} and 'circle' in data set 'tiny_val'" in said
    assert "where 'square' is class 1" in said and "--allow-partial" in said
    assert _run("--eval-only", keys, "--allow-partial") == 0


def test_a_training_on_classes_in_another_order_is_not_resumed(
    checkpoint: Path, tiny_cfg: Callable[..., CfgNode]
) -> None:
    trainer = Trainer(tiny_cfg({"SOLVER.MAX_ITER": 3, "DATASETS.TEST": []}))
    expected = rf"{checkpoint}.*class 0 is 'square' in the checkpoint and 'circle' in the training data"
    with pytest.raises(UserError, match=expected):
        trainer.resume_or_load(resume=True)


def test_other_names_are_a_warning_and_unknown_ones_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sn2fpn"):
        for unknown in (None, 3, [1, 2], [], ["cat"]):
            check_class_order(unknown, ["cat", "dog"], "m.pth", "data set 'd'")
        check_class_order(["cat", "traffic\nlight"], ["cat", "traffic light"], "m.pth", "data set 'd'")
        assert not caplog.records
        check_class_order(["people", "cat"], ["person", "cat"], "m.pth", "data set 'd'")
    assert "class 0 is 'people' in m.pth and 'person' in data set 'd'" in caplog.text
