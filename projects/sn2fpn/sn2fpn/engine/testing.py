"""Evaluate a model on the data sets of a configuration."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import distributed as comm
from ..atomic import atomic_write
from ..data import build_test_loader
from ..evaluation import build_evaluator, inference_on_dataset, results_table

__all__ = ["evaluate", "flatten_results", "validation_losses"]

logger = logging.getLogger(__name__)


def evaluate(cfg: Any, model: nn.Module) -> dict[str, Any]:
    """`{data set: {"bbox": {"AP": …}}}` for every set in DATASETS.TEST.

    Predictions and tables go to OUTPUT_DIR/inference/<data set>. Empty on all but the main process.
    """
    results: dict[str, Any] = {}
    for name in cfg.DATASETS.TEST:
        folder = Path(cfg.OUTPUT_DIR) / "inference" / name
        evaluator = build_evaluator(cfg, name, folder)
        result = inference_on_dataset(model, build_test_loader(cfg, name), evaluator)
        if comm.is_main_process():
            results[name] = result
            logger.info("Evaluation on %s\n%s", name, results_table(result))
            with atomic_write(folder / "results.json") as f:
                json.dump(_without_nan(result), f, indent=2)
    return results


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a metric without a value becomes null."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return None if isinstance(value, float) and value != value else value


def flatten_results(results: dict[str, Any]) -> dict[str, float]:
    """`{"bbox/AP": …}`; with several data sets `{"<data set>/bbox/AP": …}`. Per-class values are left out."""
    flat = {}
    for name, tasks in results.items():
        prefix = f"{name}/" if len(results) > 1 else ""
        for task, metrics in tasks.items():
            flat |= {f"{prefix}{task}/{k}": float(v) for k, v in metrics.items() if "-" not in k}
    return flat


@torch.no_grad()
def validation_losses(cfg: Any, model: nn.Module) -> dict[str, float]:
    """Mean training losses on DATASETS.TEST, `{"val/total_loss": …}`.

    Norms use their running statistics and do not update them; the sampling of anchors and proposals is
    seeded, and the random state is put back.
    """
    was_training = model.training
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    sums: dict[str, float] = defaultdict(float)
    batches = 0
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        model.train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        try:
            for name in cfg.DATASETS.TEST:
                for batch in build_test_loader(cfg, name, with_targets=True):
                    for key, value in model(batch).items():
                        sums[f"val/{key}"] += float(value)
                        sums["val/total_loss"] += float(value)
                    batches += 1
        finally:
            model.train(was_training)
    parts = comm.all_gather((dict(sums), batches))
    total = max(sum(n for _, n in parts), 1)
    return {k: sum(s.get(k, 0.0) for s, _ in parts) / total for k in {k for s, _ in parts for k in s}}
