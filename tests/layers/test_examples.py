"""The examples in the docstrings of layers and pyramids run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import sn2fpn.layers
import sn2fpn.pyramids

MODULES = [
    module.name
    for package in (sn2fpn.layers, sn2fpn.pyramids)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
PUBLIC = ["layers.C3", "layers.Conv2d", "layers.ConvNormAct", "layers.ESD1", "layers.ESD2", "layers.FrozenBatchNorm2d"]
PUBLIC += ["layers.GSConv", "layers.GSConvE1", "layers.GSConvE2", "layers.SNI", "layers.esd_fuse"]
PUBLIC += ["layers.soft_nearest", "layers.soft_nearest_add", "pyramids.FPN", "pyramids.IHP", "pyramids.SNIFPN"]
PUBLIC += ["pyramids.BiFPN", "pyramids.PAFPN", "pyramids.SAPAN"]
PUBLIC += ["layers.DeformConv2d", "layers.PConv", "layers.SEPC", "layers.SharedConv", "layers.integrated_norm_relu"]
PUBLIC += ["pyramids.FaPN", "pyramids.GFPN", "pyramids.GiraffeGraph", "pyramids.PConvFPN", "pyramids.gfpn_links"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name: str) -> None:
    room, attribute = name.split(".")
    assert "Example:" in getattr(importlib.import_module(f"sn2fpn.{room}"), attribute).__doc__
