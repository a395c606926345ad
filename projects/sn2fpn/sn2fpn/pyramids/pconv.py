"""FPN followed by pyramid convolutions, which convolve over the levels as one more axis.

    y_l = K_same * x_l + K_finer *_s2 x_{l-1} + U(K_coarser * x_{l+1}),  x = FPN's outputs

Source: Wang et al., "Scale-Equalizing Pyramid Convolution for Object Detection", CVPR 2020 (arXiv 2005.03101), without
the split into two branches that its one-stage heads need (`sn2fpn.layers.SEPC`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ArgumentError, argument_names, check_choice
from ..layers import PConv, SharedConv, Upsampling
from ..layers.norm import Norm
from ..ranges import check_count
from .fpn import FPN
from .registry import register_pyramid

__all__ = ["PConvFPN"]


@register_pyramid("pconv")
class PConvFPN(FPN):
    """A feature pyramid network (FPN) followed by a row of pyramid convolutions (`PConv`) over all its levels.

    The row includes p6, or RetinaNet's p6 and p7.

    Args:
        inputs, shared: as in `FPN`, with the `norm` and the `fuse_type` of the FPN.
        num: number of PConv modules in the row; without any, the pyramid is an FPN.
        ibn: whether a norm over all levels together follows each module.
        ibn_norm: the kind of this norm, "BN" or "SyncBN".
        deform: "none", or "all": the taps (and the extra convolution) are deformable at every level but the finest.
        levels: names of the consecutive outputs that the row runs over, e.g. ("p3", "p4", "p5", "p6"). The others are
            FPN's; without p2 most of the computation is saved. The row runs over all outputs when it is empty.
        extra_conv: whether one more 3x3 convolution, shared by the levels, follows the row with its norm and ReLU.
        upsample: U of the modules, see `sn2fpn.layers.get_upsample`; the paper's code has "bilinear_corners". The
            FPN upsamples in the same way, except that both kinds of bilinear interpolation leave it at "nearest".

    Raises:
        ArgumentError: an unknown choice, levels that do not make a row, or what `FPN` refuses.

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
        *inputs: Any,
        num: int = 4,
        ibn: bool = True,
        ibn_norm: Norm = "BN",
        deform: str = "none",
        levels: Sequence[str] = (),
        extra_conv: bool = False,
        upsample: Upsampling = "bilinear_corners",
        **shared: Any,
    ) -> None:
        of_fpn = "nearest" if upsample in ("bilinear", "bilinear_corners") else upsample
        super().__init__(*inputs, upsample=of_fpn, **shared)
        check_count("num", num, at_least=0)
        deformable = check_choice("deform", deform, ("none", "all")) == "all"
        self.row_levels = tuple(levels)
        # Between two levels no deformable tap reads from a coarser one, and its offsets would learn nothing.
        self._least = 3 if deformable else 2
        self._check_row([*self.out_features, f"p{self.out_levels[-1] + 1}"])  # `add_p6_p7` may add a level
        width, norm = self.out_channels, ibn_norm if ibn else ""
        with argument_names({"norm": "ibn_norm"}):
            row = [PConv(width, norm=norm, deform=deformable, upsample=upsample) for _ in range(num)]
            extra = SharedConv(width, norm=norm, deform=deformable) if extra_conv else None
        self.add_parts(pconv=nn.ModuleList(row), pconv_extra=extra)

    def refine(self, maps: list[Tensor]) -> list[Tensor]:
        """Run the row over the chosen levels; the other maps are returned unchanged."""
        first, stop = 0, len(maps)
        self._check_row(self.out_features)
        if self.row_levels:
            first = self.out_features.index(self.row_levels[0])
            stop = first + len(self.row_levels)
        row = maps[first:stop]
        for module in self.pconv:
            row = module(row)
        if self.pconv_extra is not None:
            row = self.pconv_extra(row)
        return [*maps[:first], *row, *maps[stop:]]

    def _check_row(self, names: Sequence[str]) -> None:
        row = self.row_levels or tuple(names)
        first = list(names).index(row[0]) if row[0] in names else 0
        if len(row) < self._least or row != tuple(names[first : first + len(row)]):
            raise ArgumentError(
                "levels",
                f"expected at least {self._least} consecutive outputs of {tuple(self.out_features)}, from fine to "
                f"coarse, or none for all; found {row}",
            )
