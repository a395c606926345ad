"""This project's pyramids, trunk and data sets in Detectron2; the import registers them with Detectron2's registries.

With two lines, a Detectron2 project has them. Its configurations can then set `MODEL.BACKBONE.NAME` to
`build_sn2_sni_backbone`, for example, and use the keys of `MODEL.SNI`, `MODEL.ESD` and so on:

    from sn2fpn.integrations.detectron2 import add_sn2fpn_config
    add_sn2fpn_config(cfg)  # before files and changes are merged
"""

from .backbones import origin_of_backbone, register_backbones
from .config import add_sn2fpn_config, read_config
from .datasets import is_shared, register_custom, share_dataset, share_metadata

__all__ = [
    "add_sn2fpn_config",
    "is_shared",
    "origin_of_backbone",
    "read_config",
    "register_backbones",
    "register_custom",
    "share_dataset",
    "share_metadata",
]

register_backbones()
for _name in ("shapes_train", "shapes_val"):
    share_dataset(_name)
