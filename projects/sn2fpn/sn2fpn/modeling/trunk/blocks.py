"""The parts of a ResNet: stems and residual blocks, with or without ESD downsampling.

Deep Residual Learning for Image Recognition (He et al., CVPR 2016), parameter names of Detectron2. ESD
(extended-spatial-window downsampling, Li, ECCV 2024) replaces a stride-2 conv by three views of its input:
the conv itself (D), a 4x4 average (G) and a 4x4 maximum (M); see `sn2fpn.layers.esd`. Where in a ResNet it goes is
this project's design; strides and channels stay as they are, and what a plain ResNet has keeps its name.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import ESD1, ESD2, Conv2d, FrozenBatchNorm2d, c2_msra_fill, esd_fuse, esd_fuse_conv
from ...layers.norm import Norm

__all__ = ["BasicBlock", "BasicStem", "BottleneckBlock", "DeepESDStem", "ESDOptions", "TrunkPart"]


class ESDOptions(NamedTuple):
    """How a stride-2 step of the trunk downsamples with ESD.

    Attributes:
        mode: 1 (ESD-1, no parameters of its own) or 2 (ESD-2: a 1x1 conv mixes the three views).
        shortcut: "strided" (1x1 conv of stride 2, as without ESD) or "avg" (4x4/2 average pool, then 1x1).
        fuse_init: ESD-2's 1x1 conv starts as "dense_identity" (copies D) or "default" (Kaiming).
    """

    mode: int
    shortcut: str = "strided"
    fuse_init: str = "default"


class TrunkPart(nn.Module):
    """A stem or a block: knows its output channels and its stride, and can be frozen.

    Attributes:
        new_parts: submodules that no pretrained ResNet has; they stay trainable when the part is frozen.
    """

    out_channels: int
    stride: int
    new_parts: tuple[str, ...] = ()

    def freeze(self) -> None:
        """Stop training: no gradients, and every batch norm becomes a frozen one. `new_parts` go on training."""
        for name, child in self.named_children():
            if name not in self.new_parts:
                for parameter in child.parameters():
                    parameter.requires_grad_(False)
                FrozenBatchNorm2d.convert_frozen_batchnorm(child)


class BasicStem(TrunkPart):
    """7x7/2 conv, norm, ReLU, then a 3x3/2 max-pool, or ESD in its place: stride 4.

    Args:
        in_channels: of the image.
        out_channels: of the stem's map.
        norm: see `sn2fpn.layers.get_norm`.
        esd: None for the max-pool.
    """

    stride = 4

    def __init__(
        self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN", esd: ESDOptions | None = None
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv1 = Conv2d(in_channels, out_channels, 7, stride=2, padding=3, norm=norm)
        c2_msra_fill(self.conv1)
        self.esd = None if esd is None else _esd(out_channels, out_channels, norm, esd)
        if self.esd is not None:
            self.new_parts = ("esd",)

    def forward(self, x: Tensor) -> Tensor:
        """Images (Tensor[N, 3, H, W]) -> Tensor[N, C, ceil(H / 4), ceil(W / 4)]."""
        x = self.conv1(x)
        if self.esd is not None:
            return self.esd(F.relu_(x))
        return F.relu_(F.max_pool2d(x, 3, stride=2, padding=1))  # ReLU and maximum commute: ReLU the smaller map


class DeepESDStem(TrunkPart):
    """3x3/1 conv to half the channels, norm, ReLU, ESD to all of them, ESD: stride 4, no pretrained weights."""

    stride = 4
    new_parts = ("conv1", "esd")

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, esd: ESDOptions) -> None:
        super().__init__()
        self.out_channels = out_channels
        half = out_channels // 2
        self.conv1 = Conv2d(in_channels, half, 3, padding=1, norm=norm, activation="relu")
        c2_msra_fill(self.conv1)
        self.esd = nn.Sequential(_esd(half, out_channels, norm, esd), _esd(out_channels, out_channels, norm, esd))

    def forward(self, x: Tensor) -> Tensor:
        """Images (Tensor[N, 3, H, W]) -> Tensor[N, C, ceil(H / 4), ceil(W / 4)]."""
        return self.esd(self.conv1(x))


class _ResidualBlock(TrunkPart):
    """relu(residual(x) + shortcut(x)). Subclasses make the convs and say in `residual` how they follow.

    The residual branch's stride-2 3x3 conv is the D branch of ESD, so a plain ResNet's weights fit.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm, esd: ESDOptions | None) -> None:
        super().__init__()
        self.out_channels, self.stride, self.esd = out_channels, stride, esd
        self.fuse: Conv2d | None = None
        pooled = esd is not None and esd.shortcut == "avg"
        self.shortcut_pool = nn.AvgPool2d(4, stride=2, padding=1, ceil_mode=True) if pooled else None
        self.shortcut: Conv2d | None = None
        if in_channels != out_channels:
            self.shortcut = Conv2d(in_channels, out_channels, 1, stride=1 if pooled else stride, norm=norm)
            c2_msra_fill(self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor[N, C_in, H, W] -> Tensor[N, C_out, ceil(H / stride), ceil(W / stride)]."""
        out = self.residual(x)
        if self.shortcut_pool is not None:
            x = self.shortcut_pool(x)
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _finish(self, dense: Conv2d) -> None:
        """Initialise the branch; `dense` is its strided conv, to which ESD-2 adds the mixing conv."""
        for name in ("conv1", "conv2", "conv3"):
            if hasattr(self, name):
                c2_msra_fill(getattr(self, name))
        if self.esd is not None and self.esd.mode == 2:
            self.fuse = esd_fuse_conv(dense.in_channels, dense.out_channels, self.esd.fuse_init)
            self.new_parts = ("fuse",)

    def downsample(self, x: Tensor, dense: Conv2d) -> Tensor:
        """`dense(x)`, or ESD with it as D."""
        return dense(x) if self.esd is None else esd_fuse(x, dense(x), self.fuse)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convs (R18, R34). With ESD the first, strided one is D: its channels double, `esd` fits.

    Args:
        in_channels, out_channels: of the block; a 1x1 shortcut conv is made when they differ.
        stride: of the first conv and the shortcut.
        norm: see `sn2fpn.layers.get_norm`.
        esd: None for a plain strided conv.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN", esd: ESDOptions | None = None
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm, esd)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, padding=1, norm=norm, activation="relu")
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, norm=norm)
        self._finish(self.conv1)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv2(self.downsample(x, self.conv1))


class BottleneckBlock(_ResidualBlock):
    """1x1, 3x3, 1x1 convs (R50 and deeper). With ESD the strided 3x3 conv is D.

    Args:
        in_channels, out_channels: of the block; a 1x1 shortcut conv is made when they differ.
        bottleneck_channels: of the 3x3 conv.
        stride: of the block.
        num_groups: groups of the 3x3 conv.
        norm: see `sn2fpn.layers.get_norm`.
        stride_in_1x1: the first 1x1 conv carries the stride (MSRA's weights), not the 3x3; never with ESD.
        dilation: of the 3x3 conv.
        esd: None for a plain strided conv.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        esd: ESDOptions | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm, esd)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 and esd is None else (1, stride)
        width = bottleneck_channels
        self.conv1 = Conv2d(in_channels, width, 1, stride_1x1, norm=norm, activation="relu")
        self.conv2 = Conv2d(
            width,
            width,
            3,
            stride_3x3,
            padding=dilation,
            dilation=dilation,
            groups=num_groups,
            norm=norm,
            activation="relu",
        )
        self.conv3 = Conv2d(width, out_channels, 1, norm=norm)
        self._finish(self.conv2)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv3(self.downsample(self.conv1(x), self.conv2))


def _esd(in_channels: int, out_channels: int, norm: Norm, esd: ESDOptions) -> nn.Module:
    if esd.mode == 1:
        return ESD1(in_channels, out_channels, norm=norm, act="relu")
    return ESD2(in_channels, out_channels, norm=norm, act="relu", fuse_init=esd.fuse_init)
