"""The choice of the parts of a data set that are converted."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection

from ..errors import UserError, did_you_mean
from .formats import FORMATS, Place, Source, find_places
from .formats.voc_files import find_lists

__all__ = ["parts_to_convert"]

logger = logging.getLogger(__name__)


def parts_to_convert(args: argparse.Namespace) -> list[tuple[Place, str | None]]:
    """Return the files or folders to read, each with the part that its reader selects.

    Args:
        args: the `source`, `format`, `images`, `split` and `allow_outside` of the command line.

    Raises:
        UserError: the source is not recognised, is not one data set, or lacks a part that the command line names.
    """
    places = find_places(args.source, args.format)
    formats = sorted({place.format for place in places})
    if len(formats) > 1:
        raise UserError(f"{args.source} can be {' or '.join(formats)}; choose one with --format")
    if any(place.split for place in places):  # one file for each part
        names = _by_part(places)
        return [(names[name], None) for name in _chosen(args, names, list(names))]
    place, *others = places
    if others:
        found = ", ".join(str(p.annotations) for p in places)
        raise UserError(f"{args.source}: expected one data set, found {found}; name one of them")
    splits = FORMATS[place.format].splits
    found = splits(Source("", place.annotations, args.images, allow_outside=args.allow_outside)) if splits else []
    if not found:
        if args.split and len(args.split) > 1:
            raise UserError(f"--split: {args.source} has one part, found {len(args.split)} names")
        return [(place, None)]
    if place.format == "voc":
        return [(place, name) for name in _chosen(args, find_lists(place.annotations), _usual_lists(args, found))]
    return [(place, name) for name in _chosen(args, found, found)]


def _by_part(places: list[Place]) -> dict[str, Place]:
    """Return the files of a data set by the names of their parts."""
    parts: dict[str, Place] = {}
    for place in places:
        other = parts.setdefault(str(place.split), place)
        if other != place:
            both = f"{other.annotations} and {place.annotations}"
            raise UserError(f"{both} are both the part {place.split!r}; rename one of them, or convert each by itself")
    return parts


def _usual_lists(args: argparse.Namespace, found: list[str]) -> list[str]:
    """Return the lists of a VOC folder to convert where none is named; lists may name the same images.

    The list `trainval` has the images of `train` and `val`, which are taken where both exist.
    """
    whole = "trainval" in found and not {"train", "val"} <= {*found}
    usual = [name for name in (*(["trainval"] if whole else ["train", "val"]), "test") if name in found]
    if not usual:
        return found if len(found) == 1 else []
    left = [name for name in found if name not in (*usual, "train", "val", "trainval")]
    if left and not args.split:
        shown = ", ".join(left)
        logger.warning("%s: these lists are not converted: %s; name the parts with --split", args.source, shown)
    return usual


def _chosen(args: argparse.Namespace, found: Collection[str], usual: list[str]) -> list[str]:
    """Return the parts that the command line names, or else the usual ones."""
    for name in args.split or ():
        if name not in found:
            raise UserError(f"--split: {args.source} has no part {name!r}{did_you_mean(name, found)}")
    if not args.split and not usual:
        raise UserError(f"--split: name the parts of {args.source} to convert{did_you_mean('', found)}")
    return list(dict.fromkeys(args.split or usual))
