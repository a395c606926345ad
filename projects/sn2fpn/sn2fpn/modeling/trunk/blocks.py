"""The parts of a ResNet: stems and residual blocks, with or without ESD downsampling.

They follow Deep Residual Learning for Image Recognition (He et al., CVPR 2016) and have Detectron2's parameter names.
As there, their convolutions have no biases, with or without a norm; only those that are new in a stem with ESD have
biases where there is no norm.
ESD (extended-spatial-window downsampling, Li, ECCV 2024) replaces a stride-2 convolution by three views of its input:
the convolution itself (D), a 4x4 average (G) and a 4x4 maximum (M); see `sn2fpn.layers.esd`. The paper does not say
where ESD goes in a ResNet; that is this project's design. Strides and channels stay the same, and everything that a
plain ResNet has keeps its name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import check_choice
from ...layers import ESD1, ESD2, Conv2d, FrozenBatchNorm2d, c2_msra_fill, esd_average, esd_fuse, esd_fuse_conv
from ...layers.cpu.layout import channels_last_on_cpu
from ...layers.norm import Norm

__all__ = ["BasicBlock", "BasicStem", "BottleneckBlock", "DeepESDStem", "ESDOptions", "TrunkPart"]


@dataclass(frozen=True)
class ESDOptions:
    """How the stride-2 steps of a trunk downsample with ESD.

    Args:
        mode: 1 for ESD-1, which has no parameters of its own, or 2 for ESD-2, whose 1x1 convolution mixes the views.
        shortcut: "strided" for a 1x1 convolution of stride 2, as without ESD, or "avg" for a 4x4 average pool of
            stride 2 before a 1x1 convolution.
        fuse_init: how ESD-2's 1x1 convolution starts: "dense_identity" (it copies D) or "default" (Kaiming).

    Raises:
        ArgumentError: a value is none of these.
    """

    mode: int
    shortcut: str = "strided"
    fuse_init: str = "default"

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, (1, 2))
        check_choice("shortcut", self.shortcut, ("strided", "avg"))
        check_choice("fuse_init", self.fuse_init, ("dense_identity", "default"))


class TrunkPart(nn.Module):
    """The base class of stems and blocks, which know their output channels and stride and can be frozen.

    Attributes:
        out_channels: number of output channels.
        stride: the stride of the part.
        new_parts: names of the submodules that no pretrained ResNet has. They stay trainable when the part is frozen.
    """

    out_channels: int
    stride: int
    new_parts: tuple[str, ...] = ()

    def freeze(self) -> None:
        """Stop the gradients and replace every batch norm by a frozen one, except in `new_parts`."""
        for name, child in self.named_children():
            if name not in self.new_parts:
                for parameter in child.parameters():
                    parameter.requires_grad_(False)
                FrozenBatchNorm2d.convert_frozen_batchnorm(child)


class BasicStem(TrunkPart):
    """A stem of stride 4: a 7x7 convolution of stride 2, norm, ReLU, then a 3x3 max-pool of stride 2 or ESD.

    Args:
        in_channels: number of channels of the images.
        out_channels: number of output channels.
        norm: the norm, see `sn2fpn.layers.get_norm`.
        esd: how ESD takes the place of the max-pool; None keeps the max-pool.
    """

    stride = 4

    def __init__(
        self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN", esd: ESDOptions | None = None
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv1 = Conv2d(in_channels, out_channels, 7, stride=2, padding=3, bias=False, norm=norm)
        c2_msra_fill(self.conv1)
        self.esd = None if esd is None else _esd(out_channels, out_channels, norm, esd)
        if self.esd is not None:
            self.new_parts = ("esd",)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (Tensor[N, 3, H, W]) to Tensor[N, C, ceil(H / 4), ceil(W / 4)]."""
        x = self.conv1(x)
        if self.esd is not None:
            return self.esd(F.relu_(x))
        y = F.max_pool2d(
            channels_last_on_cpu(x), 3, stride=2, padding=1
        )  # Contiguous maps take ten times as long there.
        y = y.contiguous() if x.is_contiguous() else y
        return F.relu_(y)  # The order of pooling and ReLU does not matter; this ReLU is cheaper.


