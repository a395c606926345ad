"""Feature pyramids, one file each. Every file in this folder is imported, which registers its pyramid."""

from importlib import import_module
from pkgutil import iter_modules

from .base import Pyramid
from .bifpn import BiFPN
from .checks import check_pyramid
from .fapn import FaPN
from .fpn import FPN
from .gfpn import GFPN, GiraffeGraph, gfpn_links
from .ihp import IHP
from .levels import Levels
from .pafpn import PAFPN
from .pconv import PConvFPN
from .registry import (
    PYRAMIDS,
    backbone_names,
    overridden_keys,
    pyramid_from_backbone_name,
    register_pyramid,
    unread_groups,
)
from .sapan import SAPAN
from .sni import SNIFPN

__all__ = [
    "BiFPN",
    "FPN",
    "FaPN",
    "GFPN",
    "GiraffeGraph",
    "IHP",
    "Levels",
    "PAFPN",
    "PConvFPN",
    "PYRAMIDS",
    "Pyramid",
    "SAPAN",
    "SNIFPN",
    "backbone_names",
    "check_pyramid",
    "gfpn_links",
    "overridden_keys",
    "pyramid_from_backbone_name",
    "register_pyramid",
    "unread_groups",
]


def import_all() -> None:
    """Import every file of this folder."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


import_all()
