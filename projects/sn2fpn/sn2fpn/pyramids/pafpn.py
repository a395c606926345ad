"""PAFPN: FPN and a bottom-up path after it. Path Aggregation Network (Liu et al., CVPR 2018, arXiv 1803.01534).

    N_2 = P_2,  N_{i+1} = relu(conv3x3(relu(conv3x3/2(N_i)) + P_{i+1})),  P_i from FPN;  p6 = subsample(N_5)

The variant "openmmlab", the form of a widely used implementation, has no activations and passes up the raw sum:

    S_2 = P_2,  S_{i+1} = conv3x3/2(S_i) + P_{i+1},  N_2 = S_2,  N_i = conv3x3(S_i)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import check_upsampling
from ..layers.norm import Norm
from .base import InputShape
from .fpn import FPN
from .registry import register_pyramid

__all__ = ["PAFPN"]

_VARIANTS = ("paper", "openmmlab")


class PAFPN(FPN):
    """Path aggregation: FPN's maps, then from fine to coarse; an FPN checkpoint's modules load by their names.

    Adds to FPN, for each level l but the finest, `pafpn_down<l>` (stride 2) and `pafpn_output<l>` (after the sum).
    In the variant "paper" the outputs but the finest are >= 0 (a ReLU comes last).

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        norm: of every conv, see `sn2fpn.layers.get_norm`; "": none, and the convs have biases.
        fuse_type: of the top-down path, as in `FPN`.
        upsample: in the top-down path: "nearest", or "sni" (nearest, scaled by the area ratio).
        variant: "paper", or "openmmlab".
        make_down: makes what halves a map on the way up, W -> W channels, sizes rounded up; None: conv3x3/2.

    Raises:
        UserError: an unknown choice, "sni" with `fuse_type` "avg", or inputs that make no pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import PAFPN
        >>> pyramid = PAFPN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> pyramid(maps)["p5"].shape
        torch.Size([1, 16, 4, 6])
    """

    keys = "MODEL.PAFPN"  # the options' node, for messages

    def __init__(
        self,
        input_shape: InputShape | None = None,
        out_channels: int = 256,
        *,
        in_features: Sequence[str] = (),
        bottom_up: nn.Module | None = None,
        norm: Norm = "",
        fuse_type: str = "sum",
        upsample: str = "nearest",
        variant: str = "paper",
        make_down: Callable[[], nn.Module] | None = None,
    ) -> None:
        check_upsampling(upsample, f"{self.keys}.UPSAMPLE", ("nearest", "sni"))
        if variant not in _VARIANTS:
            raise UserError(f"{self.keys}.VARIANT: unknown variant {variant!r}{did_you_mean(variant, _VARIANTS)}")
        super().__init__(
            input_shape,
            out_channels,
            in_features=in_features,
            bottom_up=bottom_up,
            norm=norm,
            fuse_type=fuse_type,
            upsample=upsample,
        )
        self.variant = variant
        make_down = make_down or (lambda: self.conv(out_channels, 3, norm, stride=2))
        self.add_per_level(
            pafpn_down=lambda i: make_down() if i else None,
            pafpn_output=lambda i: self.conv(out_channels, 3, norm) if i else None,
        )

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """FPN, then from fine to coarse."""
        maps = super().fuse(features)
        passed_up = maps[0]
        levels = zip(self.per_level("pafpn_down"), self.per_level("pafpn_output"))
        for i, (down, output) in list(enumerate(levels))[1:]:
            if self.variant == "paper":
                # in place: nobody else reads the new map
                maps[i] = passed_up = F.relu_(output(F.relu_(down(passed_up)) + maps[i]))
            else:
                passed_up = down(passed_up) + maps[i]
                maps[i] = output(passed_up)
        return maps


@register_pyramid("pafpn")
def build_pafpn(cfg: Any, input_shape: InputShape) -> PAFPN:
    """PAFPN from `MODEL.FPN` and `MODEL.PAFPN`."""
    fpn, pafpn = cfg.MODEL.FPN, cfg.MODEL.PAFPN
    return PAFPN(
        input_shape,
        fpn.OUT_CHANNELS,
        in_features=fpn.IN_FEATURES,
        norm=fpn.NORM,
        fuse_type=fpn.FUSE_TYPE,
        upsample=pafpn.UPSAMPLE,
        variant=pafpn.VARIANT,
    )
