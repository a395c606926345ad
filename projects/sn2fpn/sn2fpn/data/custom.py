"""The registration of a user's own data sets, which the configuration lists in `DATASETS.CUSTOM`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.own_sets import named_entries
from ..errors import UserError, argument_names, did_you_mean, shortened
from ..signatures import type_words
from .catalog import DatasetCatalog, MetadataCatalog
from .formats import AUTO, FORMATS, Place, Source, find_places
from .formats.source import clean_names
from .problems import log_once
from .readings import read_once
from .records import Records

__all__ = ["is_custom", "register_custom"]

logger = logging.getLogger(__name__)

_LISTED = 8  # number of files that a message names
_TYPES: dict[str, type] = {
    **dict.fromkeys(("NAME", "FORMAT", "ANNOTATIONS", "IMAGES", "SPLIT"), str),
    **{"CLASSES": list, "YEAR": int, "ALLOW_OUTSIDE": bool},
}
_OTHER_NAMES = {"coco": {"JSON": "ANNOTATIONS"}, "lvis": {"JSON": "ANNOTATIONS"}, "voc": {"ROOT": "ANNOTATIONS"}}
_MAY_BE_FALSE = ("YEAR", "ALLOW_OUTSIDE")
_ALWAYS = ("NAME", "FORMAT", "ANNOTATIONS", "ALLOW_OUTSIDE")
_NEEDED = {
    "NAME": "by which DATASETS.TRAIN and DATASETS.TEST name the data set",
    "ANNOTATIONS": "the annotation file or the folder that holds the data set",
}
_registered: dict[str, dict[str, Any]] = {}  # by name, to tell a repeated registration from a name that is taken


def register_custom(
    entries: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]], key: str = "DATASETS.CUSTOM"
) -> list[str]:
    """Register the data sets of `cfg.DATASETS.CUSTOM`. Their files are read when a data set is used.

    Registering the same entries again has no effect.

    Args:
        entries: mappings with NAME, FORMAT and the keys of the format, or a mapping from names to such mappings without
            NAME. ANNOTATIONS is the annotation file or the folder that holds the data set, and IMAGES the folder of the
            images, which most formats find by themselves. SPLIT names a part of the data set (`voc`, `yolo`, `cvat`),
            and CLASSES lists the class names in order for formats that do not (`voc`, `labelme`, `cvat`). FORMAT is a
            key of `sn2fpn.data.formats.FORMATS`, or `auto` (the default) for the one that ANNOTATIONS looks like. In
            the format `coco`, JSON is another name of ANNOTATIONS, as ROOT is in the format `voc`, whose YEAR 2007
            selects the 11-point metric (default 2012). With ALLOW_OUTSIDE True, file names and ids may lead outside of
            the folder of the images. Paths are relative to the working directory.
        key: the key that lists the entries, for messages.

    Returns:
        The names of the data sets.

    Raises:
        UserError: a key is missing, unknown or of the wrong type, another data set has the same name, or the format is
            not recognised.
    """
    names = []
    for i, given in enumerate(named_entries(entries, key)):
        where = _place(given, key, i)
        entry = _checked(given, where)
        name = entry["NAME"]
        names.append(name)
        if _registered.get(name) == entry and name in DatasetCatalog:
            continue
        if name in DatasetCatalog:
            raise UserError(f"{where}: the NAME {name!r} is taken by another data set; choose another one")
        with argument_names({"name": f"{where}: NAME"}):
            _register(entry, where)
        _registered[name] = entry
    return names


def is_custom(name: str) -> bool:
    """Return whether a data set was registered by `register_custom`."""
    return name in _registered and name in DatasetCatalog


def _place(entry: Any, key: str, index: int) -> str:
    """Return the key of an entry for messages, with its name or else its number in the list."""
    name = entry.get("NAME") if isinstance(entry, Mapping) else None
    known = isinstance(name, str) and name.strip() and name.isprintable()
    return f"{key} ({shortened(name, 80)})" if known else f"{key}[{index}]"


def _checked(given: Any, where: str) -> dict[str, Any]:
    """Return the entry as a plain dict whose keys are all known and have the right type."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: expected a mapping with NAME and ANNOTATIONS, found {given!r}")
    entry = {"FORMAT": AUTO, **given}
    data_format = entry["FORMAT"]
    if data_format not in (AUTO, *FORMATS):
        raise UserError(f"{where}: unknown FORMAT {data_format!r}{did_you_mean(str(data_format), (AUTO, *FORMATS))}")
    if data_format == AUTO:  # a key that belongs to one format says which one it is
        data_format = next((f for f, names in (("coco", "JSON"), ("voc", "ROOT")) if names in entry), AUTO)
    other = _OTHER_NAMES.get(data_format, {})
    known = (*_ALWAYS, *(FORMATS[data_format].keys if data_format in FORMATS else _TYPES), *other)
    if data_format in ("coco", "lvis"):
        known += ("SPLIT",)  # for a folder of such files; `_found` refuses it for a file
    for name, value in entry.items():
        if name not in known:
            of_format = "" if data_format == AUTO else f" for format {data_format!r}"
            raise UserError(f"{where}: unknown key {name!r}{of_format}{did_you_mean(name, known)}")
        if isinstance(value, tuple):
            value = entry[name] = list(value)
        expected = _TYPES[other.get(name, name)]
        if type(value) is not expected or not (value or name in _MAY_BE_FALSE):
            empty = " that is not empty" if type(value) is expected else ""
            raise UserError(f"{where}: {name}: expected {type_words(expected)}{empty}, found {value!r}")
    if len({other.get(name, name) for name in entry}) < len(entry):
        raise UserError(f"{where}: {' and '.join(other)} and ANNOTATIONS are the same key; give one of them")
    entry = {other.get(name, name): value for name, value in entry.items()}
    for name, meaning in _NEEDED.items():
        if name not in entry:
            raise UserError(f"{where}: expected {name}, {meaning}; found the keys {', '.join(given)}")
    if "CLASSES" in entry:
        entry["CLASSES"] = clean_names(entry["CLASSES"], f"{where}: CLASSES")
    return entry


