"""FPN: Feature Pyramid Networks for Object Detection (Lin et al., CVPR 2017), as in Detectron2.

    T_5 = L_5,  T_i = L_i + U(T_{i+1}),  P_i = conv3x3(T_i),  L_i = conv1x1(C_i)

U is nearest-neighbour upsampling to the size of L_i, or another member of the family in `sn2fpn.layers.upsample`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import ArgumentError, check_choice
from ..layers import SNI, Upsampling, get_upsample
from ..layers.norm import Norm
from .base import Pyramid
from .registry import register_pyramid

__all__ = ["FPN"]


@register_pyramid("fpn")
class FPN(Pyramid):
    """A feature pyramid network (FPN) with top-down additions, with Detectron2's parameter names and order.

    The sum T_i travels down, and the 3x3 output convolutions are leaves. Detectron2 upsamples by the factor 2. Here
    the target is the size of the finer map, which is the same wherever Detectron2's upsampling works.

    Args:
        inputs, shared: the trunk's maps, `out_channels`, `in_features` and `bottom_up`, see `Pyramid`.
        norm: norm of every convolution, see `sn2fpn.layers.get_norm`. Without one ("") the convolutions have biases.
        fuse_type: "sum", or "avg", which halves T_i after each addition.
        upsample: how T_{i+1} reaches the size of L_i, see `sn2fpn.layers.get_upsample`. Kinds with parameters have
            one module `fpn_upsample<l>` for the step onto each level l but the coarsest.

    Raises:
        ArgumentError: an unknown choice, inputs that do not make a pyramid, or `fuse_type` "avg" with SNI, which
            would damp the coarse map twice.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import FPN
        >>> fpn = FPN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> {name: tuple(p.shape[2:]) for name, p in fpn(maps).items()}
        {'p2': (32, 48), 'p3': (16, 24), 'p4': (8, 12), 'p5': (4, 6), 'p6': (2, 3)}
    """

    pass_smoothed = False
    """Whether P_i travels down instead of T_i."""

    def __init__(
        self, *inputs: Any, norm: Norm = "", fuse_type: str = "sum", upsample: Upsampling = "nearest", **shared: Any
    ) -> None:
        super().__init__(*inputs, **shared)
        self.fuse_type = check_choice("fuse_type", fuse_type, ("sum", "avg"))
        width, coarsest = self.out_channels, len(self.levels) - 1
        self.add_laterals(
            norm,
            fpn_upsample=lambda i: get_upsample(upsample, width) if i < coarsest else None,
            fpn_output=lambda _: self.conv(width, 3, norm),
        )
        if fuse_type == "avg" and any(isinstance(step, SNI) for step in self.per_level("fpn_upsample")):
            raise ArgumentError("fuse_type", "expected 'sum', because the alpha of SNI is the weight; found 'avg'")

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Compute T_i and P_i = conv3x3(T_i) from the coarsest level to the finest."""
        outputs: list[Tensor] = []
        coarse = None
        levels = zip(self.levels, features, self.per_level("fpn_lateral"), self.per_level("fpn_output"))
        for level, feature, lateral, output in reversed(list(levels)):
            fused = lateral(feature)
            if coarse is not None:
                fused = self.step(level, fused, coarse)
                fused = fused / 2 if self.fuse_type == "avg" else fused
            outputs.append(output(fused))
            coarse = outputs[-1] if self.pass_smoothed else fused
        return outputs[::-1]

    def step(self, level: int, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute the top-down step onto a level: the fine map plus the upsampled coarse map."""
        return getattr(self, f"fpn_upsample{level}").add(fine, coarse)
