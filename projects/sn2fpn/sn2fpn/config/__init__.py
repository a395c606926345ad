"""Configuration: one YAML for both engines. Defaults live in `defaults.py` and `study.py`."""

from .defaults import get_cfg
from .node import CfgNode
from .study import add_study_config

__all__ = ["CfgNode", "add_study_config", "get_cfg"]
