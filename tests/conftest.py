"""Fixtures that all tests share: the folders of golden numbers and optional data, and tidying up after a run."""

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
