"""Configurations: YAML files, whose defaults are in `defaults.py` and `study.py`, and Python files, see `lazy.py`."""

from .calls import LazyCall, instantiate, locate
from .defaults import get_cfg
from .lazy import LazyConfig
from .node import CfgNode
from .study import add_study_config

__all__ = ["CfgNode", "LazyCall", "LazyConfig", "add_study_config", "get_cfg", "instantiate", "locate"]
