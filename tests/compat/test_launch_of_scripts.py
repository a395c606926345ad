"""Tests of the start of processes in scripts, on machines with and without GPUs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from sn2fpn.compat.engine import launch
from sn2fpn.errors import ArgumentError, UserError


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("count", [0, 1])
def test_one_process_needs_no_gpu(count: int) -> None:
    called: list[str] = []
    launch(called.append, count, args=("once",))
    assert called == ["once"]
    with pytest.raises(UserError, match="there is no GPU"):  # the script says that it needs one
        launch(called.append, count, args=("twice",), device="cuda")
    assert called == ["once"]


@pytest.mark.parametrize("address", [None, "auto"])
def test_several_machines_need_an_address(address: str | None) -> None:
    with pytest.raises(ArgumentError, match=r"dist_url: expected tcp://HOST:PORT for 2 machines, found (None|'auto')"):
        launch(print, 1, num_machines=2, dist_url=address)


def _write_timeout(folder: Path) -> None:
    backend = dist.group.WORLD._get_backend(torch.device("cpu"))
    (folder / str(dist.get_rank())).write_text(f"{dist.get_backend()} {backend.options._timeout}")


@pytest.mark.slow
def test_processes_on_cpus_wait_as_long_as_they_are_told(tmp_path: Path) -> None:
    launch(_write_timeout, 2, args=(tmp_path,), timeout=timedelta(seconds=90))
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["gloo 0:01:30"] * 2
