"""`run(cfg, args)`: the seam of the native engine. Train or evaluate in this process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .. import distributed as comm
from ..checkpoint import load_trained
from ..data import check_classes, register_custom
from ..modeling import build_model
from .setup import default_setup, load_config
from .testing import evaluate
from .trainer import Trainer

__all__ = ["load_config", "run"]

logger = logging.getLogger(__name__)


def run(cfg: Any, args: Any, engine: Any = "") -> dict[str, Any]:
    """Train (`--resume` to go on) or evaluate (`--eval-only`); returns the evaluation's results.

    Args:
        cfg: full configuration.
        args: of `default_argument_parser`.
        engine: the log's first line.
    """
    cfg = cfg.clone()
    cfg.freeze()
    default_setup(cfg, args, engine)
    register_custom(cfg.DATASETS.CUSTOM)
    names = cfg.DATASETS.TEST if args.eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    check_classes(cfg, names)  # before a model is built: hours may pass until the test set is read
    if args.eval_only:
        model = build_model(cfg)
        load_trained(model, cfg.MODEL.WEIGHTS, cfg.SOLVER.EMA.ENABLED)
        results = evaluate(cfg, model)
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        results = trainer.train()
        model = trainer.model
    if comm.is_main_process():
        _draw(cfg, model, curves=not args.eval_only)
    return results


def _draw(cfg: Any, model: Any, curves: bool) -> None:
    """The pictures of a run: training curves, and predictions beside ground truth."""
    from ..visualization import draw_predictions, plot_curves

    out = Path(cfg.OUTPUT_DIR)
    pictures = []
    if curves and (out / "metrics.json").is_file():
        pictures.append(plot_curves(out / "metrics.json", out / "curves.png"))
    if cfg.DATASETS.TEST:
        pictures.append(draw_predictions(cfg, model, out / "predictions.png"))
    for picture in pictures:
        logger.info("Picture: %s", picture)
