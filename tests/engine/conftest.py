"""Fixtures of the engine's tests: a detector and a data set that train in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from small_runs import small_run
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.engine import native

_ROOT = Path(__file__).parents[2]
_VOLATILE = {"time", "data_time", "eta_seconds", "peak_memory_mib"}


@pytest.fixture(autouse=True)
def _runs_leave_no_trace(leave_no_trace: None) -> None:
    """Restore logging and determinism after each test, since any of them may run a trainer."""


@pytest.fixture(autouse=True)
def _pictures_where_they_are_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw no pictures at the end of a run, since they take longer than a small run, but in tests marked `pictures`."""
    with pytest.MonkeyPatch.context() as patch:  # of its own, because tests undo what they have patched
        if request.node.get_closest_marker("pictures") is None:
            patch.setattr(native, "_draw", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def tiny_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The configuration keys of a small run on 8 images of shapes."""
    return small_run(tmp_path_factory.mktemp("tiny") / "shapes", "tiny")


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
