"""Our pyramids, trunks and data sets in Detectron2: importing this module registers them with its registries.

Two lines give them to a Detectron2 project of your own; its configs may then say
`MODEL.BACKBONE.NAME: build_sn2_sni_backbone` and set `MODEL.SNI`, `MODEL.IHP` and `MODEL.ESD`:

    from sn2fpn.integrations.detectron2 import add_sn2fpn_config
    add_sn2fpn_config(cfg)  # before files and overrides are merged
"""

from .backbones import register_backbones
from .config import add_sn2fpn_config, read_config
from .datasets import register_custom, share_dataset

__all__ = ["add_sn2fpn_config", "read_config", "register_backbones", "register_custom", "share_dataset"]

register_backbones()
for _name in ("shapes_train", "shapes_val"):
    share_dataset(_name)
