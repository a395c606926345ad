"""What the tests of Detectron2's engine share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Command = Callable[..., Any]


def their_trainer(args: Any) -> Any:
    """Return the trainer of Detectron2's engine for a command line, whose data sets are registered."""
    from sn2fpn.engine import detectron2 as engine

    cfg = engine.load_config(args)
    engine._register_datasets(cfg)
    return engine.Trainer(cfg)
