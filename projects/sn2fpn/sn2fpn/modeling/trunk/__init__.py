"""Trunks: ResNets, which downsample as usual or with ESD, and the models of timm."""

from .blocks import BasicBlock, BasicStem, BottleneckBlock, DeepESDStem, ESDOptions
from .build import build_trunk, frozen_norm_warning, make_resnet
from .resnet import ResNet
from .timm_model import SimpleFeaturePyramid, TimmTrunk

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeepESDStem",
    "ESDOptions",
    "ResNet",
    "SimpleFeaturePyramid",
    "TimmTrunk",
    "build_trunk",
    "frozen_norm_warning",
    "make_resnet",
]
