"""FPN followed by pyramid convolutions, which treat the levels as one more axis to convolve over.

    y_l = K_same * x_l + K_finer *_s2 x_{l-1} + U(K_coarser * x_{l+1}),  x = FPN's outputs

Wang et al., "Scale-Equalizing Pyramid Convolution for Object Detection", CVPR 2020 (arXiv 2005.03101), without the
split into two branches that its one-stage heads want (`sn2fpn.layers.SEPC`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import PConv, SharedConv, check_upsampling
from ..layers.norm import Norm
from .base import InputShape
from .fpn import FPN
from .registry import register_pyramid

__all__ = ["PConvFPN"]


class PConvFPN(FPN):
    """FPN, p6 (or RetinaNet's p6 and p7) included, then a row of `PConv` modules over the levels.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        norm, fuse_type: of the FPN.
        num: PConv modules in the row.
        ibn: norm joint over all levels after each module, "BN" or "SyncBN"; "": none.
        deform: "none", or "all": deformable taps (and extra conv) at every level but the finest.
        pconv_levels: names of consecutive outputs that the row runs over, e.g. ("p3", …, "p6"), which leaves p2 as
            FPN makes it and saves most of the compute; empty: all.
        extra_conv: one more 3x3 shared by the levels, with its norm and ReLU, after the row.
        upsample: U of the modules; the paper's code has "bilinear_corners". "sni" also reaches the FPN.

    Raises:
        UserError: an unknown choice, levels that make no row, or inputs that make no pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import PConvFPN
        >>> pyramid = PConvFPN([8, 16, 32, 64], out_channels=16)
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
        fuse_type: str = "sum",
        num: int = 4,
        ibn: Norm = "BN",
        deform: str = "none",
        pconv_levels: Sequence[str] = (),
        extra_conv: bool = False,
        upsample: str = "bilinear_corners",
    ) -> None:
        check_upsampling(upsample, "MODEL.PCONV.UPSAMPLE")
        super().__init__(
            input_shape,
            out_channels,
            in_features=in_features,
            bottom_up=bottom_up,
            norm=norm,
            fuse_type=fuse_type,
            upsample="sni" if upsample == "sni" else "nearest",
        )
        if deform not in ("none", "all"):
            raise UserError(f"MODEL.PCONV.DEFORM: found {deform!r}{did_you_mean(deform, ('none', 'all'))}")
        self.pconv_levels = tuple(pconv_levels)
        # Between two levels no deformable tap reads from a coarser one, and its offsets would learn nothing.
        self._check_levels([*self.out_features, f"p{self.out_levels[-1] + 1}"], at_least=2 if deform == "none" else 3)
        deformable = deform == "all"
        row = [PConv(out_channels, norm=ibn, deform=deformable, upsample=upsample) for _ in range(num)]
        extra = SharedConv(out_channels, norm=ibn, deform=deformable) if extra_conv else None
        self.add_parts(pconv=nn.ModuleList(row), pconv_extra=extra)

    def refine(self, maps: list[Tensor]) -> list[Tensor]:
        """The row over the chosen levels; the other maps pass."""
        first, stop = 0, len(maps)
        if self.pconv_levels:
            self._check_levels(self.out_features)
            first = self.out_features.index(self.pconv_levels[0])
            stop = first + len(self.pconv_levels)
        row = maps[first:stop]
        for module in self.pconv:
            row = module(row)
        if self.pconv_extra is not None:
            row = self.pconv_extra(row)
        return [*maps[:first], *row, *maps[stop:]]

    def _check_levels(self, names: Sequence[str], at_least: int = 2) -> None:
        found = self.pconv_levels
        first = list(names).index(found[0]) if found and found[0] in names else 0
        if found and (len(found) < at_least or found != tuple(names[first : first + len(found)])):
            raise UserError(
                f"MODEL.PCONV.LEVELS: expected at least {at_least} consecutive of {tuple(self.out_features)}, fine to"
                f" coarse, or nothing for all; found {found}"
            )


@register_pyramid("pconv")
def build_pconv(cfg: Any, input_shape: InputShape) -> PConvFPN:
    """PConv over FPN from `MODEL.FPN` and `MODEL.PCONV`."""
    fpn, pconv = cfg.MODEL.FPN, cfg.MODEL.PCONV
    return PConvFPN(
        input_shape,
        fpn.OUT_CHANNELS,
        in_features=fpn.IN_FEATURES,
        norm=fpn.NORM,
        fuse_type=fpn.FUSE_TYPE,
        num=pconv.NUM,
        ibn=pconv.IBN_NORM if pconv.IBN else "",
        deform=pconv.DEFORM,
        pconv_levels=pconv.LEVELS,
        extra_conv=pconv.EXTRA_CONV,
        upsample=pconv.UPSAMPLE,
    )
