"""What a checkpoint says about its run besides weights and states: the configuration and the names of the classes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

__all__ = ["ClassNames", "Configuration", "changes"]

logger = logging.getLogger(__name__)
_WITHOUT_EFFECT = ("output_dir", "weights", "checkpoint_period", "checkpoints_to_keep", "log_period")


class Configuration:
    """The configuration of a run as a part of its checkpoints; it warns when a run is resumed with another one.

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
        found = [
            f"{key}: {old} -> {new}"
            for key, old, new in changes(text, self._text)
            if key not in self._without_effect and not key.lower().endswith("num_workers")
        ]
        if found:
            logger.warning(
                "The configuration is not that of the checkpoint:\n  %s\nThe new values count from here on, but %s go "
                "on as in the checkpoint",
                "\n  ".join(found),
                self._kept,
            )


class ClassNames:
    """The names of the classes of the training data as a part of checkpoints.

    Args:
        names: returns the names, or an empty list if there are none.
    """

    def __init__(self, names: Callable[[], list[str]]) -> None:
        self._names = names

    def state_dict(self) -> list[str] | None:
        return self._names() or None

    def load_state_dict(self, _: list[str]) -> None:
        """Do nothing, because the names follow from the data."""


def changes(old: str, new: str) -> list[tuple[str, Any, Any]]:
    """Return (key, old value, new value) for each key of two YAML texts whose values differ; "(none)" means no key."""
    texts = (re.sub(r" at 0x[0-9a-f]+", "", text) for text in (old, new))  # of functions, in Python configurations
    olds, news = (dict(_leaves(yaml.safe_load(text) or {})) for text in texts)
    pairs = [(key, olds.get(key, "(none)"), news.get(key, "(none)")) for key in sorted(olds.keys() | news.keys())]
    return [(key, a, b) for key, a, b in pairs if a != b]


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
