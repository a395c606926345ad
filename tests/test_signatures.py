"""Tests of the keyword arguments that a callable takes."""

from __future__ import annotations

import collections

from torch import nn

from sn2fpn.signatures import keyword_parameters


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


def test_a_constructor_that_passes_arguments_on_takes_those_of_its_base_class_too() -> None:
    assert list(keyword_parameters(Silent)) == ["levels", "width", "norm"]
    parameters = keyword_parameters(Derived)
    assert list(parameters) == ["norm", "depth", "levels", "width"]
    assert parameters["norm"].default == ""  # the derived class's own default


def test_a_constructor_without_keyword_arguments_hides_those_of_its_base_class() -> None:
    assert list(keyword_parameters(Closed)) == ["only"]


def test_functions_and_callables_without_a_signature() -> None:
    assert list(keyword_parameters(lambda a, *rest, b=1, **others: None)) == ["a", "b"]
    assert keyword_parameters(collections.OrderedDict.fromkeys) is not None
    assert keyword_parameters(type) == {}
