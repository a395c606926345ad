"""Which data a run uses: reading the named sets, filtering, and checking classes and masks against the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import UserError
from .catalog import DatasetCatalog, DatasetDicts, as_names, class_names

__all__ = ["check_classes", "check_num_classes", "evenly_spread", "get_dataset_dicts", "keep_masked"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def get_dataset_dicts(
    names: str | Sequence[str], filter_empty: bool = False, where: str = "", mask_format: str | None = None
) -> DatasetDicts:
    """Read one or several sets as one list of data set dicts.

    Args:
        filter_empty: leave out images without boxes, and those whose boxes are all crowds.
        where: the key that holds the names, for messages.
        mask_format: what `INPUT.MASK_FORMAT` says, for a model that learns masks; see `keep_masked`. None:
            objects without masks are as good as others.

    Raises:
        UserError: unknown names, unreadable sets, sets with different classes, sets that cannot teach masks,
            or nothing left.
    """
    names = as_names(names)
    dicts = []
    for name in names:
        records = DatasetCatalog.get(name, where)
        dicts += records if mask_format is None else keep_masked(records, mask_format, f"data set {name!r}")
    _check_same_classes(names)
    if not dicts:
        raise UserError(f"data set {', '.join(names)}: has no images")
    if not filter_empty:
        return dicts
    usable = [d for d in dicts if any(not a.get("iscrowd", 0) for a in d["annotations"])]
    if not usable:
        raise UserError(
            f"data set {', '.join(names)}: none of its {len(dicts)} images has a box to train on "
            "(DATALOADER.FILTER_EMPTY_ANNOTATIONS leaves out images without boxes)"
        )
    if len(usable) < len(dicts):
        logger.info(
            "%d of %d images have no box and are left out (DATALOADER.FILTER_EMPTY_ANNOTATIONS)",
            len(dicts) - len(usable),
            len(dicts),
        )
    return usable


def keep_masked(dataset_dicts: DatasetDicts, mask_format: str, what: str) -> DatasetDicts:
    """The same images with those objects alone that have a mask; crowd regions stay as they are.

    Objects without a (sound) mask are left out with one warning: they could teach the boxes, but not the masks.

    Args:
        mask_format: "polygon" or "bitmask"; polygons cannot hold masks given as run lengths (RLE).
        what: the data's name, for messages.

    Raises:
        UserError: no object has a mask, or one has RLE and `mask_format` is "polygon".
    """
    kept: DatasetDicts = []
    total = left_out = 0
    example = ""
    for record in dataset_dicts:
        annotations = []
        for annotation in record["annotations"]:
            segmentation, crowd = annotation.get("segmentation"), annotation.get("iscrowd", 0)
            total += not crowd
            if not crowd and not segmentation:
                left_out += 1
                example = example or record["file_name"]
                continue
            if not crowd and mask_format == "polygon" and isinstance(segmentation, dict):
                raise UserError(
                    f"{what}: {record['file_name']} has a mask given as run lengths (RLE), which "
                    "INPUT.MASK_FORMAT 'polygon' cannot hold; set INPUT.MASK_FORMAT bitmask"
                )
            annotations.append(annotation)
        kept.append({**record, "annotations": annotations})
    if total and left_out == total:
        raise UserError(
            f"{what}: MODEL.MASK_ON asks for masks, but none of its {total} objects has one "
            "(`segmentation`); turn it off, or use data with masks"
        )
    if left_out:
        logger.warning(
            "%s: %d of %d objects have no mask to learn and are left out, the first in %s",
            what,
            left_out,
            total,
            example,
        )
    return kept


def check_classes(cfg: Any, names: str | Sequence[str]) -> list[str]:
    """The class names that the model and all the named sets agree on.

    Raises:
        UserError: sets differ in their classes, or `MODEL.ROI_HEADS.NUM_CLASSES` is not their number.
    """
    return check_num_classes(cfg.MODEL.ROI_HEADS.NUM_CLASSES, names)


def check_num_classes(
    num_classes: int, names: str | Sequence[str], key: str = "MODEL.ROI_HEADS.NUM_CLASSES"
) -> list[str]:
    """As `check_classes`, for a model of `num_classes`; `key` says where that number is set."""
    names = as_names(names)
    classes = _check_same_classes(names)
    if len(classes) != num_classes:
        shown = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
        raise UserError(
            f"{key} is {num_classes}, but data set {names[0]!r} has {len(classes)} classes ({shown}): "
            f"set {key} {len(classes)}"
        )
    return classes


def _check_same_classes(names: list[str]) -> list[str]:
    first = class_names(names[0])
    for name in names[1:]:
        other = class_names(name)
        if other != first:
            i = next((i for i, (a, b) in enumerate(zip(first, other)) if a != b), min(len(first), len(other)))
            a, b = (repr(c[i]) if i < len(c) else "nothing" for c in (first, other))
            raise UserError(
                f"data sets {names[0]!r} and {name!r} have different classes "
                f"({len(first)} and {len(other)}; class {i} is {a} and {b}): "
                "use sets with the same class list together"
            )
    return first


def evenly_spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items that are spread evenly over a sequence, the first and the last included.

    Example:
        >>> evenly_spread("abcdefghi", 3)
        ['a', 'e', 'i']
    """
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in chosen]