def _register(entry: dict[str, Any], where: str) -> None:
    """Register a checked entry, whose format and file may have to be found."""
    name, path = entry["NAME"], Path(entry["ANNOTATIONS"])
    place = _found(entry, where) if path.exists() else None
    DatasetCatalog.register(name, lambda: _read(entry, place, where))
    known = place or (Place(entry["FORMAT"], path) if entry["FORMAT"] != AUTO else None)
    if known:
        _describe(entry, known)


def _describe(entry: Mapping[str, Any], place: Place) -> None:
    """Set what is known of a data set before it is read."""
    metadata = MetadataCatalog.get(entry["NAME"])
    metadata.set(evaluator_type="pascal_voc" if place.format == "voc" else "coco")
    if place.format == "coco":
        metadata.set(json_file=str(place.annotations))
        if "IMAGES" in entry:
            metadata.set(image_root=entry["IMAGES"])
    elif place.format == "voc":
        metadata.set(dirname=entry["ANNOTATIONS"], split=entry.get("SPLIT"), year=entry.get("YEAR", 2012))
    if "CLASSES" in entry:
        metadata.set(thing_classes=list(entry["CLASSES"]))


def _read(entry: dict[str, Any], place: Place | None, where: str) -> Records:
    if place is None:  # when it was registered, there was no such file
        place = _found(entry, where)
        _describe(entry, place)
    if entry["FORMAT"] == AUTO:  # not when it is registered, which a program does before it sets up its log
        title = f"{FORMATS[place.format].title} (FORMAT {place.format})"
        log_once(logger, f"{entry['NAME']}: {entry['ANNOTATIONS']} is recognised as {title}")
    source = Source(
        entry["NAME"],
        place.annotations,
        Path(entry["IMAGES"]) if "IMAGES" in entry else None,
        None if place.split is not None else entry.get("SPLIT"),
        tuple(entry["CLASSES"]) if "CLASSES" in entry else None,
        entry.get("ALLOW_OUTSIDE", False),
    )
    names = {key: f"{where}: {key}" for key in _TYPES}
    with argument_names(names):
        return read_once(entry["NAME"], FORMATS[place.format].read, source)


def _found(entry: Mapping[str, Any], where: str) -> Place:
    """Return the format and the file that the annotations of an entry stand for.

    Raises:
        UserError: they stand for none or several, or the entry has keys that are not for this format.
    """
    path, split = Path(entry["ANNOTATIONS"]), entry.get("SPLIT")
    try:
        places = find_places(path, entry["FORMAT"], split)
    except UserError as e:
        raise UserError(f"{where}: {e}") from None
    formats = sorted({place.format for place in places})
    if len(places) > 1:
        found = [f"{FORMATS[p.format].title} ({p.annotations})" for p in places]
        shown = ", ".join(found[:_LISTED]) + (f", … ({len(found)} in all)" if len(found) > _LISTED else "")
        advice = f"set FORMAT to {' or '.join(formats)}" if len(formats) > 1 else "name one of the files as ANNOTATIONS"
        raise UserError(f"{where}: {path} can be {shown}; {advice}")
    place = places[0]
    known = (*_ALWAYS, *FORMATS[place.format].keys, *(["SPLIT"] if place.split else []))
    unknown = next((name for name in entry if name not in known), None)
    if unknown is not None:
        how = "is recognised" if entry["FORMAT"] == AUTO else "is read"
        title = f"{path} {how} as {FORMATS[place.format].title}"
        raise UserError(f"{where}: {title}, which has no {unknown}{did_you_mean(unknown, known)}")
    return place
