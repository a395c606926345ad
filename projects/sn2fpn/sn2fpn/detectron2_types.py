"""The types by which Detectron2 recognises a configuration and a schedule, which it has from fvcore.

This project needs nothing of fvcore. Where it is installed, as it is beside Detectron2, the configurations and the
schedules of this project are also of fvcore's types, so that Detectron2's functions take them. Everything that these
types do is replaced, so that a program does the same with and without fvcore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["ConfigBase", "ScheduleBase"]

if TYPE_CHECKING:
    ConfigBase, ScheduleBase = dict, object
else:
    try:
        from fvcore.common.config import CfgNode as ConfigBase
        from fvcore.common.param_scheduler import ParamScheduler as ScheduleBase
    except ImportError:
        ConfigBase, ScheduleBase = dict, object
