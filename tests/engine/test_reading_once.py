"""Test that a run reads each annotation file once."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.data.convert import main as convert
from sn2fpn.engine import run

_ARGS = argparse.Namespace(resume=False, eval_only=False, num_gpus=1, num_machines=1)


@contextmanager
def counted_opens() -> Iterator[Counter[str]]:
    """Count how often each file is opened, by whatever function. A hook of the interpreter cannot be removed."""
    opened, active = Counter[str](), [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if active and event == "open" and isinstance(args[0], (str, Path)):
            opened[str(args[0])] += 1

    sys.addaudithook(hook)
    try:
        yield opened
    finally:
        active.clear()


@pytest.mark.pictures
def test_a_run_with_evaluations_parses_each_annotation_file_once(
    tiny_cfg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tiny_cfg().DATASETS.CUSTOM
    files = [tmp_path / f"{i}.json" for i in range(len(own))]
    for file, entry in zip(files, own, strict=True):
        file.write_bytes(Path(entry["JSON"]).read_bytes())  # not read by another test before
    custom = [e | {"NAME": f"once_{i}", "JSON": str(f)} for i, (e, f) in enumerate(zip(own, files, strict=True))]
    changes = {"DATASETS.CUSTOM": custom, "DATASETS.TRAIN": ["once_0"], "DATASETS.TEST": ["once_1", "once_0[:2]"]}
    cfg = tiny_cfg(changes | {"SOLVER.MAX_ITER": 2, "TEST.EVAL_PERIOD": 1})
    with counted_opens() as opened:
        results = run(cfg, _ARGS)
    assert set(results) == {"once_1", "once_0[:2]"}
    assert [opened[str(file)] for file in files] == [1, 1]


@pytest.mark.pictures
def test_a_run_on_a_recognised_folder_reads_each_label_file_once(
    tiny_cfg: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    entry = tiny_cfg().DATASETS.CUSTOM[0]
    assert convert([entry["JSON"], "--to", "yolo", str(tmp_path / "yolo"), "--images", entry["IMAGES"]]) == 0
    custom = f"{{once_yolo: {{ANNOTATIONS: {tmp_path}/yolo}}}}"  # as on the command line
    changes = {"DATASETS.CUSTOM": custom, "DATASETS.TRAIN": ["once_yolo"], "DATASETS.TEST": ["once_yolo"]}
    with counted_opens() as opened:
        results = run(tiny_cfg(changes | {"SOLVER.MAX_ITER": 2, "TEST.EVAL_PERIOD": 1}), _ARGS)
    assert set(results) == {"once_yolo"} and "AP" in results["once_yolo"]["bbox"]
    labels = sorted((tmp_path / "yolo/labels/train").iterdir())
    assert len(labels) > 1 and [opened[str(file)] for file in labels] == [1] * len(labels)
    assert opened[str(tmp_path / "yolo/data.yaml")] == 2  # to recognise the format, and to read it
