"""Detectron2's configuration with the study's keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import get_cfg

from ...config import CfgNode, add_study_config

__all__ = ["add_sn2fpn_config", "read_config"]


def add_sn2fpn_config(cfg: Any) -> None:
    """Add the study's keys, such as `MODEL.SNI`, `MODEL.ESD` and `DATASETS.CUSTOM`, to Detectron2's `cfg`."""
    add_study_config(cfg)


def read_config(config_file: str, overrides: Sequence[Any] = ()) -> CfgNode:
    """Return Detectron2's configuration with the study's keys, changed by a YAML file and by overrides.

    This project's reader runs no code from the file, accepts integers in place of floats, and names the nearest key
    for an unknown one. Detectron2 takes the result as `detectron2.config.CfgNode(result)`.

    Args:
        config_file: path of the YAML file.
        overrides: a list `["KEY", value, …]`.

    Raises:
        UserError: the file is not readable, a key is unknown, or a value has the wrong type.
    """
    cfg = CfgNode(get_cfg())
    add_sn2fpn_config(cfg)
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(overrides))
    return cfg
