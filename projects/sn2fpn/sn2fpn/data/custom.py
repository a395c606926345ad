"""The registration of a user's own data sets, which the configuration lists in `DATASETS.CUSTOM`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UserError, argument_names, did_you_mean
from .catalog import DatasetCatalog, MetadataCatalog
from .formats.coco import register_coco_instances
from .formats.voc import read_voc_once
from .records import Records
from .values import clean_name

__all__ = ["register_custom"]

_KEYS = {  # format -> key -> (type, required)
    "coco": {"JSON": (str, True), "IMAGES": (str, True)},
    "voc": {"ROOT": (str, True), "SPLIT": (str, True), "CLASSES": (list, False), "YEAR": (int, False)},
}
_MAY_BE_FALSE = ("YEAR", "ALLOW_OUTSIDE")
_registered: dict[str, dict[str, Any]] = {}  # by name, to tell a repeated registration from a name that is taken


def register_custom(entries: Sequence[Mapping[str, Any]], key: str = "DATASETS.CUSTOM") -> list[str]:
    """Register the data sets of `cfg.DATASETS.CUSTOM`. Their files are read when a data set is used.

    Registering the same entries again has no effect.

    Args:
        entries: mappings with NAME, FORMAT and the keys of the format. The format `coco` has JSON (the annotation file)
            and IMAGES (the folder of the images). The format `voc` has ROOT (the folder with Annotations, ImageSets and
            JPEGImages), SPLIT (a list in ImageSets/Main), CLASSES (class names in order; by default all names in the
            folder, sorted) and YEAR (2007 selects the 11-point metric; default 2012). With ALLOW_OUTSIDE True, file
            names and ids may lead outside of these folders. Paths are relative to the working directory.
        key: the key that lists the entries, for messages.

    Returns:
        The names of the data sets.

    Raises:
        UserError: a key is missing, unknown or of the wrong type, or another data set has the same name.
    """
    for i, entry in enumerate(entries):
        entry = _checked(entry, f"{key}[{i}]")
        name = entry["NAME"]
        if _registered.get(name) == entry and name in DatasetCatalog:
            continue
        if name in DatasetCatalog:
            raise UserError(f"{key}[{i}]: the NAME {name!r} is taken by another data set; choose another one")
        with argument_names({"name": f"{key}[{i}]: NAME"}):
            (_register_coco if entry["FORMAT"] == "coco" else _register_voc)(entry)
        _registered[name] = entry
    return [entry["NAME"] for entry in entries]


def _checked(entry: Any, where: str) -> dict[str, Any]:
    """Return the entry as a plain dict whose keys are all known and have the right type."""
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: expected a mapping with NAME, FORMAT and paths, found {entry!r}")
    entry = dict(entry)
    data_format = entry.get("FORMAT")
    if data_format not in _KEYS:
        found = f"unknown FORMAT {data_format!r}" if "FORMAT" in entry else f"no FORMAT in {sorted(map(str, entry))}"
        raise UserError(f"{where}: {found}{did_you_mean(str(data_format), _KEYS)}")
    keys = {"NAME": (str, True), "FORMAT": (str, True), "ALLOW_OUTSIDE": (bool, False), **_KEYS[data_format]}
    for key, value in entry.items():
        if key not in keys:
            raise UserError(f"{where}: unknown key {key!r} for format {data_format!r}{did_you_mean(key, keys)}")
        expected = keys[key][0]
        if isinstance(value, tuple):
            value = entry[key] = list(value)
        if type(value) is not expected or not (value or key in _MAY_BE_FALSE):
            raise UserError(f"{where}: {key}: expected a non-empty {expected.__name__}, found {value!r}")
    missing = [key for key, (_, required) in keys.items() if required and key not in entry]
    if missing:
        raise UserError(f"{where} ({entry.get('NAME', 'unnamed')}): format {data_format!r} needs {', '.join(missing)}")
    classes = entry.get("CLASSES", [])
    cleaned = [clean_name(c) if isinstance(c, str) else "" for c in classes]
    if not all(cleaned) or len(set(cleaned)) != len(cleaned):
        raise UserError(f"{where}: CLASSES: expected different names, found {classes}")
    return entry | {"CLASSES": cleaned} if cleaned else entry


def _register_coco(entry: dict[str, Any]) -> None:
    outside = entry.get("ALLOW_OUTSIDE", False)
    register_coco_instances(entry["NAME"], {}, entry["JSON"], entry["IMAGES"], allow_outside=outside)


def _register_voc(entry: dict[str, Any]) -> None:
    name, root, split = entry["NAME"], entry["ROOT"], entry["SPLIT"]

    def load() -> Records:
        return read_voc_once(root, split, entry.get("CLASSES"), name, allow_outside=entry.get("ALLOW_OUTSIDE", False))

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="pascal_voc", dirname=root, split=split, year=entry.get("YEAR", 2012))
    if "CLASSES" in entry:
        MetadataCatalog.get(name).set(thing_classes=list(entry["CLASSES"]))
