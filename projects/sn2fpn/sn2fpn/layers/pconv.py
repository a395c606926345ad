"""Pyramid convolution (PConv) and the scale-equalizing pyramid convolution (SEPC) that stacks it.

    y_l = K_same * x_l + K_finer *_s2 x_{l-1} + U(K_coarser * x_{l+1}),  l = 0 (finest), 1, …

This is a convolution with three taps over the level axis. All levels share the 3x3 kernels K, *_s2 has stride 2, U
upsamples to the size of y_l, and taps beyond the ends of the pyramid are left out. Integrated batch norm (iBN) and ReLU
follow. Wang et al., "Scale-Equalizing Pyramid Convolution for Object Detection", CVPR 2020 (arXiv 2005.03101).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import check_choice
from ..ranges import check_count
from .deform import DeformConv2d
from .integrated_norm import integrated_norm_relu
from .norm import Norm, get_norm
from .upsample import Upsampling, get_upsample

__all__ = ["PConv", "SEPC", "SharedConv"]


class PConv(nn.Module):
    """A pyramid convolution.

    Args:
        channels: number of channels W of all maps.
        norm: joint norm of all levels, "BN", "SyncBN" or "" for none, see `integrated_norm_relu`. "FrozenBN" maps all
            levels alike as well.
        deform: True makes the taps into level 1 and coarser deformable; level 0 uses the same kernels without offsets.
            Fresh offsets are zero, so a fresh module equals the plain one.
        upsample: the upsampling U, see `get_upsample`; all levels share its weights. The paper's code aligns corners.

    Raises:
        ArgumentError: the norm or the upsampling is unknown, or there is no channel.

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
        self.ibn = _joint_norm(norm, channels)
        self.upsample = get_upsample(upsample, channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return a map of the same size for each input map.

        Args:
            maps (Tensor[N, W, H_l, W_l] per level): the maps, fine to coarse; each has half the size of the one before,
                rounded up.

        Raises:
            ValueError: the sizes do not halve.
        """
        outputs = []
        for level, x in enumerate(maps):
            y = _at_level(self.same, x, level)
            if level > 0:
                from_finer = _at_level(self.from_finer, maps[level - 1], level)
                if from_finer.shape != y.shape:
                    sizes = [tuple(x.shape[2:]) for x in maps]
                    raise ValueError(f"PConv expects maps whose sizes halve, rounded up; found {sizes}")
                y += from_finer
            if level + 1 < len(maps):
                y = self.upsample.add(y, _at_level(self.from_coarser, maps[level + 1], level))
            outputs.append(y)
        return integrated_norm_relu(outputs, self.ibn)


class SharedConv(nn.Module):
    """One 3x3 convolution for all levels, followed by the joint norm and ReLU.

    Args:
        channels, norm: as in `PConv`.
        deform: True makes the convolution deformable at level 1 and coarser.
        padding: 1 keeps the sizes. 0, as in the heads of the paper's code, removes 2 rows and 2 columns.

    Raises:
        ArgumentError: the norm is unknown, or a number is out of its range.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import SharedConv
        >>> [tuple(y.shape[2:]) for y in SharedConv(8)([torch.randn(1, 8, 9, 12), torch.randn(1, 8, 5, 6)])]
        [(9, 12), (5, 6)]
    """

    def __init__(self, channels: int, *, norm: Norm = "BN", deform: bool = False, padding: int = 1) -> None:
        super().__init__()
        self.conv = _conv(channels, deform=deform, padding=padding)
        self.ibn = _joint_norm(norm, channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return a map for each input map (Tensor[N, W, H_l, W_l] per level, fine to coarse)."""
        return integrated_norm_relu([_at_level(self.conv, x, level) for level, x in enumerate(maps)], self.ibn)


class SEPC(nn.Module):
    """A scale-equalizing pyramid convolution: a row of PConv modules, then a `SharedConv` for each of two tasks.

    It serves the heads of one-stage detectors, whose classification and localisation read maps of their own. Two-stage
    detectors use the row alone (`sn2fpn.pyramids.PConvFPN`).

    Args:
        channels: number of channels W of all maps.
        num: number of PConv modules.
        norm: joint norm of all modules, as in `PConv`.
        deform: "none", "lite" for deformable convolutions in the two last modules only, or "all".
        padding: padding of the two last modules; the paper's code has 0.
        upsample: upsampling of the PConv modules, as in `PConv`.

    Raises:
        ArgumentError: `deform`, the norm or the upsampling is unknown, or a number is out of its range.

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
        check_choice("deform", deform, ("none", "lite", "all"))
        self.pconv = nn.ModuleList(
            PConv(channels, norm=norm, deform=deform == "all", upsample=upsample)
            for _ in range(check_count("num", num, at_least=0))
        )
        self.cls = SharedConv(channels, norm=norm, deform=deform != "none", padding=padding)
        self.loc = SharedConv(channels, norm=norm, deform=deform != "none", padding=padding)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps for classification and those for localisation.

        Args:
            maps (Tensor[N, W, H_l, W_l] per level): the maps, fine to coarse.
        """
        for module in self.pconv:
            maps = module(maps)
        return self.cls(maps), self.loc(maps)


def _conv(channels: int, *, stride: int = 1, deform: bool = False, padding: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution whose kernel starts from N(0, 0.01^2) and whose bias starts at 0."""
    check_count("channels", channels)
    check_count("padding", padding, at_least=0)
    conv = (DeformConv2d if deform else nn.Conv2d)(channels, channels, 3, stride, padding)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv


def _joint_norm(norm: Norm, channels: int) -> nn.Module | None:
    """Return a new norm for all levels together, which a group norm cannot be."""
    if isinstance(norm, str):
        check_choice("norm", norm, ("BN", "SyncBN", "FrozenBN", ""))
    return get_norm(norm, channels)


def _at_level(conv: nn.Conv2d, x: Tensor, level: int) -> Tensor:
    """Return `conv(x)` for the receiving level; the finest level never deforms."""
    return conv.plain(x) if level == 0 and isinstance(conv, DeformConv2d) else conv(x)
