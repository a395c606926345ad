"""Pyramid convolution (PConv) and the scale-equalizing pyramid convolution (SEPC) that stacks it.

    y_l = K_same * x_l + K_finer *_s2 x_{l-1} + U(K_coarser * x_{l+1}),  l = 0 (finest), 1, …

A conv of three taps over the level axis; the 3x3 kernels K are shared by all levels, *_s2 has stride 2, U resizes to
the size of y_l, and a tap beyond the pyramid's ends is left out. Then integrated batch norm (iBN) and ReLU.
Wang et al., "Scale-Equalizing Pyramid Convolution for Object Detection", CVPR 2020 (arXiv 2005.03101).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from .deform import DeformConv2d
from .integrated_norm import integrated_norm_relu
from .norm import Norm, get_norm
from .upsample import Upsampling, get_upsample

__all__ = ["PConv", "SEPC", "SharedConv"]


class PConv(nn.Module):
    """One pyramid convolution; every output level is computed from the module's inputs.

    Args:
        channels: W of all maps.
        norm: joint over all levels (see `integrated_norm_relu`): "BN", "SyncBN"; "": none.
        deform: taps that arrive at level 1 or coarser are deformable; level 0 uses the same kernels plainly. Fresh
            offsets are zero, so a fresh module is the plain one.
        upsample: U, see `upsample`; the paper's code aligns corners.

    Raises:
        UserError: unknown norm or upsampling.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import PConv
        >>> maps = [torch.randn(1, 8, *size) for size in ((17, 23), (9, 12), (5, 6))]
        >>> [tuple(y.shape[2:]) for y in PConv(8)(maps)]
        [(17, 23), (9, 12), (5, 6)]
    """

    def __init__(
        self, channels: int, *, norm: Norm = "BN", deform: bool = False, upsample: Upsampling = "bilinear_corners"
    ) -> None:
        super().__init__()
        self.same = _conv(channels, deform=deform)
        self.from_finer = _conv(channels, stride=2, deform=deform)
        self.from_coarser = _conv(channels, deform=deform)
        self.ibn = get_norm(norm, channels)
        self.upsample = get_upsample(upsample, channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps, fine to coarse (Tensor[N, W, H_l, W_l], halving with ceil) -> as many, of the same sizes.

        Raises:
            ValueError: sizes that do not halve.
        """
        outputs = []
        for level, x in enumerate(maps):
            y = _at_level(self.same, x, level)
            if level > 0:
                from_finer = _at_level(self.from_finer, maps[level - 1], level)
                if from_finer.shape != y.shape:
                    sizes = [tuple(x.shape[2:]) for x in maps]
                    raise ValueError(f"PConv needs maps whose sizes halve, rounded up; found {sizes}")
                y += from_finer
            if level + 1 < len(maps):
                y = self.upsample.add(y, _at_level(self.from_coarser, maps[level + 1], level))
            outputs.append(y)
        return integrated_norm_relu(outputs, self.ibn)


class SharedConv(nn.Module):
    """relu(iBN(conv3x3(x_l))), one conv for all levels; deformable, if asked for, at level 1 and coarser.

    Args:
        channels, norm, deform: as in `PConv`.
        padding: 1 keeps the sizes; 0, as the paper's code has it in its heads, takes 2 pixels off each way.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import SharedConv
        >>> [tuple(y.shape[2:]) for y in SharedConv(8)([torch.randn(1, 8, 9, 12), torch.randn(1, 8, 5, 6)])]
        [(9, 12), (5, 6)]
    """

    def __init__(self, channels: int, *, norm: Norm = "BN", deform: bool = False, padding: int = 1) -> None:
        super().__init__()
        self.conv = _conv(channels, deform=deform, padding=padding)
        self.ibn = get_norm(norm, channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps, fine to coarse (Tensor[N, W, H_l, W_l]) -> as many."""
        return integrated_norm_relu([_at_level(self.conv, x, level) for level, x in enumerate(maps)], self.ibn)


class SEPC(nn.Module):
    """PConv modules in a row, then one `SharedConv` each for classification and for localisation.

    For the heads of one-stage detectors, which read a map of their own for each task; two-stage detectors use
    the row alone (`sn2fpn.pyramids.PConvFPN`).

    Args:
        channels: W of all maps.
        num: PConv modules.
        norm: joint norm after each conv of the row and of the two; "": none.
        deform: "none", "lite" (deformable in the last two convs only), or "all".
        padding: of the last two convs; the paper's code has 0.
        upsample: as in `PConv`.

    Raises:
        UserError: unknown `deform`, norm or upsampling.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import SEPC
        >>> maps = [torch.randn(1, 8, 64 >> l, 96 >> l) for l in range(4)]
        >>> classification, localisation = SEPC(8, num=2)(maps)
        >>> [tuple(y.shape[2:]) for y in classification]
        [(62, 94), (30, 46), (14, 22), (6, 10)]
    """

    def __init__(
        self,
        channels: int = 256,
        *,
        num: int = 4,
        norm: Norm = "BN",
        deform: str = "none",
        padding: int = 0,
        upsample: Upsampling = "bilinear_corners",
    ) -> None:
        super().__init__()
        if deform not in ("none", "lite", "all"):
            raise UserError(f"SEPC deform: found {deform!r}{did_you_mean(deform, ('none', 'lite', 'all'))}")
        self.pconv = nn.ModuleList(
            PConv(channels, norm=norm, deform=deform == "all", upsample=upsample) for _ in range(num)
        )
        self.cls = SharedConv(channels, norm=norm, deform=deform != "none", padding=padding)
        self.loc = SharedConv(channels, norm=norm, deform=deform != "none", padding=padding)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps, fine to coarse (Tensor[N, W, H_l, W_l]) -> maps for classification, maps for localisation."""
        for module in self.pconv:
            maps = module(maps)
        return self.cls(maps), self.loc(maps)


def _conv(channels: int, *, stride: int = 1, deform: bool = False, padding: int = 1) -> nn.Conv2d:
    """A 3x3 conv of W -> W channels; kernel N(0, 0.01^2), bias 0."""
    conv = (DeformConv2d if deform else nn.Conv2d)(channels, channels, 3, stride, padding)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv


def _at_level(conv: nn.Conv2d, x: Tensor, level: int) -> Tensor:
    """`conv(x)` for a receiving level; the finest never deforms."""
    return conv.plain(x) if level == 0 and isinstance(conv, DeformConv2d) else conv(x)
