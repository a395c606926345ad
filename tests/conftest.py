"""Fixtures that every room's tests share: where golden numbers and optional data lie, and tidying up after a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden numbers, copied into `tests/golden`."""
    return _TESTS / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and broken files beside the repository; `$SN2FPN_SHARED_DATA` names another folder."""
    default = _TESTS.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("SN2FPN_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no sample data in {folder}; set SN2FPN_SHARED_DATA to its folder")
    return folder


@pytest.fixture
def leave_no_trace() -> Iterator[None]:
    """A run sets up logging and determinism for its process; tests share one."""
    logger = logging.getLogger("sn2fpn")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield
    for handler in set(logger.handlers) - set(before[2]):
        handler.close()
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]
    torch.use_deterministic_algorithms(False)
