"""A check that mistakes are named in the language of whoever makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.pyramids import PYRAMIDS, Pyramid
from sn2fpn.structures import ShapeSpec

TRUNK = {f"res{i}": ShapeSpec(channels=4, stride=2**i) for i in (2, 3, 4, 5)}


@pytest.fixture
def refused() -> Callable[..., None]:
    """Return the check that a class refuses one option, and that its builder names the key in the same place."""

    def check(name: str, cls: type[Pyramid], option: dict[str, Any], words: str, key: str = "") -> None:
        ((argument, value),) = option.items()
        with pytest.raises(ArgumentError, match=f"^{argument}: {words}"):
            cls(TRUNK, **{"out_channels": 8, **option})
        key = key or f"MODEL.{name.upper()}.{argument.upper()}"
        cfg = get_cfg()
        cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 8, key, value])
        with pytest.raises(UserError, match=f"^{key}: {words}"):
            PYRAMIDS.get(name)(cfg, TRUNK)

    return check
