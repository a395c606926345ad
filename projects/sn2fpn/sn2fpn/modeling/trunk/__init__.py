"""Trunks: ResNets, which downsample as usual or with ESD."""

from .blocks import BasicBlock, BasicStem, BottleneckBlock, DeepESDStem, ESDOptions
from .build import build_trunk, frozen_norm_warning, make_resnet
from .resnet import ResNet

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeepESDStem",
    "ESDOptions",
    "ResNet",
    "build_trunk",
    "frozen_norm_warning",
    "make_resnet",
]
