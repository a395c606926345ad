"""Fixtures for the export."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from export_models import filled, small_config

from sn2fpn.modeling import GeneralizedRCNN


@pytest.fixture(scope="session")
def detector() -> Callable[..., GeneralizedRCNN]:
    """A function that returns a small Mask R-CNN with changes of its configuration."""
    return lambda changes=None: filled(small_config(changes))
