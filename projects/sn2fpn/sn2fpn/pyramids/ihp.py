"""IHP, the independent hierarchy pyramid: a convolutional filter on every level, and no fusion across levels.

    P_i = Filter_i(conv1x1(C_i)),  i = 2..5;  p6 = subsample(P_5)

Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024. The 1x1 lateral is the adaptation to
R-CNN heads, which share weights over levels. The released filter is GSConvE-1 followed by C3, deeper on coarser
levels (1, 2, 3 blocks for p3, p4, p5; here one more block for p2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import C3, ConvNormAct, GSConvE1, get_norm
from ..layers.norm import Norm
from .base import InputShape, Pyramid
from .registry import register_pyramid

__all__ = ["IHP"]


class IHP(Pyramid):
    """Independent hierarchy pyramid; levels share nothing, so level l sees C_l alone.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        norm: of the lateral convs and of "conv3x3", as in FPN; "": none, and these convs have biases.
        filter_name: "gsconve_c3" (GSConvE-1, then C3), "gsconve" (GSConvE-1 only), "bottleneck" (residual 1x1, 3x3,
            1x1 blocks), or "conv3x3": FPN without its top-down additions, with FPN's parameter names,
            so that FPN checkpoints load.
        depths: blocks per level, fine to coarse, of "gsconve_c3" and "bottleneck".
        filter_norm: inside the other filters, see `sn2fpn.layers.get_norm`.
        aux_kernel: first auxiliary conv of GSConvE-1, 3 or 1.

    Raises:
        UserError: an unknown filter or norm, depths that do not fit the levels, or inputs that make no pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import IHP
        >>> pyramid = IHP([8, 16, 32, 64], out_channels=16)
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
        filter_name: str = "gsconve_c3",
        depths: Sequence[int] = (1, 1, 2, 3),
        filter_norm: Norm = "BN",
        aux_kernel: int = 3,
    ) -> None:
        super().__init__(input_shape, out_channels, in_features=in_features, bottom_up=bottom_up)
        width = out_channels
        gsconve = partial(GSConvE1, width, width, norm=filter_norm, aux_kernel=aux_kernel)
        filters: dict[str, Callable[[int], nn.Module]] = {
            "gsconve_c3": lambda i: nn.Sequential(gsconve(), C3(width, depths[i], norm=filter_norm)),
            "gsconve": lambda _: gsconve(),
            "conv3x3": lambda _: self.conv(width, 3, norm),
            "bottleneck": lambda i: nn.Sequential(*(_Bottleneck(width, filter_norm) for _ in range(depths[i]))),
        }
        if filter_name not in filters:
            raise UserError(f"MODEL.IHP.FILTER: unknown filter {filter_name!r}{did_you_mean(filter_name, filters)}")
        has_depths = filter_name in ("gsconve_c3", "bottleneck")
        if has_depths and (len(depths) != len(self.levels) or min(depths) < 1):
            raise UserError(
                f"MODEL.IHP.DEPTHS: expected {len(self.levels)} numbers >= 1, one for each of {self.in_features};"
                f" found {tuple(depths)}"
            )
        self.filter_prefix = "fpn_output" if filter_name == "conv3x3" else "ihp_filter"
        self.add_laterals(norm, **{self.filter_prefix: filters[filter_name]})

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Each level by itself."""
        return [f(x) for f, x in zip(self.per_level(self.filter_prefix), self.laterals(features))]


class _Bottleneck(nn.Module):
    """relu(x + norm(1x1(relu(norm(3x3(relu(norm(1x1(x))))))))), W -> W/2 -> W/2 -> W."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(width, width // 2, 1, norm=norm, act="relu")
        self.conv2 = ConvNormAct(width // 2, width // 2, 3, norm=norm, act="relu")
        self.conv3 = ConvNormAct(width // 2, width, 1, norm=norm, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv3(self.conv2(self.conv1(x))))


@register_pyramid("ihp")
def build_ihp(cfg: Any, input_shape: InputShape) -> IHP:
    """IHP from `MODEL.FPN` (width, inputs, norm of the laterals) and `MODEL.IHP`."""
    fpn, ihp = cfg.MODEL.FPN, cfg.MODEL.IHP
    return IHP(
        input_shape,
        fpn.OUT_CHANNELS,
        in_features=fpn.IN_FEATURES,
        norm=fpn.NORM,
        filter_name=ihp.FILTER,
        depths=_depths(ihp.DEPTHS, fpn.IN_FEATURES, input_shape),
        filter_norm=partial(get_norm, ihp.NORM, eps=ihp.NORM_EPS, momentum=ihp.NORM_MOMENTUM),
        aux_kernel=ihp.AUX_KERNEL,
    )


def _depths(depths: Sequence[int], in_features: Sequence[str], input_shape: InputShape) -> Sequence[int]:
    """Four depths are those of p2..p5, whatever levels are used: RetinaNet's p3..p5 take the last three."""
    used = [input_shape[name].stride for name in (in_features or input_shape) if name in input_shape]
    strides = (4, 8, 16, 32)
    if len(depths) == len(strides) and set(used) < set(strides):
        return [depth for depth, stride in zip(depths, strides) if stride in used]
    return depths