class DeepESDStem(TrunkPart):
    """A stem of stride 4 without pretrained weights: a 3x3 convolution, norm, ReLU and two ESD steps.

    The convolution gives half of the channels and the first ESD step doubles them.

    Args:
        in_channels: number of channels of the images.
        out_channels: number of output channels.
        norm: the norm, see `sn2fpn.layers.get_norm`.
        esd: how the ESD steps work.
    """

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
        """Map images (Tensor[N, 3, H, W]) to Tensor[N, C, ceil(H / 4), ceil(W / 4)]."""
        return self.esd(self.conv1(x))


class _ResidualBlock(TrunkPart):
    """The base class of residual blocks: relu(residual(x) + shortcut(x)).

    Subclasses make the convolutions and define in `residual` how they follow each other. The stride-2 3x3 convolution
    of the residual branch is the view D of ESD, so the weights of a plain ResNet fit.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm, esd: ESDOptions | None) -> None:
        super().__init__()
        self.out_channels, self.stride, self.esd = out_channels, stride, esd
        self.fuse: Conv2d | None = None
        self.pools_shortcut = pooled = esd is not None and esd.shortcut == "avg"
        self.shortcut: Conv2d | None = None
        if in_channels != out_channels:
            step = 1 if pooled else stride
            self.shortcut = Conv2d(in_channels, out_channels, 1, step, bias=False, norm=norm)
            c2_msra_fill(self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Map Tensor[N, C_in, H, W] to Tensor[N, C_out, ceil(H / stride), ceil(W / stride)]."""
        out = self.residual(x)
        if self.pools_shortcut:
            x = esd_average(x)
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)

    def residual(self, x: Tensor) -> Tensor:
        """Return the residual branch of `x`."""
        raise NotImplementedError

    def _finish(self, dense: Conv2d) -> None:
        """Initialise the branch, and with ESD-2 add the mixing convolution for `dense`, the strided convolution."""
        for name in ("conv1", "conv2", "conv3"):
            if hasattr(self, name):
                c2_msra_fill(getattr(self, name))
        if self.esd is not None and self.esd.mode == 2:
            self.fuse = esd_fuse_conv(dense.in_channels, dense.out_channels, self.esd.fuse_init)
            self.new_parts = ("fuse",)

    def downsample(self, x: Tensor, dense: Conv2d) -> Tensor:
        """Return `dense(x)`, or ESD with `dense(x)` as its view D."""
        return dense(x) if self.esd is None else esd_fuse(x, dense(x), self.fuse)


class BasicBlock(_ResidualBlock):
    """A residual block of two 3x3 convolutions, for depths 18 and 34. With ESD the first of them is the view D.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels. If it differs from `in_channels`, the shortcut is a 1x1 convolution.
        stride: stride of the first convolution and of the shortcut.
        norm: the norm, see `sn2fpn.layers.get_norm`.
        esd: how ESD downsamples; None for a plain strided convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN", esd: ESDOptions | None = None
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm, esd)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False, norm=norm, activation="relu")
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, bias=False, norm=norm)
        self._finish(self.conv1)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv2(self.downsample(x, self.conv1))


class BottleneckBlock(_ResidualBlock):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, for depths from 50. With ESD the 3x3 one is the view D.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels. If it differs from `in_channels`, the shortcut is a 1x1 convolution.
        bottleneck_channels: number of channels of the 3x3 convolution.
        stride: stride of the block.
        num_groups: number of groups of the 3x3 convolution.
        norm: the norm, see `sn2fpn.layers.get_norm`.
        stride_in_1x1: whether the first 1x1 convolution has the stride, as in MSRA's weights, instead of the 3x3
            convolution. With ESD the 3x3 convolution always has it.
        dilation: dilation of the 3x3 convolution.
        esd: how ESD downsamples; None for a plain strided convolution.
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
        self.conv1 = Conv2d(in_channels, width, 1, stride_1x1, bias=False, norm=norm, activation="relu")
        self.conv2 = Conv2d(
            width,
            width,
            3,
            stride_3x3,
            padding=dilation,
            dilation=dilation,
            groups=num_groups,
            bias=False,
            norm=norm,
            activation="relu",
        )
        self.conv3 = Conv2d(width, out_channels, 1, bias=False, norm=norm)
        self._finish(self.conv2)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv3(self.downsample(self.conv1(x), self.conv2))


def _esd(in_channels: int, out_channels: int, norm: Norm, esd: ESDOptions) -> nn.Module:
    if esd.mode == 1:
        return ESD1(in_channels, out_channels, norm=norm, activation="relu")
    return ESD2(in_channels, out_channels, norm=norm, activation="relu", fuse_init=esd.fuse_init)
