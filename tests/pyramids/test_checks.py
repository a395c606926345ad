"""Tests of `check_pyramid`: sound pyramids pass, and a broken promise is named."""

from __future__ import annotations

import pytest
import torch

from sn2fpn.errors import UserError
from sn2fpn.pyramids import SNIFPN, Pyramid
from sn2fpn.pyramids.checks import check_pyramid


class _Base(Pyramid):
    def __init__(self, shape) -> None:  # type: ignore[no-untyped-def]
        super().__init__(shape, 8)
        self.add_laterals()

    def fuse(self, features):  # type: ignore[no-untyped-def]
        return self.laterals(features)


class _Doubles(_Base):
    def fuse(self, features):  # type: ignore[no-untyped-def]
        maps = self.laterals(features)
        maps[0] = maps[0].new_ones(()) * torch.nn.functional.interpolate(maps[1], scale_factor=2)
        return maps


class _InPlace(_Base):
    def fuse(self, features):  # type: ignore[no-untyped-def]
        features[1] += 1
        return self.laterals(features)


class _Idle(_Base):
    def __init__(self, shape) -> None:  # type: ignore[no-untyped-def]
        super().__init__(shape)
        self.idle = torch.nn.Conv2d(8, 8, 1)


class _Breaks(_Base):
    def fuse(self, features):  # type: ignore[no-untyped-def]
        maps = self.laterals(features)
        torch._dynamo.graph_break()
        return maps


def test_sound_pyramids_pass() -> None:
    check_pyramid(lambda shape: SNIFPN(shape, 8))
    check_pyramid(_Base, compiled=False)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (_Doubles, r"p2 of a 131x93 image should be \(2, 8, 33, 24\), found \(2, 8, 34, 24\)"),
        (_InPlace, "changes the trunk's map res3 in place"),
        (_Idle, "no gradient reaches idle.weight"),
        (_Breaks, "does not compile in one graph"),
    ],
)
def test_the_broken_promise_is_named(broken: type, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_pyramid(broken)
