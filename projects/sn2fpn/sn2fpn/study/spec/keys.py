"""Dotted configuration keys and the trees that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import UserError

__all__ = ["flatten", "nest"]


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their dotted keys.

    Keys may already be dotted: {SOLVER: {MAX_ITER: 9}} and {SOLVER.MAX_ITER: 9} give the same.
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree whose leaves have these dotted keys; the inverse of `flatten`.

    Raises:
        UserError: One key is a value and a group at the same time.
    """
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *parents, leaf = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"{key}: {part} is given a value in the same place, so it cannot be a group of keys")
        node[leaf] = value
    return tree
