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

from sn2fpn.engine import run


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
        results = run(cfg, argparse.Namespace(resume=False, eval_only=False, num_gpus=1, num_machines=1))
    assert set(results) == {"once_1", "once_0[:2]"}
    assert [opened[str(file)] for file in files] == [1, 1]
