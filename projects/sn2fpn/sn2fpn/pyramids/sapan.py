"""SA-PAN: path aggregation with soft nearest-neighbour interpolation down and extended-window downsampling up.

    T_i = L_i + alpha_i * nearest(T_{i+1}),  P_i = conv3x3(T_i)
    N_2 = P_2,  N_{i+1} = relu(conv3x3(relu(Down(N_i)) + P_{i+1}));  p6 = subsample(N_5)

Source: Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024. The released models combine SNI on
the way down with GSConvE-1 (or, as an alternative, ESD) on the way up, in a neck for one-stage detectors that
concatenates. This is its form for R-CNN: `PAFPN`, which adds, with Down in place of each 3x3 convolution of stride 2.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ..errors import argument_names, check_choice
from ..layers import ESD1, ESD2, GSConvE1, Upsampling
from ..layers.norm import Norm
from .pafpn import PAFPN
from .registry import register_pyramid

__all__ = ["SAPAN"]


@register_pyramid("sapan", renames={"NORM": "down_norm"})
class SAPAN(PAFPN):
    """A path aggregation network (`PAFPN`) with SNI on the way down and ESD or GSConvE-1 on the way up.

    The modules have the same names as in `PAFPN`.

    Args:
        inputs, shared: as in `PAFPN`, except `make_down`; `fuse_type` "avg" needs another `upsample` than SNI.
        upsample: how the top-down path upsamples, see `sn2fpn.layers.get_upsample`.
        down: "esd1", "esd2", "gsconve1" (with a 3x3 kernel), or "conv", which is PAFPN's convolution.
        down_norm: norm inside ESD and GSConvE-1.

    Raises:
        ArgumentError: an unknown choice, or what `FPN` refuses.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import SAPAN
        >>> pyramid = SAPAN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> pyramid(maps)["p5"].shape
        torch.Size([1, 16, 4, 6])
    """

    def __init__(
        self, *inputs: Any, upsample: Upsampling = "sni", down: str = "esd1", down_norm: Norm = "BN", **shared: Any
    ) -> None:
        downs = {
            "esd1": partial(ESD1, norm=down_norm),
            "esd2": partial(ESD2, norm=down_norm),
            "gsconve1": partial(GSConvE1, kernel_size=3, stride=2, norm=down_norm),
            "conv": None,
        }
        make = downs[check_choice("down", down, downs)]

        def make_down() -> nn.Module:
            with argument_names({"norm": "down_norm"}):
                return make(self.out_channels, self.out_channels)

        super().__init__(*inputs, upsample=upsample, make_down=make_down if make else None, **shared)
