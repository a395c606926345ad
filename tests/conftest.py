"""Fixtures that every room's tests share: where the golden numbers and the optional data sets lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
