"""Tests of the keyword arguments that a callable takes, and of values that suit an annotation."""

from __future__ import annotations

import collections
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf
from torch import nn

from sn2fpn.signatures import fits, keyword_parameters


class Base(nn.Module):
    def __init__(self, levels: object = None, *, width: int = 256, norm: str = "BN") -> None:
        super().__init__()


class Silent(Base):
    """A class without a constructor of its own."""


class Derived(Silent):
    def __init__(self, *levels: object, norm: str = "", depth: int = 2, **shared: object) -> None:
        super().__init__(*levels, norm=norm, **shared)


class Closed(Derived):
    def __init__(self, only: int = 1) -> None:
        super().__init__()


class Unresolved:
    def __init__(self, x: OnlyForTypeCheckers, y: 1 / 0 = 0) -> None: ...  # noqa: F821


def test_a_constructor_that_passes_arguments_on_takes_those_of_its_base_class_too() -> None:
    assert list(keyword_parameters(Silent)) == ["levels", "width", "norm"]
    parameters = keyword_parameters(Derived)
    assert list(parameters) == ["norm", "depth", "levels", "width"]
    assert parameters["norm"].default == ""  # the derived class's own default


def test_a_constructor_without_keyword_arguments_hides_those_of_its_base_class() -> None:
    assert list(keyword_parameters(Closed)) == ["only"]


def test_annotations_are_types() -> None:
    parameters = keyword_parameters(Derived)
    assert parameters["depth"].annotation is int
    unresolved = keyword_parameters(Unresolved)
    assert [p.annotation for p in unresolved.values()] == ["OnlyForTypeCheckers", "1 / 0"]


def test_functions_and_callables_without_a_signature() -> None:
    assert list(keyword_parameters(lambda a, *rest, b=1, **others: None)) == ["a", "b"]
    assert keyword_parameters(collections.OrderedDict.fromkeys) is not None
    assert keyword_parameters(type) == {}


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (None, int | None, True),
        (None, int, False),
        ([1, 2], tuple[int, ...], True),
        ([1, "x"], list[int], False),
        ("ab", Sequence[str], False),
        ({"_target_": "x"}, OmegaConf, True),
        (3, OmegaConf, False),
        (3, Any, True),
        (3, inspect.Parameter.empty, True),
        (3, "OnlyForTypeCheckers", True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ([[1]], Sequence[Sequence[int]], True),
    ],
)
def test_values_suit_annotations(value: Any, hint: Any, expected: bool) -> None:
    assert fits(value, hint) is expected
