"""The selection of training and test data: read data sets, filter images, check classes and masks against the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import ArgumentError, UserError, argument_names, counted, counted_of
from .catalog import DatasetCatalog, as_names, class_names, is_slice
from .masks import has_mask
from .plausible import find_doubts
from .problems import count_left_out
from .records import DatasetDicts, Records

__all__ = [
    "check_classes",
    "check_num_classes",
    "evenly_spread",
    "get_dataset_dicts",
    "images_with_objects",
    "keep_learnable",
    "keep_masked",
    "mask_format_of",
    "read_records",
    "require_annotations",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MASK_KEYS = "MODEL.MASK_ON, INPUT.MASK_FORMAT"  # the keys that the argument `mask_format` is made of


def get_dataset_dicts(
    names: str | Sequence[str], filter_empty: bool = False, where: str = "", mask_format: str | None = None
) -> DatasetDicts:
    """Read one or several data sets as one list of data set dicts.

    Args:
        names: registered data sets with the same classes.
        filter_empty: leave out images without boxes, and images whose boxes are all crowd regions.
        where: the key that holds the names, for messages.
        mask_format: "polygon" or "bitmask" for a model that learns masks (see `keep_masked`), or None to keep objects
            without masks.

    Raises:
        ArgumentError: there is no name, the masks do not fit `mask_format`, or `filter_empty` leaves no image.
        UserError: a name is unknown, a data set cannot be read or has no image, or the classes differ; or a data set
            without annotations is asked for objects by `filter_empty` or `mask_format`.
    """
    return read_records(names, filter_empty, where, mask_format).to_list()


def read_records(
    names: str | Sequence[str], filter_empty: bool = False, where: str = "", mask_format: str | None = None
) -> Records:
    """Read one or several data sets in the form of bytes; see `get_dataset_dicts`."""
    names = as_names(names, where)
    if filter_empty or mask_format is not None:
        parts = [_read_for_training(name, where, mask_format) for name in names]
    else:
        parts = [Records.of(DatasetCatalog.read(name, where)) for name in names]
    _check_same_classes(names)
    listed = f"data set {', '.join(names)}"
    records = Records.joined(parts)
    if not records:
        raise UserError(f"{listed}: has no images")
    if not filter_empty:
        return records
    bare = records.without_masks()
    usable = [i for i, d in enumerate(bare) if has_object(d)]
    if not usable:
        reasons = "".join(f"; {doubt}" for doubt in find_doubts(bare))
        none = f"none of the {counted(len(records), 'image')} of {listed} has a box to train on"
        raise ArgumentError("filter_empty", none + reasons)
    if len(usable) < len(records):
        empty = counted_of(len(records) - len(usable), len(records), "image", "is/are")
        logger.info("%s left out for want of a box", empty)
    return records.select(usable)


def _read_for_training(name: str, where: str, mask_format: str | None) -> Records:
    """Read a data set, and log in one line how many of its objects are not trained on, by kind."""
    what = f"data set {name!r}"
    with count_left_out() as left_out:
        records = Records.of(DatasetCatalog.read(name, where))
    if is_slice(name):
        left_out.clear()  # the reader counts what the whole data set lacks
    require_annotations(records.without_masks(), what)
    objects, crowds = _count_objects(records)
    kept = records if mask_format is None else keep_masked(records, mask_format, what)
    total = objects + sum(left_out.values())
    left_out["crowd regions"] += crowds
    left_out["without a mask"] += 0 if kept is records else objects - _count_objects(kept)[0]
    if kinds := [f"{count} {kind}" for kind, count in left_out.most_common() if count]:
        count = sum(left_out.values())
        logger.info("%s: %s not trained on (%s)", what, counted_of(count, total, "object", "is/are"), ", ".join(kinds))
    return kept


def _count_objects(records: Records) -> tuple[int, int]:
    """Return the numbers of objects and of crowd regions."""
    flags = [bool(a.get("iscrowd", 0)) for r in records.without_masks() for a in r["annotations"]]
    return len(flags), sum(flags)


def has_object(record: Mapping[str, Any]) -> bool:
    """Return whether an image has an object that is no crowd region, so that it can be trained on."""
    return any(not annotation.get("iscrowd", 0) for annotation in record["annotations"])


def require_annotations(dataset_dicts: Sequence[Mapping[str, Any]], what: str) -> None:
    """Check that all images have a list of annotations, which may be empty.

    Args:
        dataset_dicts: the images.
        what: the name of the data, for messages.

    Raises:
        UserError: an image has none, so that the data set is good for prediction only.
    """
    without = [d for d in dataset_dicts if "annotations" not in d]
    if without:
        raise UserError(
            f"{what}: {counted_of(len(without), len(dataset_dicts), 'image', 'has/have')} no 'annotations', the first "
            f"one {without[0].get('file_name')!r}; such data can only be predicted on, not trained on or evaluated"
        )


def mask_format_of(cfg: Any) -> str | None:
    """Return the format of the masks that the model of a configuration learns from; None if it learns no masks."""
    return cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None


def keep_learnable(cfg: Any, dataset_dicts: DatasetDicts | Records, what: str) -> DatasetDicts | Records:
    """Return the images with the objects that the model of a configuration can learn from.

    A model with masks cannot learn from objects without masks; see `keep_masked` for the arguments and errors.
    """
    mask_format = mask_format_of(cfg)
    with argument_names({"mask_format": MASK_KEYS}):
        return dataset_dicts if mask_format is None else keep_masked(dataset_dicts, mask_format, what)


def keep_masked(dataset_dicts: DatasetDicts | Records, mask_format: str, what: str) -> DatasetDicts | Records:
    """Return the images with only those objects that have a mask. Crowd regions are kept.

    Objects without a mask are left out, with one warning, because they could teach the boxes but not the masks.

    Args:
        mask_format: "polygon" or "bitmask"; polygons cannot represent masks that are given as run lengths (RLE).
        what: the name of the data, for messages.

    Raises:
        ArgumentError: no object has a mask, or `mask_format` is "polygon" and an object has RLE.
        UserError: an image has no list of annotations.
    """
    require_annotations(dataset_dicts, what)
    changed: dict[int, dict[str, Any]] = {}
    total = left_out = 0
    example = ""
    for i, record in enumerate(dataset_dicts):
        annotations = []
        for annotation in record["annotations"]:
            segmentation, crowd = annotation.get("segmentation"), annotation.get("iscrowd", 0)
            total += not crowd
            if not crowd and not has_mask(annotation):
                left_out += 1
                example = example or record["file_name"]
                continue
            if not crowd and mask_format == "polygon" and isinstance(segmentation, dict):
                raise ArgumentError(
                    "mask_format",
                    f"'polygon' cannot represent a mask given as run lengths (RLE), which {what} has for "
                    f"{record['file_name']}; set it to 'bitmask'",
                )
            annotations.append(annotation)
        if len(annotations) < len(record["annotations"]):
            changed[i] = {**record, "annotations": annotations}
    if total and left_out == total:
        raise ArgumentError(
            "mask_format",
            f"{mask_format!r} asks for masks, but none of the {counted(total, 'object')} of {what} has one "
            "(`segmentation`); turn masks off, or use data with masks",
        )
    if left_out:
        logger.warning(
            "%s: %s left out for want of a mask, the first one in %s",
            what,
            counted_of(left_out, total, "object", "is/are"),
            example,
        )
    if isinstance(dataset_dicts, Records):
        return dataset_dicts.replaced(changed)
    return [changed.get(i, record) for i, record in enumerate(dataset_dicts)]


def check_classes(cfg: Any, names: str | Sequence[str]) -> list[str]:
    """Return the class names that the model of a configuration and all named data sets share.

    Raises:
        UserError: the data sets have different classes, or `MODEL.ROI_HEADS.NUM_CLASSES` is not their number.
    """
    return check_num_classes(cfg.MODEL.ROI_HEADS.NUM_CLASSES, names, "MODEL.ROI_HEADS.NUM_CLASSES")


def check_num_classes(num_classes: int, names: str | Sequence[str], argument: str = "num_classes") -> list[str]:
    """Return the class names that a model with `num_classes` classes and all named data sets share.

    Raises:
        ArgumentError: `num_classes`, which messages call `argument`, is not the number of classes.
        UserError: the data sets have different classes.
    """
    names = as_names(names)
    classes = _check_same_classes(names)
    if len(classes) != num_classes:
        shown = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
        raise ArgumentError(
            argument,
            f"expected {len(classes)}, the number of classes of data set {names[0]!r} ({shown}), found {num_classes}",
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
                f"({len(first)} and {len(other)}; class {i} is {a} and {b}); "
                "data sets that are used together need the same list of classes"
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


def images_with_objects(records: DatasetDicts, count: int) -> DatasetDicts:
    """Return at most `count` evenly spread data set dicts with objects; if none has objects, of all data set dicts."""
    return evenly_spread([record for record in records if record.get("annotations")] or records, count)
