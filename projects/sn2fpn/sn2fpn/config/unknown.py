"""The message for a key that a configuration does not have, and the keys of Detectron2 that may be left out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import UserError, did_you_mean

__all__ = ["nearest_key", "unknown_key", "without_unread"]

_CLOSE = 0.75  # the least similarity of keys with several parts

_DETECTRON2_ALONE = ("GLOBAL", "MODEL.PANOPTIC_FPN", "MODEL.RETINANET", "MODEL.ROI_KEYPOINT_HEAD", "MODEL.SEM_SEG_HEAD")


def unknown_key(
    root: Mapping[str, Any], group: Any, path: Sequence[str], source: str = "", full_key: str = ""
) -> UserError:
    """Return the error for an unknown key, with the key that has its name elsewhere or the nearest beside it.

    Args:
        root: the configuration.
        group: what the configuration holds above the unknown part of the key.
        path: the parts of the key up to the unknown one.
        source: the file of the key, or "" if it is from none.
        full_key: the whole key, if it has more parts.
    """
    where = f"{source}: " if source else ""
    key = full_key or ".".join(path)
    if ".".join(path) in _DETECTRON2_ALONE:
        return UserError(f"{where}{key} is for a model that only Detectron2 has; add --engine detectron2")
    known = list(_full_keys(root))
    if key.upper() in known:
        return UserError(f"{where}unknown config key {key!r}; did you mean {key.upper()!r}?")
    above = "".join(f"{part}." for part in path[:-1])
    beside = group if isinstance(group, dict) else {}
    near = nearest_key(key.removeprefix(above), _full_keys(beside), beside, above)
    elsewhere = [found for found in known if found.rpartition(".")[2] == path[-1]]
    if len(elsewhere) == 1:
        near = f"; did you mean {elsewhere[0]!r}?"
    return UserError(f"{where}unknown config key {key!r}{near}")


def without_unread(content: dict[str, Any], own: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of a file without the groups of Detectron2 that an R-CNN without keypoints does not read.

    Detectron2 writes them into the complete configuration of every run. They are left out if the file itself names the
    R-CNN. A file that has such a group only is meant for another model.

    Args:
        content: the mapping of the file, merged over those of its `_BASE_` files.
        own: the mapping of the file alone.
        known: the configuration, whose own groups are never left out.
    """
    model, named = content.get("MODEL"), own.get("MODEL")
    if not isinstance(model, dict) or not isinstance(named, dict) or "MODEL" not in known:
        return content
    if named.get("META_ARCHITECTURE") != "GeneralizedRCNN" or model.get("KEYPOINT_ON"):
        return content
    model = {k: v for k, v in model.items() if k in known["MODEL"] or f"MODEL.{k}" not in _DETECTRON2_ALONE}
    return {k: v for k, v in content.items() if k in known or k not in _DETECTRON2_ALONE} | {"MODEL": model}


def nearest_key(rest: str, below: Iterable[str], choices: Iterable[str], prefix: str) -> str:
    """Return `"; did you mean 'x'?"` for the key below a group that is nearest, else what `did_you_mean` says.

    Points and underscores do not count, so that COPYPASTE.PROB leads to COPY_PASTE.PROB, and MOSAIC_PROB to
    MOSAIC.PROB.

    Args:
        rest: the parts of the key from the first one that is unknown on.
        below: all keys below the group, seen from the group.
        choices: the keys of the group itself.
        prefix: what is put before a key of the group.
    """
    plain = {_letters(key): key for key in below}
    close = difflib.get_close_matches(_letters(rest), plain, n=1, cutoff=_CLOSE)
    if close:
        return f"; did you mean {prefix + plain[close[0]]!r}?"
    return did_you_mean(rest.partition(".")[0], choices, prefix=prefix)


def _letters(key: str) -> str:
    return key.replace(".", "").replace("_", "").lower()


def _full_keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the full keys of a tree, those of groups included."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _full_keys(value, f"{prefix}{key}.")
