"""Tests of `check_pyramid`: sound pyramids pass, and a broken promise is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sn2fpn.errors import UserError
from sn2fpn.pyramids import FPN, SNIFPN, Pyramid
from sn2fpn.pyramids.checks import TRUNK, check_gradients, check_pyramid


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


class _Forgets(_Base):
    def fuse(self, features):  # type: ignore[no-untyped-def]
        self.laterals(features)


class _Fails(_Base):
    def fuse(self, features):  # type: ignore[no-untyped-def]
        return self.latterals(features)


class _List(_Base):
    def forward(self, x):  # type: ignore[no-untyped-def]
        return list(super().forward(x).values())


class _Copies(_Base):
    def fuse(self, features):  # type: ignore[no-untyped-def]
        maps = self.laterals(features)
        return [x + torch.linspace(0, 1, x.shape[3]).to(x) for x in maps]


class _Indexes(_Base):
    def fuse(self, features):  # type: ignore[no-untyped-def]
        return [x + x[:, torch.arange(x.shape[1])] for x in self.laterals(features)]


class _Breaks(_Base):
    def fuse(self, features):  # type: ignore[no-untyped-def]
        maps = self.laterals(features)
        torch._dynamo.graph_break()
        return maps


class _Drops(_Base):
    def __init__(self, shape) -> None:  # type: ignore[no-untyped-def]
        super().__init__(shape)
        self.dropout = torch.nn.Dropout2d(0.3)

    def fuse(self, features):  # type: ignore[no-untyped-def]
        return [self.dropout(x) for x in self.laterals(features)]


class _Hides(_Base):
    """A pyramid whose gates are hidden in an attribute, as `make` makes them."""

    def __init__(self, shape, make) -> None:  # type: ignore[no-untyped-def]
        super().__init__(shape)
        self.inner = torch.nn.Module()
        self.inner.g = make()


class _Scalars(_Base):
    def __init__(self, shape) -> None:  # type: ignore[no-untyped-def]
        super().__init__(shape)
        self.add_per_level(gate=lambda i: torch.nn.Parameter(torch.ones(())) if i else None)

    def fuse(self, features):  # type: ignore[no-untyped-def]
        maps, gates = self.laterals(features), self.per_level("gate")
        return [maps[0], *(gate * x for gate, x in zip(gates[1:], maps[1:]))]


def test_numbers_that_are_learned_are_named_by_level() -> None:
    check_pyramid(_Scalars, compiled=False)
    assert [name for name in _Scalars(TRUNK).state_dict() if name.startswith("gate")] == ["gate3", "gate4", "gate5"]
    with pytest.raises(UserError, match=r"^gate2: expected a module, an nn.Parameter or None, found a Tensor"):
        _Base(TRUNK).add_per_level(gate=lambda i: torch.ones(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3, requires_grad=True),
        lambda: [torch.nn.Parameter(torch.ones(3))],
        lambda: {"res2": (torch.ones(3, requires_grad=True),)},
        lambda: [torch.nn.Linear(1, 1)],
    ],
)
def test_what_is_learned_must_be_registered(make: Any) -> None:
    with pytest.raises(UserError, match=r"^_Hides keeps a \w+ in `inner.g` that is no parameter of it, .*nn.Parameter"):
        check_gradients(_Hides(TRUNK, make))
    check_gradients(_Hides(TRUNK, lambda: [torch.ones(3), 1.0, torch.nn.ReLU()]))  # nothing to learn


def test_sound_pyramids_pass() -> None:
    check_pyramid(_Drops, compiled=False)
    check_pyramid(lambda shape: SNIFPN(shape, 8))
    check_pyramid(_Base, compiled=False)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (_Doubles, r"p2 of a 131x93 image should be \(2, 8, 33, 24\), found \(2, 8, 34, 24\)"),
        (_InPlace, "changes the trunk's map res3 in place"),
        (_Idle, "no gradient reaches idle.weight"),
        (_Forgets, r"_Forgets.fuse: expected a list of the first 4 or 5 of the maps .* found a NoneType"),
        (_Fails, "_Fails, check_shapes: AttributeError: '_Fails' object has no attribute 'latterals'"),
        (_List, "_List: expected a dict of maps, found a list"),
        (lambda shape: FPN(shape, 0), "out_channels: expected a whole number of at least 1, found 0"),
        (lambda: FPN(TRUNK, 8), "build: TypeError: .*takes 0 positional arguments"),
        (lambda shape: torch.nn.Identity(), "build: expected it to make a Pyramid, found a Identity"),
        (FPN(TRUNK, 8), "build: expected a function that makes the pyramid .*found a FPN"),
        (_Copies, "_Copies: aten._to_copy.default reads a tensor of the CPU, for which a GPU waits; make it on"),
        (_Indexes, "_Indexes: aten.index.Tensor reads a tensor of the CPU"),
        (_Breaks, "does not compile in one graph"),
    ],
)
def test_the_broken_promise_is_named(broken: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_pyramid(broken)
