"""Test that layers refuse numbers and choices from which no layer can be made, and that they name the argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from sn2fpn.errors import ArgumentError
from sn2fpn.layers import (
    C3,
    CARAFE,
    ESD1,
    ESD2,
    SEPC,
    SNI,
    ConvNormAct,
    Deconv,
    DeformConv2d,
    DySample,
    GSConv,
    GSConvE1,
    GSConvE2,
    PConv,
    SharedConv,
    get_activation,
    get_norm,
    get_upsample,
)

COUNT = "expected a whole number of at least 1, found"
ODD = "expected an odd number of at least 1, found"
REFUSED: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    # the layer, its arguments of which the last is at fault, the problem
    *(
        (layer, {"in_channels": 8, "out_channels": 8, "kernel_size": k}, ODD)
        for k in (0, -1, 2, 2.5)
        for layer in (ConvNormAct, ESD1, ESD2, GSConv, GSConvE1, GSConvE2)
    ),
    *(
        (layer, {"out_channels": 8, "in_channels": n}, COUNT)
        for n in (0, -8)
        for layer in (ConvNormAct, ESD2, GSConv, GSConvE1, GSConvE2, DeformConv2d)
    ),
    *(
        (layer, {"in_channels": 8, "out_channels": n}, COUNT)
        for n in (0, -8, 8.0)
        for layer in (ConvNormAct, ESD2, GSConv, GSConvE1, GSConvE2, DeformConv2d)
    ),
    *(
        (layer, {"in_channels": 8, "out_channels": 8, "stride": 0}, COUNT)
        for layer in (ConvNormAct, GSConv, GSConvE1, GSConvE2, DeformConv2d)
    ),
    *(
        (layer, {"channels": n}, COUNT)
        for n in (0, -8)
        for layer in (C3, PConv, SharedConv, SEPC, CARAFE, Deconv, DySample)
    ),
    (GSConvE1, {"in_channels": 8, "out_channels": 8, "aux_kernel": -1}, ODD),
    (DeformConv2d, {"in_channels": 8, "out_channels": 8, "offset_groups": 0}, COUNT),
    (DeformConv2d, {"in_channels": 8, "out_channels": 8, "padding": -1}, "expected a whole number of at least 0"),
    (C3, {"channels": 8, "depth": -1}, "expected a whole number of at least 0"),
    (SEPC, {"channels": 8, "num": -1}, "expected a whole number of at least 0"),
    (CARAFE, {"channels": 8, "compressed_channels": 0}, COUNT),
    (CARAFE, {"channels": 8, "encoder_kernel": -3}, ODD),
    (DySample, {"channels": 8, "groups": 0}, COUNT),
    (SNI, {"scale_factor": 0}, COUNT),
    *(
        (SNI, {"alpha": alpha}, "expected a number above 0, found")
        for alpha in (0, -1, 0.0, math.nan, math.inf, None, True)
    ),
    *(
        (get_upsample, {"channels": 8, "kind": kind}, "expected 'learned' or a positive number after 'sni:'")
        for kind in ("sni:0", "sni:-1", "sni:nan", "sni:inf", "sni:", "sni:a")
    ),
    (get_norm, {"channels": 8, "norm": 3}, "expected a name such as 'BN', or a callable that makes the norm, found 3"),
    (ConvNormAct, {"in_channels": 8, "out_channels": 8, "norm": 3}, "expected a name such as 'BN'"),
    (get_activation, {"activation": 3}, "expected a name such as 'relu', or a callable, found 3"),
]


@pytest.mark.parametrize(("layer", "arguments", "problem"), REFUSED)
def test_the_argument_at_fault_is_named(layer: Callable[..., Any], arguments: dict[str, Any], problem: str) -> None:
    argument = "upsample" if layer is get_upsample else list(arguments)[-1]
    with pytest.raises(ArgumentError, match=f"^{argument}: {problem}"):
        layer(**arguments)
