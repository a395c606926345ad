"""The evaluation of a model on data sets."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import distributed as comm
from ..atomic import atomic_write
from ..evaluation import DatasetEvaluator, copypaste_lines, inference_on_dataset, results_table
from ..evaluation.tables import without_nan
from ..precision import autocast
from .interrupts import Interrupts
from .options import RunOptions

__all__ = ["AUGMENTED", "TestSet", "evaluate", "flatten_results", "metric_names", "validation_losses"]

logger = logging.getLogger(__name__)

AUGMENTED = "_TTA"
"""The end of the names of results with test-time augmentation, as in Detectron2."""


@dataclass(frozen=True)
class TestSet:
    """A data set to evaluate on.

    Attributes:
        name: name of the data set.
        loader: makes the batches; `loader(with_targets=True)` adds `instances` to them, for losses.
        evaluator: makes an evaluator that writes to the given folder.
    """

    __test__ = False  # for pytest: this is not a class of tests

    name: str
    loader: Callable[..., Iterable[list[dict[str, Any]]]]
    evaluator: Callable[[Path], DatasetEvaluator]


def evaluate(
    test_sets: Sequence[TestSet],
    model: nn.Module,
    options: RunOptions,
    interrupts: Interrupts | None = None,
    suffix: str = "",
) -> dict[str, Any]:
    """Evaluate a model on data sets and return `{data set: {"bbox": {"AP": …}}}`.

    The model computes in the precision of the training. Predictions and results are written to
    `<output_dir>/inference<suffix>/<data set>`. Only the main process returns results.

    Args:
        test_sets: the data sets.
        model: the model.
        options: the options of the run.
        interrupts: the requests to stop the training of which this is a part.
        suffix: what is added to the names of the tasks, such as "_TTA" for "bbox_TTA".

    Raises:
        Stopped: there was a request to stop.
    """
    results: dict[str, Any] = {}
    for test_set in test_sets:
        folder = Path(options.output_dir) / f"inference{suffix}" / test_set.name
        loader = test_set.loader()
        loader = interrupts.evaluating(loader) if interrupts else loader
        with autocast(options.device, options.precision):
            found = inference_on_dataset(model, loader, test_set.evaluator(folder))
        result = {f"{task}{suffix}": scores for task, scores in found.items()}
        if comm.is_main_process():
            results[test_set.name] = result
            logger.info("Evaluation on %s\n%s", test_set.name, results_table(result))
            for line in copypaste_lines(result):
                logger.info("%s", line)
            with atomic_write(folder / "results.json") as f:
                json.dump(without_nan(result), f, indent=2)
    return results


def flatten_results(results: dict[str, Any]) -> dict[str, float]:
    """Return results as `{"bbox/AP": …}`, or as `{"<data set>/bbox/AP": …}` for several data sets, without classes."""
    flat = {}
    for name, tasks in results.items():
        prefix = f"{name}/" if len(results) > 1 else ""
        for task, metrics in tasks.items():
            flat |= {f"{prefix}{task}/{k}": float(v) for k, v in metrics.items() if "-" not in k}
    return flat


def metric_names(scores: Mapping[str, Iterable[str]], losses: Iterable[str] = ()) -> list[str]:
    """Return the names of what `flatten_results` and `validation_losses` will give.

    Args:
        scores: for each data set, the names of its scores, such as "bbox/AP".
        losses: the names of the model's losses, if they are computed.

    Example:
        >>> metric_names({"shapes_val": ["bbox/AP"]}, ["loss_cls"])
        ['bbox/AP', 'val/loss_cls', 'val/total_loss']
    """
    losses = list(losses)
    names = [f"{name}/{score}" if len(scores) > 1 else score for name, known in scores.items() for score in known]
    return names + [f"val/{name}" for name in (*losses, "total_loss") if losses]


@torch.no_grad()
def validation_losses(
    test_sets: Sequence[TestSet], model: nn.Module, options: RunOptions, interrupts: Interrupts | None = None
) -> dict[str, float]:
    """Return the mean training losses on data sets, `{"val/total_loss": …}`.

    Batch norms use their running statistics and do not update them. The sampling of anchors and proposals is seeded,
    and the random state is restored afterwards. See `evaluate` for the arguments.
    """
    sums: dict[str, float] = defaultdict(float)
    batches = 0
    with _computing_losses(model), autocast(options.device, options.precision):
        for test_set in test_sets:
            loader = test_set.loader(with_targets=True)
            for batch in interrupts.evaluating(loader) if interrupts else loader:
                for key, value in model(batch).items():
                    sums[f"val/{key}"] += float(value)
                    sums["val/total_loss"] += float(value)
                batches += 1
    parts = comm.all_gather((dict(sums), batches))
    total = max(sum(n for _, n in parts), 1)
    return {k: sum(s.get(k, 0.0) for s, _ in parts) / total for k in {k for s, _ in parts for k in s}}


@contextmanager
def _computing_losses(model: nn.Module) -> Iterator[None]:
    """Let a model return losses, with fixed statistics of its batch norms and a seeded random stream."""
    was_training = model.training
    devices = {p.device for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        model.train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        try:
            yield
        finally:
            model.train(was_training)
