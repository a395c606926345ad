"""Tests of the description of a trunk's maps, and of the arguments that all pyramids share."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from sn2fpn.errors import ArgumentError
from sn2fpn.pyramids import FPN, IHP, Levels
from sn2fpn.structures import ShapeSpec


def test_channels_alone_are_those_of_res2_and_the_following_stages() -> None:
    levels = Levels.of([8, 16, 32], width=4)
    assert levels == Levels(("res2", "res3", "res4"), (4, 8, 16), (8, 16, 32), 4)
    assert levels.numbers == (2, 3, 4)


def test_in_features_selects_maps() -> None:
    shape = {f"res{i}": ShapeSpec(channels=i, stride=2**i) for i in (2, 3, 4, 5)}
    assert Levels.of(shape, 8, ["res3", "res4"]) == Levels(("res3", "res4"), (8, 16), (3, 4), 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": 8}, "input_shape: expected the channels of a trunk's maps"),
        ({"input_shape": {"res2": 8}}, "input_shape: expected the channels of a trunk's maps"),
        ({"input_shape": []}, "input_shape: expected at least one map of the trunk, found none"),
        ({}, "input_shape: expected the channels of a trunk's maps, or a trunk as `bottom_up`"),
        ({"input_shape": [8, 16], "out_channels": 0}, "out_channels: expected a whole number of at least 1, found 0"),
        ({"input_shape": [8, 16], "out_channels": "64"}, "out_channels: expected a whole number of at least 1"),
        ({"input_shape": [8, 16], "in_features": ["res9"]}, "in_features: the trunk has no output 'res9'"),
        ({"input_shape": [8] * 3, "in_features": ["res2", "res4"]}, "in_features: expected maps whose strides"),
        ({"input_shape": [8, 16], "in_features": "res2"}, "in_features: expected a list of names, found 'res2'"),
        ({"input_shape": [8, 0]}, "input_shape['res3'].channels: expected a whole number of at least 1, found 0"),
        ({"input_shape": {"res2": ShapeSpec(channels=8)}}, "input_shape['res2'].stride: expected a whole number"),
        ({"input_shape": {"res2": ShapeSpec(stride=4)}}, "input_shape['res2'].channels: expected a whole number"),
        ({"bottom_up": nn.Identity()}, "bottom_up: expected a trunk with a method `output_shape`, found Identity"),
    ],
)
def test_what_makes_no_pyramid_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        FPN(**arguments)


def test_an_unknown_argument_is_answered_with_the_nearest_one_of_the_class() -> None:
    with pytest.raises(TypeError, match=r"^FPN takes no argument 'out_channel'; did you mean 'out_channels'\?$"):
        FPN([8, 16], out_channel=4)
    with pytest.raises(TypeError, match=r"^IHP takes no argument 'upsample'; choose from: "):
        IHP([8, 16, 32, 64], upsample="sni")


def test_a_pyramid_without_a_trunk_takes_maps_by_name() -> None:
    fpn = FPN([8, 16], 4)
    with pytest.raises(ValueError, match="expects a dict of maps, but found a list"):
        fpn([torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 2, 2)])
    with pytest.raises(ValueError, match=re.escape("missing: ['res3']")):
        fpn({"res2": torch.zeros(1, 8, 4, 4)})
