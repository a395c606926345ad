"""Building blocks: norms, convolutions and the study's sampling layers; they know only torch."""

from .activation import get_activation
from .conv import Conv2d, ConvNormAct
from .init import c2_msra_fill, c2_xavier_fill, kaiming_normal_per_group
from .norm import FrozenBatchNorm2d, SyncBatchNorm, get_norm
from .sni import SNI, soft_nearest, soft_nearest_add

__all__ = [
    "Conv2d",
    "ConvNormAct",
    "FrozenBatchNorm2d",
    "SNI",
    "SyncBatchNorm",
    "c2_msra_fill",
    "c2_xavier_fill",
    "get_activation",
    "get_norm",
    "kaiming_normal_per_group",
    "soft_nearest",
    "soft_nearest_add",
]
