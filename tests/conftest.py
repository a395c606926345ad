"""Fixtures that all tests share: the folders of golden numbers and optional data, and tidying up after a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

_TESTS = Path(__file__).resolve().parent
# The longest files of slow tests, the longest one first. A worker takes whole files, so that the other workers would be
# idle while a long file that starts last is still running.
_LONGEST = (
    "tools/test_gpu_report.py",
    "export/test_exported_files.py",
    "engine/test_signals_and_kills.py",
    "engine/test_parallel.py",
    "study/run/test_interrupted.py",
    "engine/test_command_line.py",
    "engine/test_compiling.py",
    "pyramids/test_contract.py",
)

if _workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # the workers of pytest-xdist share the cores
    _threads = max(1, (os.cpu_count() or 1) // _workers)
    os.environ["OMP_NUM_THREADS"] = str(_threads)  # for the programs that tests start
    torch.set_num_threads(_threads)


_SHARED = dict(
    deadline=None,  # the machines of tests differ in speed
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.register_profile("short", max_examples=40, derandomize=True, database=None, **_SHARED)
settings.register_profile("long", max_examples=10_000, **_SHARED)


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis try the same few cases in every run, unless `--hypothesis-profile=long` asks for many."""
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("short")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Ignore warnings where Detectron2 runs, whose own code causes many, and put long files of slow tests first."""
    for item in items:
        if item.get_closest_marker("detectron2"):
            item.add_marker(pytest.mark.filterwarnings("ignore"))
    if config.option.markexpr == "slow":
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    """Return the place of a test's file among the longest ones; all others come after them, in their own order."""
    name = item.path.relative_to(_TESTS).as_posix() if item.path.is_relative_to(_TESTS) else ""
    return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the golden numbers."""
    return _TESTS / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder of real photographs and broken files beside the repository, or the one in `$SN2FPN_SHARED_DATA`."""
    default = _TESTS.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("SN2FPN_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no sample data in {folder}; set SN2FPN_SHARED_DATA to its folder")
    return folder


@pytest.fixture
def leave_no_trace() -> Iterator[None]:
    """Undo the logging and determinism that a run sets up for its process, which tests share."""
    logger = logging.getLogger("sn2fpn")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield
    for handler in set(logger.handlers) - set(before[2]):
        handler.close()
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]
    torch.use_deterministic_algorithms(False)
