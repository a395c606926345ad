"""Building blocks: convolutions, norms, and the upsampling and downsampling layers of the study.

Nothing here knows of detectors or configurations.
"""

from .activation import Activation, get_activation
from .c3 import C3
from .conv import Conv2d, ConvNormAct
from .deform import DeformConv2d
from .esd import ESD1, ESD2, check_esd1_channels, esd_average, esd_fuse, esd_fuse_conv
from .gsconv import GSConv, GSConvE1, GSConvE2
from .init import c2_msra_fill, c2_xavier_fill, kaiming_normal_per_group
from .integrated_norm import integrated_norm_relu
from .norm import BatchNorm2d, FrozenBatchNorm2d, GroupNorm, Norm, SyncBatchNorm, get_norm
from .pconv import SEPC, PConv, SharedConv
from .upsample import (
    CARAFE,
    SNI,
    Bilinear,
    Deconv,
    DySample,
    Nearest,
    Upsample,
    Upsampling,
    get_upsample,
    soft_nearest,
    soft_nearest_add,
)

__all__ = [
    "Activation",
    "BatchNorm2d",
    "Bilinear",
    "C3",
    "CARAFE",
    "Conv2d",
    "ConvNormAct",
    "DeformConv2d",
    "Deconv",
    "DySample",
    "ESD1",
    "ESD2",
    "FrozenBatchNorm2d",
    "GSConv",
    "GSConvE1",
    "GSConvE2",
    "GroupNorm",
    "Nearest",
    "Norm",
    "PConv",
    "SEPC",
    "SNI",
    "SharedConv",
    "SyncBatchNorm",
    "Upsample",
    "Upsampling",
    "c2_msra_fill",
    "c2_xavier_fill",
    "check_esd1_channels",
    "esd_average",
    "esd_fuse",
    "esd_fuse_conv",
    "get_activation",
    "get_norm",
    "get_upsample",
    "integrated_norm_relu",
    "kaiming_normal_per_group",
    "soft_nearest",
    "soft_nearest_add",
]
