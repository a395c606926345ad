"""The upsampling half of a top-down step: a coarse map is brought to the size of the fine map that receives it.

Every kind is an `Upsample` module, one per file. `get_upsample` makes one by its name.
"""

from .base import Upsample
from .carafe import CARAFE
from .deconv import Deconv
from .dysample import DySample
from .interpolation import Bilinear, Nearest
from .kinds import Upsampling, get_upsample
from .sni import SNI, soft_nearest, soft_nearest_add

__all__ = [
    "Bilinear",
    "CARAFE",
    "Deconv",
    "DySample",
    "Nearest",
    "SNI",
    "Upsample",
    "Upsampling",
    "get_upsample",
    "soft_nearest",
    "soft_nearest_add",
]
