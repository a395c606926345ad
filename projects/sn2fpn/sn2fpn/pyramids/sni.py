"""SNI-FPN: FPN whose top-down step damps the coarse map (soft nearest-neighbour interpolation).

    T_5 = L_5,  T_i = L_i + alpha_i * nearest(T_{i+1}),  P_i = conv3x3(T_i),  L_i = conv1x1(C_i)

alpha_i is the ratio of the pixel counts of T_{i+1} and L_i. Source: Li, "Rethinking Features-Fused-Pyramid-Neck for
Object Detection", ECCV 2024. The mode "authors_rcnn" is the top-down path of the paper's released R-CNN code:

    M_5 = L_5,  M_i = conv3x3(L_i + 0.25 * bilinear(M_{i+1})),  P_i = M_i
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, check_choice
from ..layers import SNI, Conv2d, Upsampling
from .fpn import FPN
from .registry import register_pyramid

__all__ = ["SNIFPN"]

_DEFAULTS = {"alpha": "area", "interp": "nearest", "order": "pass_sum"}
_AUTHORS_RCNN = {"alpha": 0.25, "interp": "bilinear", "order": "pass_smoothed"}


@register_pyramid("sni")
class SNIFPN(FPN):
    """A feature pyramid network (FPN) whose step is soft nearest-neighbour interpolation (SNI).

    In the default mode the state dict is FPN's. The factors compound on the way down: with the area ratio, the share
    of C5 in T_2 is alpha^3 = 1/64.

    Args:
        inputs, shared: as in `FPN`, except that "sum" is the only `fuse_type`.
        mode: "soft_nearest", or "authors_rcnn", which stands for alpha 0.25, bilinear, pass_smoothed, no output
            convolution on the coarsest map, and weights from N(0, 0.01^2). It excludes other values of the options.
        alpha: "area" (the ratio of pixel counts), a fixed positive factor on the upsampled map, or "learned": a scalar
            parameter `sni_alpha<l>` for the step onto each level l but the coarsest. It starts at 1/4, the area
            ratio at a zoom of 2, and stays there when an FPN checkpoint, which lacks it, is loaded.
        interp: "nearest", or "bilinear" with half-pixel centres.
        order: what travels down: "pass_sum" (T_i), or "pass_smoothed" (P_i, so that each level sees the 3x3
            convolutions of all coarser levels).
        upsample: always "sni"; the options above are those of the step.

    Raises:
        ArgumentError: an unknown choice, an option that contradicts the mode, or inputs that do not make a pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import SNIFPN
        >>> pyramid = SNIFPN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> pyramid(maps)["p2"].shape
        torch.Size([1, 16, 32, 48])
    """

    def __init__(
        self,
        *inputs: Any,
        mode: str = "soft_nearest",
        alpha: float | str = "area",
        interp: str = "nearest",
        order: str = "pass_sum",
        upsample: Upsampling = "sni",
        **shared: Any,
    ) -> None:
        if upsample != "sni":
            raise ArgumentError("upsample", f"the step of this pyramid is 'sni'; use FPN for {upsample!r}")
        if check_choice("mode", mode, ("soft_nearest", "authors_rcnn")) == "authors_rcnn":
            _check_preset(alpha=alpha, interp=interp, order=order)
            alpha, interp, order = _AUTHORS_RCNN.values()
        check_choice("order", order, ("pass_sum", "pass_smoothed"))
        learned = alpha == "learned"
        super().__init__(*inputs, upsample=lambda _: SNI(alpha=1.0 if learned else alpha, interp=interp), **shared)
        self._alpha, self.pass_smoothed = alpha, order == "pass_smoothed"
        if learned:
            for level in self.levels[:-1]:
                self.register_parameter(f"sni_alpha{level}", nn.Parameter(torch.tensor(0.25)))
        if mode == "authors_rcnn":
            setattr(self, f"fpn_output{self.levels[-1]}", nn.Identity())
            for conv in (*self.per_level("fpn_lateral"), *self.per_level("fpn_output")):  # and not those of the trunk
                if isinstance(conv, Conv2d):
                    nn.init.normal_(conv.weight, std=0.01)

    @property
    def alpha(self) -> float | str:
        """The factor on the upsampled map as it was given; it cannot be set, as each step holds its own."""
        return self._alpha

    def step(self, level: int, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute the top-down step; a learned factor goes in at the coarse size, as interpolation is linear."""
        learned = getattr(self, f"sni_alpha{level}", None)
        return super().step(level, fine, coarse if learned is None else coarse * learned)


def _check_preset(**options: Any) -> None:
    """Refuse an option that has neither its default nor the preset's value."""
    for name, value in options.items():
        if value not in (_DEFAULTS[name], _AUTHORS_RCNN[name]):
            raise ArgumentError(
                name,
                f"{value!r} contradicts the mode 'authors_rcnn', which sets {_AUTHORS_RCNN[name]!r};"
                " leave it out, or use the mode 'soft_nearest'",
            )
