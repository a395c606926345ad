"""Tests that the examples in the docstrings of layers and pyramids run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import sn2fpn.layers
import sn2fpn.pyramids

MODULES = [
    module.name
    for package in (sn2fpn.layers, sn2fpn.pyramids)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
INTERFACES = {sn2fpn.layers.Upsample, sn2fpn.pyramids.Pyramid}
CLASSES = [
    value
    for package in (sn2fpn.layers, sn2fpn.pyramids)
    for value in map(vars(package).get, package.__all__)
    if inspect.isclass(value) and value not in INTERFACES
]
FUNCTIONS = [sn2fpn.layers.esd_fuse, sn2fpn.layers.get_upsample, sn2fpn.layers.integrated_norm_relu]
FUNCTIONS += [sn2fpn.layers.soft_nearest, sn2fpn.layers.soft_nearest_add]
FUNCTIONS += [sn2fpn.pyramids.check_pyramid, sn2fpn.pyramids.gfpn_links, sn2fpn.pyramids.register_pyramid]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("value", [*CLASSES, *FUNCTIONS], ids=lambda value: value.__name__)
def test_public_names_have_an_example(value: Any) -> None:
    assert "Example:" in value.__doc__
