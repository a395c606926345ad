"""FaPN, the feature-aligned pyramid: trunk maps are re-weighted, and coarse maps are warped onto fine ones.

    L_i = conv1x1(C_i + s * C_i),  s = sigmoid(conv1x1(mean C_i))                             selection
    A_i = relu(deform3x3(U; conv3x3(conv1x1(cat(L_i, 2 U))))),  U = bilinear(T_{i+1})         alignment
    T_5 = conv1x1(C_5),  T_i = L_i + A_i,  P_i = conv3x3(T_i),  P_5 = T_5

Source: Huang et al., "FaPN: Feature-aligned Pyramid Network for Dense Image Prediction", ICCV 2021 (arXiv 2108.07058),
as in its released code, where U enters the offsets doubled. deform3x3 is a modulated deformable convolution whose
offsets and masks are computed by the conv3x3.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, check_choice
from ..layers import Conv2d, DeformConv2d, Upsampling, c2_xavier_fill, get_upsample
from ..layers.cpu.pointwise import pointwise_conv
from ..layers.norm import Norm
from ..ranges import check_count
from .base import Pyramid
from .registry import register_pyramid

__all__ = ["FaPN", "FeatureAlignment", "FeatureSelection"]


@register_pyramid("fapn")
class FaPN(Pyramid):
    """A feature-aligned pyramid (FaPN): a top-down pyramid with feature selection and feature alignment.

    It has 2.3 times the parameters of FPN. The mean of the selection covers the padding of a batch's images, so
    an output depends slightly on the batch.

    Args:
        inputs, shared: the trunk's maps, `out_channels`, `in_features` and `bottom_up`, see `Pyramid`.
        norm: norm of the mixing convolutions, the coarsest lateral and the output convolutions. With a norm the
            latter two have no biases.
        groups: number of groups of the deformable convolutions; it must divide the width W.
        fsm: whether there is feature selection; without it, L_i = conv1x1(C_i).
        align: "deform", or "none", which stands for A_i = U.
        upsample: U, see `sn2fpn.layers.get_upsample`. Kinds with parameters have one module `fapn_upsample<l>` for the
            step onto each level l but the coarsest.

    Raises:
        ArgumentError: an unknown choice, groups that do not divide W, or inputs that do not make a pyramid.

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
        *inputs: Any,
        norm: Norm = "",
        groups: int = 8,
        fsm: bool = True,
        align: str = "deform",
        upsample: Upsampling = "bilinear",
        **shared: Any,
    ) -> None:
        super().__init__(*inputs, **shared)
        width = self.out_channels
        aligns = check_choice("align", align, ("deform", "none")) == "deform"
        if aligns and width % check_count("groups", groups):
            raise ArgumentError("groups", f"expected a divisor of the pyramid's width {width}, found {groups}")
        *fused, coarsest = self.levels
        for level, channels in zip(fused, self.in_channels):
            parts = {
                f"fapn_select{level}": FeatureSelection(channels, width, attend=fsm),
                f"fapn_upsample{level}": get_upsample(upsample, width),
                f"fapn_align{level}": FeatureAlignment(width, groups, norm) if aligns else None,
                f"fpn_output{level}": self.conv(width, 3, norm),
            }
            self.add_parts(**parts)
        # The released code leaves this one convolution at PyTorch's initialisation.
        self.add_parts(**{f"fpn_lateral{coarsest}": Conv2d(self.in_channels[-1], width, 1, norm=norm)})

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Compute T_i, which travels down, and P_i from the coarsest level to the finest."""
        *fused, coarsest = self.levels
        coarse = getattr(self, f"fpn_lateral{coarsest}")(features[-1])
        outputs = [coarse]
        for level, x in zip(reversed(fused), reversed(features[:-1])):
            select, upsample, align, output = (
                getattr(self, f"{prefix}{level}")
                for prefix in ("fapn_select", "fapn_upsample", "fapn_align", "fpn_output")
            )
            lateral = select(x)
            if align is None:
                coarse = upsample.add(lateral, coarse)
            else:
                coarse = lateral + align(lateral, upsample(coarse, lateral.shape[2:]))
            outputs.append(output(coarse))
        return outputs[::-1]


class FeatureSelection(nn.Module):
    """The feature selection module (FSM): conv1x1((1 + s) * x) with s = sigmoid(conv1x1(mean of x over the map)).

    The convolutions have neither biases nor norms.

    Args:
        in_channels: channels C_i of the trunk's map.
        out_channels: width W.
        attend: whether there is s; without it, its convolution is left out.

    Raises:
        ArgumentError: a number is not positive.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids.fapn import FeatureSelection
        >>> FeatureSelection(8, 16)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 16, 17, 23])
    """

    def __init__(self, in_channels: int, out_channels: int, attend: bool = True) -> None:
        super().__init__()
        check_count("in_channels", in_channels)
        check_count("out_channels", out_channels)
        self.attention = nn.Conv2d(in_channels, in_channels, 1, bias=False) if attend else None
        self.conv = Conv2d(in_channels, out_channels, 1, bias=False)
        for conv in self.children():
            c2_xavier_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the lateral map from a trunk's map: Tensor[N, C_i, h, w] -> Tensor[N, W, h, w]."""
        if self.attention is not None:
            x = x * (1 + self.attention(x.mean((2, 3), keepdim=True)).sigmoid())
        return self.conv(x)


class FeatureAlignment(nn.Module):
    """The feature alignment module (FAM): relu(modulated deformable conv3x3 of U).

    Offsets and masks come from conv1x1(cat(L, 2 U)). Offsets start at 0 and masks at 1/2, so a fresh module computes
    the relu of half a plain 3x3 convolution of U.

    Args:
        channels: width W of all maps.
        groups: number of groups of the offsets and masks.
        norm: norm of the mixing 1x1 convolution, which has no bias in any case.

    Raises:
        ArgumentError: the norm is unknown, or the groups do not divide the channels.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids.fapn import FeatureAlignment
        >>> FeatureAlignment(16)(torch.randn(1, 16, 17, 23), torch.randn(1, 16, 17, 23)).shape
        torch.Size([1, 16, 17, 23])
    """

    def __init__(self, channels: int, groups: int = 8, norm: Norm = "") -> None:
        super().__init__()
        if check_count("channels", channels) % check_count("groups", groups):
            raise ArgumentError("groups", f"expected a divisor of the {channels} channels, found {groups}")
        self.mix = Conv2d(2 * channels, channels, 1, bias=False, norm=norm)
        c2_xavier_fill(self.mix)
        self.deform = DeformConv2d(channels, channels, offset_groups=groups, modulated=True)
        # The kernel keeps PyTorch's default initialisation, which is uniform in +-1 / sqrt(9 W).
        nn.init.zeros_(self.deform.bias)

    def forward(self, lateral: Tensor, coarse: Tensor) -> Tensor:
        """Warp the upsampled coarse map U onto the lateral map L; all are Tensor[N, W, h, w]."""
        # This computes conv1x1(cat(L, 2 U)) without making the concatenated map.
        of_lateral, of_coarse = self.mix.weight.chunk(2, dim=1)
        guide = pointwise_conv(lateral, of_lateral) + pointwise_conv(coarse, 2 * of_coarse)
        if self.mix.norm is not None:
            guide = self.mix.norm(guide)
        return F.relu_(self.deform(coarse, guide))
