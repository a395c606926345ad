"""SA-PAN: path aggregation with soft nearest-neighbour interpolation down and extended-window downsampling up.

    T_i = L_i + alpha_i * nearest(T_{i+1}),  P_i = conv3x3(T_i)
    N_2 = P_2,  N_{i+1} = relu(conv3x3(relu(Down(N_i)) + P_{i+1}));  p6 = subsample(N_5)

Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024: the released models join SNI on the way
down with GSConvE-1 (or, as stated, ESD) on the way up, in a neck for one-stage detectors that concatenates. This is
its form for R-CNN: `PAFPN`, which adds, with Down in place of each conv3x3/2 and nothing else changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from ..errors import UserError, did_you_mean
from ..layers import ESD1, ESD2, GSConvE1, get_norm
from ..layers.norm import Norm
from .base import InputShape
from .pafpn import PAFPN
from .registry import register_pyramid

__all__ = ["SAPAN"]


class SAPAN(PAFPN):
    """`PAFPN` with SNI in the top-down path and ESD or GSConvE-1 in the bottom-up path; the same names.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        norm: of every conv of PAFPN, see `sn2fpn.layers.get_norm`; "": none, and the convs have biases.
        fuse_type: of the top-down path, as in `FPN`; "avg" only with `upsample` "nearest".
        upsample: "sni", or "nearest".
        variant: "paper", or "openmmlab", as in `PAFPN`.
        down: "esd1", "esd2", "gsconve1" (kernel 3), or "conv": PAFPN's.
        down_norm: inside ESD and GSConvE-1.

    Raises:
        UserError: an unknown choice, "sni" with `fuse_type` "avg", or inputs that make no pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import SAPAN
        >>> pyramid = SAPAN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> pyramid(maps)["p5"].shape
        torch.Size([1, 16, 4, 6])
    """

    keys = "MODEL.SAPAN"

    def __init__(
        self,
        input_shape: InputShape | None = None,
        out_channels: int = 256,
        *,
        in_features: Sequence[str] = (),
        bottom_up: nn.Module | None = None,
        norm: Norm = "",
        fuse_type: str = "sum",
        upsample: str = "sni",
        variant: str = "paper",
        down: str = "esd1",
        down_norm: Norm = "BN",
    ) -> None:
        width = out_channels
        downs: dict[str, Callable[[], nn.Module] | None] = {
            "esd1": partial(ESD1, width, width, norm=down_norm),
            "esd2": partial(ESD2, width, width, norm=down_norm),
            "gsconve1": partial(GSConvE1, width, width, 3, 2, norm=down_norm),
            "conv": None,
        }
        if down not in downs:
            raise UserError(f"{self.keys}.DOWN: unknown downsampling {down!r}{did_you_mean(down, downs)}")
        super().__init__(
            input_shape,
            out_channels,
            in_features=in_features,
            bottom_up=bottom_up,
            norm=norm,
            fuse_type=fuse_type,
            upsample=upsample,
            variant=variant,
            make_down=downs[down],
        )


@register_pyramid("sapan")
def build_sapan(cfg: Any, input_shape: InputShape) -> SAPAN:
    """SA-PAN from `MODEL.FPN` and `MODEL.SAPAN`."""
    fpn, sapan = cfg.MODEL.FPN, cfg.MODEL.SAPAN
    return SAPAN(
        input_shape,
        fpn.OUT_CHANNELS,
        in_features=fpn.IN_FEATURES,
        norm=fpn.NORM,
        fuse_type=fpn.FUSE_TYPE,
        upsample=sapan.UPSAMPLE,
        variant=sapan.VARIANT,
        down=sapan.DOWN,
        down_norm=partial(get_norm, sapan.NORM, eps=sapan.NORM_EPS, momentum=sapan.NORM_MOMENTUM),
    )
