"""SNI-FPN: FPN whose top-down step damps the coarse map (soft nearest-neighbour interpolation).

    T_5 = L_5,  T_i = L_i + alpha_i * nearest(T_{i+1}),  P_i = conv3x3(T_i),  L_i = conv1x1(C_i)

alpha_i is the ratio of pixel counts of T_{i+1} and L_i. Li, "Rethinking Features-Fused-Pyramid-Neck for Object
Detection", ECCV 2024. The mode "authors_rcnn" is the top-down path of the paper's released R-CNN code instead:

    M_5 = L_5,  M_i = conv3x3(L_i + 0.25 * bilinear(M_{i+1})),  P_i = M_i
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import Conv2d, soft_nearest_add
from ..layers.norm import Norm
from .base import InputShape, Pyramid
from .registry import register_pyramid

__all__ = ["SNIFPN"]

_DEFAULTS = {"alpha": "area", "interp": "nearest", "order": "pass_sum"}
_AUTHORS_RCNN = {"alpha": 0.25, "interp": "bilinear", "order": "pass_smoothed"}


class SNIFPN(Pyramid):
    """FPN with soft nearest-neighbour interpolation; in the default mode FPN's state dict loads unchanged.

    The defaults compound on the way down: C5's share in T_2 is alpha^3 = 1/64.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        norm: of every conv, see `sn2fpn.layers.get_norm`; "": none, and the convs have biases.
        mode: "soft_nearest", or "authors_rcnn": alpha 0.25, bilinear, pass_smoothed, no smoothing conv on the
            coarsest map, weights from N(0, 0.01^2). That preset leaves no further choice to the options below.
        alpha: "area" (ratio of pixel counts), a fixed factor on the upsampled map, or "learned": a scalar parameter
            `sni_alpha<l>` for the step onto each level l but the coarsest. It starts at 1/4, the area ratio at zoom 2,
            also where an odd size makes that ratio another one. An FPN checkpoint lacks these and leaves them there.
        interp: "nearest", or "bilinear" with half-pixel centres.
        order: what travels down: "pass_sum" (T_i), or "pass_smoothed" (P_i; each level then sees the 3x3 convs
            of all coarser ones).

    Raises:
        UserError: an unknown choice, an option that contradicts the preset, or inputs that make no pyramid.

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
        input_shape: InputShape | None = None,
        out_channels: int = 256,
        *,
        in_features: Sequence[str] = (),
        bottom_up: nn.Module | None = None,
        norm: Norm = "",
        mode: str = "soft_nearest",
        alpha: float | str = "area",
        interp: str = "nearest",
        order: str = "pass_sum",
    ) -> None:
        super().__init__(input_shape, out_channels, in_features=in_features, bottom_up=bottom_up)
        options = {"alpha": alpha, "interp": interp, "order": order}
        if mode == "authors_rcnn":
            options = _preset(options)
        _choose("MODEL.SNI.MODE", mode, ("soft_nearest", "authors_rcnn"))
        _choose("MODEL.SNI.INTERP", options["interp"], ("nearest", "bilinear"))
        _choose("MODEL.SNI.ORDER", options["order"], ("pass_sum", "pass_smoothed"))
        if isinstance(options["alpha"], str):
            _choose("MODEL.SNI.ALPHA", options["alpha"], ("area", "learned"))
        self.alpha, self.interp, self.order = options["alpha"], options["interp"], options["order"]
        self.add_laterals(norm, fpn_output=lambda _: self.conv(out_channels, 3, norm))
        if self.alpha == "learned":
            for level in self.levels[:-1]:
                self.register_parameter(f"sni_alpha{level}", nn.Parameter(torch.tensor(0.25)))
        if mode == "authors_rcnn":
            setattr(self, f"fpn_output{self.levels[-1]}", nn.Identity())
            for conv in self.modules():
                if isinstance(conv, Conv2d):
                    nn.init.normal_(conv.weight, std=0.01)

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """From coarse to fine: T_i, P_i, and one of the two travels down."""
        outputs: list[Tensor] = []
        coarse = None
        levels = zip(self.levels, features, self.per_level("fpn_lateral"), self.per_level("fpn_output"))
        for level, feature, lateral, smooth in reversed(list(levels)):
            fused = lateral(feature)
            if coarse is not None:
                alpha = self.alpha
                if alpha == "learned":  # goes in at the coarse size: interpolation is linear
                    coarse, alpha = coarse * getattr(self, f"sni_alpha{level}"), 1.0
                fused = soft_nearest_add(fused, coarse, alpha, self.interp)
            outputs.append(smooth(fused))
            coarse = outputs[-1] if self.order == "pass_smoothed" else fused
        return outputs[::-1]


@register_pyramid("sni")
def build_sni(cfg: Any, input_shape: InputShape) -> SNIFPN:
    """SNI-FPN from `MODEL.FPN` and `MODEL.SNI`.

    Raises:
        UserError: `MODEL.FPN.FUSE_TYPE` is not "sum": "avg" would damp the coarse map twice.
    """
    fpn, sni = cfg.MODEL.FPN, cfg.MODEL.SNI
    if fpn.FUSE_TYPE != "sum":
        raise UserError(
            f"MODEL.FPN.FUSE_TYPE: the SNI pyramid only sums (its alpha is the weight), found {fpn.FUSE_TYPE!r};"
            " set it to 'sum'"
        )
    return SNIFPN(
        input_shape,
        fpn.OUT_CHANNELS,
        in_features=fpn.IN_FEATURES,
        norm=fpn.NORM,
        mode=sni.MODE,
        alpha="area" if sni.ALPHA is None else sni.ALPHA,
        interp=sni.INTERP,
        order=sni.ORDER,
    )


def _choose(key: str, found: str, choices: Sequence[str]) -> None:
    if found not in choices:
        raise UserError(f"{key}: found {found!r}{did_you_mean(found, choices)}")


def _preset(options: dict[str, Any]) -> dict[str, Any]:
    """The preset's values; an option that was given another value than the default is a contradiction."""
    for name, value in options.items():
        if value not in (_DEFAULTS[name], _AUTHORS_RCNN[name]):
            raise UserError(
                f"MODEL.SNI.{name.upper()}: {value!r} contradicts MODEL.SNI.MODE 'authors_rcnn', which sets"
                f" {_AUTHORS_RCNN[name]!r}; leave it out, or use MODE 'soft_nearest'"
            )
    return _AUTHORS_RCNN
