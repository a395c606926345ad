"""What a checkpoint says about its run besides weights and states: configuration, processes and names of classes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from .. import distributed as comm
from ..config.yaml_limits import LimitedLoader
from ..data.values import clean_name
from ..errors import ArgumentError, UserError, counted

__all__ = ["ClassNames", "Configuration", "Processes", "changes", "check_class_order", "check_same_model"]

logger = logging.getLogger(__name__)
_SHOWN = 3  # keys in a message
_OF_THE_MODEL = re.compile(r"(?!MODEL\.WEIGHTS$)(model|MODEL)\.(?!.*(soft_nms|SOFT_NMS)).*|INPUT\.FORMAT")
_SAME_MODEL = re.compile(
    r"(device|compile|cuda_graphs|.*freeze.*|.*_init|.*momentum|.*(thresh|topk|loss|beta|fraction|batch_size|iou|boundary|append_gt|on_pred|labels|low_quality|max_det).*)",
    re.IGNORECASE,
)
"""The last parts of keys below `model` that concern the training, or how many detections are kept."""
_BATCH_NORMS = {"BN", "SyncBN", "FrozenBN", "naiveSyncBN", "naiveSyncBN_N", "nnSyncBN"}
"""The norms of both engines that compute the same in an evaluation."""
_OPTIMIZER = ("SOLVER.OPTIMIZER", "optimizer._target_")
_WITHOUT_EFFECT = (
    "output_dir",
    "weights",
    "checkpoint_period",
    "checkpoints_to_keep",
    "log_period",
    "wandb",
    "mlflow",
    "zero",
    "cuda_graphs",
)


class Configuration:
    """The configuration of a run as a part of its checkpoints.

    It warns when a run is resumed with another configuration, and refuses that of another model or optimizer.

    Args:
        text: the configuration as YAML.
        keys: the user's keys of the options of a run, see `RunOptions`.
        kept: names the values that go on as the checkpoint holds them, also when they were changed.
    """

    def __init__(self, text: str, keys: Mapping[str, str], kept: str) -> None:
        self._text = text
        self._without_effect = {keys[name] for name in _WITHOUT_EFFECT if name in keys} | {"VERSION"}
        self._kept = kept

    def state_dict(self) -> str:
        return self._text

    def load_state_dict(self, text: str) -> None:
        if other := _model_changes(text, self._text):
            raise UserError(f"the checkpoint is that of another model: {other}")
        differences = changes(text, self._text)
        for key, old, new in differences:
            if key in _OPTIMIZER and "(none)" not in (old, new):
                problem = f"the checkpoint has the state of another optimizer: {key} was {old} and is {new}"
                raise UserError(f"{problem}. Resume with that of the training, or start anew from its MODEL.WEIGHTS")
        found = [
            f"{key}: {old} -> {new}"
            for key, old, new in differences
            if key not in self._without_effect and not key.lower().endswith("num_workers")
        ]
        if found:
            logger.warning(
                "The configuration is not that of the checkpoint:\n  %s\nThe new values count from here on, but %s go "
                "on as in the checkpoint",
                "\n  ".join(found),
                self._kept,
            )


def check_same_model(trained: Any, now: str, file: str, advice: str = "") -> None:
    """Refuse to use a checkpoint for a model that computes something else than the one that was trained.

    The names and shapes of weights do not tell all models apart: FPN and SNI have the same.

    Args:
        trained: the configuration in the checkpoint as YAML; anything else than a text says nothing.
        now: the present configuration as YAML.
        file: the checkpoint, for the message.
        advice: what else the user can do, for the message.

    Raises:
        ArgumentError: a key of the model differs, or the configuration in the checkpoint cannot be read; the error
            names the argument `path`.
    """
    try:
        found = _model_changes(trained, now) if isinstance(trained, str) else ""
    except UserError as e:
        raise ArgumentError("path", f"{file}: {e}") from e
    if found:
        problem = f"{file} was trained as another model: {found}"
        raise ArgumentError("path", f"{problem}. Use the configuration of the training{advice}")


def _model_changes(old: str, new: str) -> str:
    """Return the keys that make another model, with their values in two configurations; "" if there are none."""
    found = [
        f"{key} was {a} and is {b}"
        for key, a, b in changes(old, new)
        if _OF_THE_MODEL.fullmatch(key)
        and not _SAME_MODEL.fullmatch(key.rpartition(".")[2])
        and not (key.lower().endswith("norm") and isinstance(a, str) and isinstance(b, str) and {a, b} <= _BATCH_NORMS)
        and "(none)" not in (a, b)  # of another version, or of the other kind of configuration
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


class Processes:
    """The number of processes as a part of checkpoints, on which the schedule depends where it is scaled.

    Args:
        reference: the number of processes that the configuration is for; 0 means that the schedule is not scaled.
        max_iter: the number of iterations of the present schedule.
    """

    def __init__(self, reference: int, max_iter: int) -> None:
        self._reference = reference
        self._max_iter = max_iter

    def state_dict(self) -> int:
        return comm.get_world_size()

    def load_state_dict(self, before: int) -> None:
        now = comm.get_world_size()
        if self._reference and before != now:
            raise UserError(
                f"the training had {counted(before, 'process', 'processes')} and is resumed with {now}, for which "
                f"SOLVER.REFERENCE_WORLD_SIZE makes another schedule, of {self._max_iter} iterations. Resume with "
                f"{before}, or set SOLVER.REFERENCE_WORLD_SIZE 0 and the values of SOLVER of the training so far"
            )


class ClassNames:
    """The names of the classes of the training data as a part of checkpoints.

    A run is not resumed if its data have the same classes in another order.

    Args:
        names: returns the names, or an empty list if there are none.
    """

    def __init__(self, names: Callable[[], list[str]]) -> None:
        self._names = names

    def state_dict(self) -> list[str] | None:
        return self._names() or None

    def load_state_dict(self, trained: list[str]) -> None:
        check_class_order(trained, self._names(), "the checkpoint", "the training data")


def check_class_order(trained: Any, now: Sequence[str], file: str, data: str, advice: str = "") -> None:
    """Refuse data that have the classes of a checkpoint in another order, for which class numbers mean other classes.

    Other names are a reason for a warning only, since the same class may be spelt in several ways.

    Args:
        trained: the class names in the checkpoint by contiguous id; anything else than names says nothing.
        now: the class names of the data, [] if they are not known.
        file: the checkpoint, for the message.
        data: what the data are called in the message.
        advice: what else the user can do, for the message.

    Raises:
        ArgumentError: the order differs; the error names the argument `path`.
    """
    if not isinstance(trained, list | tuple) or not all(isinstance(name, str) for name in trained):
        return
    old, new = ([clean_name(name) for name in names] for names in (trained, now))
    if len(old) != len(new) or old == new:
        return
    at = next(i for i, (a, b) in enumerate(zip(old, new)) if a != b)
    differs = f"class {at} is {old[at]!r} in {file} and {new[at]!r} in {data}"
    if sorted(old) != sorted(new):
        logger.warning("%s; the model keeps the numbers of its classes", differs)
        return
    order = f"{differs}, where {old[at]!r} is class {new.index(old[at])}"
    raise ArgumentError("path", f"{order}. Both have the same classes and need the same order of them{advice}")


def changes(old: str, new: str) -> list[tuple[str, Any, Any]]:
    """Return (key, old value, new value) for each key of two YAML texts whose values differ; "(none)" means no key.

    Args:
        old: the configuration in a checkpoint.
        new: the present configuration.

    Raises:
        UserError: the former is no YAML, or exceeds the limits of a configuration.
    """
    if old == new:
        return []
    try:
        olds, news = (dict(_leaves(_parsed(text))) for text in (old, new))
    except yaml.YAMLError as e:
        raise UserError(f"the configuration in the checkpoint cannot be read: {e}") from e
    pairs = [(key, olds.get(key, "(none)"), news.get(key, "(none)")) for key in sorted(olds.keys() | news.keys())]
    return [(key, a, b) for key, a, b in pairs if a != b]


def _parsed(text: str) -> Any:
    text = re.sub(r" at 0x[0-9a-f]+", "", text)  # of functions, in Python configurations
    return yaml.load(text, LimitedLoader) or {}


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
