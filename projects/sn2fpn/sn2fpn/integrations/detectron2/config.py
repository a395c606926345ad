"""Detectron2's configuration with the study's keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import get_cfg

from ...config import CfgNode, add_study_config

__all__ = ["add_sn2fpn_config", "read_config"]


def add_sn2fpn_config(cfg: Any) -> None:
    """Add the study's keys (`MODEL.SNI`, `MODEL.IHP`, `MODEL.ESD`, `DATASETS.CUSTOM`, …) to Detectron2's `cfg`."""
    add_study_config(cfg)


def read_config(config_file: str, overrides: Sequence[Any] = ()) -> CfgNode:
    """Detectron2's defaults and the study's <- a YAML file and its bases <- `["KEY", value, …]`.

    Read by our reader: never executed, an integer for a real number is fine, and mistakes are named with the
    nearest key. `detectron2.config.CfgNode(result)` is what Detectron2 takes.

    Raises:
        UserError: an unreadable file, an unknown key or a value of the wrong type.
    """
    cfg = CfgNode(get_cfg())
    add_sn2fpn_config(cfg)
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(overrides))
    return cfg
