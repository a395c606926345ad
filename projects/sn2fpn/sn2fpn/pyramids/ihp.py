"""IHP, the independent hierarchy pyramid: a convolutional filter on every level, and no fusion across levels.

    P_i = Filter_i(conv1x1(C_i)),  i = 2..5;  p6 = subsample(P_5)

Source: Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024. The 1x1 lateral adapts the
pyramid to R-CNN heads, which share their weights over the levels. The released filter is GSConvE-1 followed by C3,
with 1, 2 and 3 blocks for p3, p4 and p5; here p2 is filtered as well, with one block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, argument_names, check_choice
from ..layers import C3, ConvNormAct, GSConvE1
from ..layers.norm import Norm
from ..ranges import check_count
from .base import Pyramid
from .registry import register_pyramid

__all__ = ["IHP"]


@register_pyramid("ihp", renames={"NORM": "filter_norm"})
class IHP(Pyramid):
    """An independent hierarchy pyramid (IHP): the levels share nothing, so level l sees C_l alone.

    Args:
        inputs, shared: the trunk's maps, `out_channels`, `in_features` and `bottom_up`, see `Pyramid`.
        norm: norm of the laterals and of the filter "conv3x3". Without one ("") these convolutions have biases.
        filter: "gsconve_c3" (GSConvE-1, then C3), "gsconve" (GSConvE-1 alone), "bottleneck" (residual blocks of
            1x1, 3x3 and 1x1 convolutions), or "conv3x3", which is FPN without its top-down additions. The latter has
            FPN's parameter names, so FPN checkpoints load.
        depths: blocks of each level, from fine to coarse, for "gsconve_c3" and "bottleneck". Four numbers are those of
            p2 to p5, of which a pyramid with fewer levels takes its own.
        filter_norm: norm inside the other filters, see `sn2fpn.layers.get_norm`.
        aux_kernel: kernel size of the first auxiliary convolution of GSConvE-1, 3 or 1.

    Raises:
        ArgumentError: an unknown choice, depths that do not fit the levels, or inputs that do not make a pyramid.

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
        *inputs: Any,
        norm: Norm = "",
        filter: str = "gsconve_c3",
        depths: Sequence[int] = (1, 1, 2, 3),
        filter_norm: Norm = "BN",
        aux_kernel: int = 3,
        **shared: Any,
    ) -> None:
        super().__init__(*inputs, **shared)
        width = self.out_channels
        if filter in ("gsconve_c3", "bottleneck"):
            depths = self._depths(depths)

        def gsconve() -> nn.Module:
            return GSConvE1(width, width, norm=filter_norm, aux_kernel=aux_kernel)

        filters: dict[str, Callable[[int], nn.Module]] = {
            "gsconve_c3": lambda i: nn.Sequential(gsconve(), C3(width, depths[i], norm=filter_norm)),
            "gsconve": lambda _: gsconve(),
            "conv3x3": lambda _: self.conv(width, 3, norm),
            "bottleneck": lambda i: nn.Sequential(*(_Bottleneck(width, filter_norm) for _ in range(depths[i]))),
        }
        make = filters[check_choice("filter", filter, filters)]
        self.filter_prefix = "fpn_output" if filter == "conv3x3" else "ihp_filter"
        names = {"channels": "out_channels"} | ({} if filter == "conv3x3" else {"norm": "filter_norm"})

        def make_filter(i: int) -> nn.Module:
            with argument_names(names):
                return make(i)

        self.add_laterals(norm, **{self.filter_prefix: make_filter})

    def _depths(self, depths: Sequence[int]) -> Sequence[int]:
        """Return the depths of the used levels."""
        strides, known = self.inputs.strides, (4, 8, 16, 32)
        if len(depths) == len(known) and set(strides) <= set(known):
            depths = [depth for depth, stride in zip(depths, known) if stride in strides]
        if len(depths) != len(strides):
            problem = f"expected {len(strides)} numbers, one for each of {self.in_features}; found {tuple(depths)}"
            raise ArgumentError("depths", problem)
        for depth in depths:
            check_count("depths", depth)
        return depths

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Compute each output from the trunk map of its level alone."""
        return [f(x) for f, x in zip(self.per_level(self.filter_prefix), self.laterals(features))]


class _Bottleneck(nn.Module):
    """relu(x + norm(1x1(relu(norm(3x3(relu(norm(1x1(x))))))))), W -> W/2 -> W/2 -> W."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        check_count("channels", width, at_least=2)
        self.conv1 = ConvNormAct(width, width // 2, 1, norm=norm, activation="relu")
        self.conv2 = ConvNormAct(width // 2, width // 2, 3, norm=norm, activation="relu")
        self.conv3 = ConvNormAct(width // 2, width, 1, norm=norm, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv3(self.conv2(self.conv1(x))))
