"""FaPN, the feature-aligned pyramid: trunk maps are re-weighted, coarse maps are warped onto fine ones.

    L_i = conv1x1(C_i + s * C_i),  s = sigmoid(conv1x1(mean C_i))                             selection
    A_i = relu(deform3x3(U; conv3x3(conv1x1(cat(L_i, 2 U))))),  U = bilinear(T_{i+1})         alignment
    T_5 = conv1x1(C_5),  T_i = L_i + A_i,  P_i = conv3x3(T_i),  P_5 = T_5

Huang et al., "FaPN: Feature-aligned Pyramid Network for Dense Image Prediction", ICCV 2021 (arXiv 2108.07058), as in
its released code, where U enters the offsets doubled. deform3x3 is modulated; its offsets and masks come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import Conv2d, DeformConv2d, c2_xavier_fill, check_upsampling, upsample, upsample_add
from ..layers.norm import Norm
from .base import InputShape, Pyramid
from .registry import register_pyramid

__all__ = ["FaPN", "FeatureAlignment", "FeatureSelection"]


class FaPN(Pyramid):
    """Top-down pyramid with feature selection and alignment; 2.3 times the parameters of FPN.

    The mean of the selection covers the padding of a batch's images, so an output depends slightly on the batch.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        norm: of the mixing convs, the coarsest lateral and the output convs (the latter two then lose their biases).
        groups: g of the deformable convs; must divide W.
        fsm: feature selection; False: L_i = conv1x1(C_i).
        align: "deform", or "none": A_i = U.
        upsample: U, "bilinear" (half-pixel centres), "nearest" or "sni" (nearest, scaled by the area ratio).

    Raises:
        UserError: an unknown choice, groups that do not divide W, or inputs that make no pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import FaPN
        >>> pyramid = FaPN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> pyramid(maps)["p2"].shape
        torch.Size([1, 16, 32, 48])
    """

    def __init__(
        self,
        input_shape: InputShape | None = None,
        out_channels: int = 256,
        *,
        in_features: Sequence[str] = (),
        bottom_up: nn.Module | None = None,
        norm: Norm = "",
        groups: int = 8,
        fsm: bool = True,
        align: str = "deform",
        upsample: str = "bilinear",
    ) -> None:
        super().__init__(input_shape, out_channels, in_features=in_features, bottom_up=bottom_up)
        if align not in ("deform", "none"):
            raise UserError(f"MODEL.FAPN.ALIGN: found {align!r}{did_you_mean(align, ('deform', 'none'))}")
        if align == "deform" and (groups < 1 or out_channels % groups):
            raise UserError(
                f"MODEL.FAPN.GROUPS: expected a divisor of MODEL.FPN.OUT_CHANNELS = {out_channels}, found {groups}"
            )
        self.upsample = check_upsampling(upsample, "MODEL.FAPN.UPSAMPLE", ("bilinear", "nearest", "sni"))
        *fused, coarsest = self.levels
        for level, channels in zip(fused, self.in_channels):
            self.add_parts(**{f"fapn_select{level}": FeatureSelection(channels, out_channels, attend=fsm)})
            if align == "deform":
                self.add_parts(**{f"fapn_align{level}": FeatureAlignment(out_channels, groups, norm)})
            self.add_parts(**{f"fpn_output{level}": self.conv(out_channels, 3, norm)})
        # The released code leaves this one conv at PyTorch's initialisation.
        self.add_parts(**{f"fpn_lateral{coarsest}": Conv2d(self.in_channels[-1], out_channels, 1, norm=norm)})

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """From coarse to fine: T_i, which travels down, and P_i."""
        *fused, coarsest = self.levels
        coarse = getattr(self, f"fpn_lateral{coarsest}")(features[-1])
        outputs = [coarse]
        for level, x in zip(reversed(fused), reversed(features[:-1])):
            lateral = getattr(self, f"fapn_select{level}")(x)
            align = getattr(self, f"fapn_align{level}", None)
            if align is None:
                coarse = upsample_add(lateral, coarse, self.upsample)
            else:
                coarse = lateral + align(lateral, upsample(coarse, lateral.shape[2:], self.upsample))
            outputs.append(getattr(self, f"fpn_output{level}")(coarse))
        return outputs[::-1]


class FeatureSelection(nn.Module):
    """FSM: conv1x1((1 + s) * x), s = sigmoid(conv1x1(mean of x over the map)); no biases, no norm.

    Args:
        in_channels, out_channels: C_i and W.
        attend: False: s = 0, without its conv.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids.fapn import FeatureSelection
        >>> FeatureSelection(8, 16)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 16, 17, 23])
    """

    def __init__(self, in_channels: int, out_channels: int, attend: bool = True) -> None:
        super().__init__()
        self.attention = nn.Conv2d(in_channels, in_channels, 1, bias=False) if attend else None
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        for conv in self.children():
            c2_xavier_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (Tensor[N, C, H, W]) -> Tensor[N, W, H, W']."""
        if self.attention is not None:
            x = x * (1 + self.attention(x.mean((2, 3), keepdim=True)).sigmoid())
        return self.conv(x)


class FeatureAlignment(nn.Module):
    """FAM: relu(modulated deformable conv3x3 of U), offsets and masks from conv1x1(cat(L, 2 U)).

    Offsets start at 0 and masks at 1/2, so at first it is relu of half a plain 3x3 conv of U.

    Args:
        channels: W of all maps.
        groups: of the offsets and masks.
        norm: of the mixing 1x1 conv, which has no bias in any case.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids.fapn import FeatureAlignment
        >>> FeatureAlignment(16)(torch.randn(1, 16, 17, 23), torch.randn(1, 16, 17, 23)).shape
        torch.Size([1, 16, 17, 23])
    """

    def __init__(self, channels: int, groups: int = 8, norm: Norm = "") -> None:
        super().__init__()
        self.mix = Conv2d(2 * channels, channels, 1, bias=False, norm=norm)
        c2_xavier_fill(self.mix)
        self.deform = DeformConv2d(channels, channels, offset_groups=groups, modulated=True)
        nn.init.zeros_(self.deform.bias)  # the kernel stays at PyTorch's default, uniform in +-1 / sqrt(9 W)

    def forward(self, lateral: Tensor, coarse: Tensor) -> Tensor:
        """L and U (Tensor[N, W, H, W'] each) -> Tensor[N, W, H, W']."""
        of_lateral, of_coarse = self.mix.weight.chunk(2, dim=1)  # as conv1x1(cat(L, 2 U)), without making that map
        guide = F.conv2d(lateral, of_lateral) + F.conv2d(coarse, 2 * of_coarse)
        if self.mix.norm is not None:
            guide = self.mix.norm(guide)
        return F.relu_(self.deform(coarse, guide))


@register_pyramid("fapn")
def build_fapn(cfg: Any, input_shape: InputShape) -> FaPN:
    """FaPN from `MODEL.FPN` and `MODEL.FAPN`."""
    fpn, fapn = cfg.MODEL.FPN, cfg.MODEL.FAPN
    return FaPN(
        input_shape,
        fpn.OUT_CHANNELS,
        in_features=fpn.IN_FEATURES,
        norm=fpn.NORM,
        groups=fapn.GROUPS,
        fsm=fapn.FSM,
        align=fapn.ALIGN,
        upsample=fapn.UPSAMPLE,
    )
