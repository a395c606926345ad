"""FPN: Feature Pyramid Networks for Object Detection (Lin et al., CVPR 2017), as in Detectron2.

    T_5 = L_5,  T_i = L_i + N(T_{i+1}),  P_i = conv3x3(T_i),  L_i = conv1x1(C_i)

N is nearest-neighbour upsampling to the size of L_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import check_upsampling, upsample_add
from ..layers.norm import Norm
from .base import InputShape, Pyramid
from .registry import register_pyramid

__all__ = ["FPN"]


class FPN(Pyramid):
    """Top-down pyramid with additions (Lin et al., 2017, section 3), Detectron2's parameter names and order.

    The plain sum T_i travels down; the 3x3 output convs are leaves. Detectron2 upsamples by the factor 2, here
    the target is the size of the finer map, which is the same wherever Detectron2's works.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        norm: of every conv, see `sn2fpn.layers.get_norm`; "": none, and the convs have biases.
        fuse_type: "sum", or "avg": T_i is halved after each addition.
        upsample: how T_{i+1} reaches the size of L_i: "nearest", or "sni" (nearest, scaled by the area ratio), for
            pyramids built on this one.

    Raises:
        UserError: unknown `fuse_type`, `upsample` or norm, "avg" with "sni" (the coarse map would be damped twice),
            or inputs that make no pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import FPN
        >>> fpn = FPN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> {name: tuple(p.shape[2:]) for name, p in fpn(maps).items()}
        {'p2': (32, 48), 'p3': (16, 24), 'p4': (8, 12), 'p5': (4, 6), 'p6': (2, 3)}
    """

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
    ) -> None:
        super().__init__(input_shape, out_channels, in_features=in_features, bottom_up=bottom_up)
        if fuse_type not in ("sum", "avg"):
            raise UserError(f"FPN fuse_type: found {fuse_type!r}{did_you_mean(fuse_type, ('sum', 'avg'))}")
        if upsample == "sni" and fuse_type != "sum":
            raise UserError(
                f"MODEL.FPN.FUSE_TYPE: SNI only sums (its alpha is the weight), found {fuse_type!r}; set it to 'sum'"
            )
        self.fuse_type = fuse_type
        self.upsample = check_upsampling(upsample, "FPN upsample", ("nearest", "sni"))
        self.add_laterals(norm, fpn_output=lambda _: self.conv(out_channels, 3, norm))

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """From coarse to fine: T_i, and P_i = conv3x3(T_i)."""
        outputs: list[Tensor] = []
        coarse = None
        levels = zip(features, self.per_level("fpn_lateral"), self.per_level("fpn_output"))
        for feature, lateral, output in reversed(list(levels)):
            fused = lateral(feature)
            if coarse is not None:
                fused = upsample_add(fused, coarse, self.upsample)
                fused = fused / 2 if self.fuse_type == "avg" else fused
            outputs.append(output(fused))
            coarse = fused
        return outputs[::-1]


@register_pyramid("fpn")
def build_fpn(cfg: Any, input_shape: InputShape) -> FPN:
    """FPN from `MODEL.FPN`."""
    return FPN(
        input_shape,
        cfg.MODEL.FPN.OUT_CHANNELS,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        norm=cfg.MODEL.FPN.NORM,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
