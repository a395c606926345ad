"""Data sets of your own, by configuration: `DATASETS.CUSTOM` names them, no code needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UserError, did_you_mean
from .catalog import DatasetCatalog, DatasetDicts, MetadataCatalog
from .coco import register_coco_instances
from .voc import find_voc_classes, load_voc_instances

__all__ = ["register_custom"]

_KEYS = {  # format -> key -> (type, required)
    "coco": {"JSON": (str, True), "IMAGES": (str, True)},
    "voc": {"ROOT": (str, True), "SPLIT": (str, True), "CLASSES": (list, False), "YEAR": (int, False)},
}
_registered: dict[str, dict[str, Any]] = {}  # by name, to tell a repetition from a clash


def register_custom(entries: Sequence[Mapping[str, Any]], key: str = "DATASETS.CUSTOM") -> list[str]:
    """Register the sets of `cfg.DATASETS.CUSTOM`; files are read when a set is used.

    Args:
        entries: mappings with NAME, FORMAT and the format's own keys. `coco`: JSON (annotation file)
            and IMAGES (folder). `voc`: ROOT (folder with Annotations, ImageSets, JPEGImages), SPLIT (list
            in ImageSets/Main), CLASSES (names in order; default: all names in the tree, sorted) and
            YEAR (2007: the 11-point metric; default 2012). Paths are relative to the working directory.
        key: where they are listed, for messages.

    Returns:
        The names. Registering the same entries again changes nothing.

    Raises:
        UserError: a missing, unknown or mistyped key, or a name that another set has.
    """
    for i, entry in enumerate(entries):
        entry = _checked(entry, f"{key}[{i}]")
        name = entry["NAME"]
        if _registered.get(name) == entry and name in DatasetCatalog:
            continue
        if name in DatasetCatalog:
            raise UserError(f"{key}[{i}]: NAME {name!r} is taken by another data set; choose another name")
        (_register_coco if entry["FORMAT"] == "coco" else _register_voc)(entry)
        _registered[name] = entry
    return [entry["NAME"] for entry in entries]


def _checked(entry: Any, where: str) -> dict[str, Any]:
    """The entry as a plain dict, with all its keys known and of the right type."""
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: expected a mapping with NAME, FORMAT and paths, found {entry!r}")
    entry = dict(entry)
    data_format = entry.get("FORMAT")
    if data_format not in _KEYS:
        found = f"unknown FORMAT {data_format!r}" if "FORMAT" in entry else f"no FORMAT among {sorted(map(str, entry))}"
        raise UserError(f"{where}: {found}{did_you_mean(str(data_format), _KEYS)}")
    keys = {"NAME": (str, True), "FORMAT": (str, True), **_KEYS[data_format]}
    for key, value in entry.items():
        if key not in keys:
            raise UserError(f"{where}: unknown key {key!r} for format {data_format!r}{did_you_mean(key, keys)}")
        expected = keys[key][0]
        if isinstance(value, tuple):
            value = entry[key] = list(value)
        if type(value) is not expected or not (value or key == "YEAR"):
            raise UserError(f"{where}: {key} expects a non-empty {expected.__name__}, found {value!r}")
    missing = [key for key, (_, required) in keys.items() if required and key not in entry]
    if missing:
        raise UserError(f"{where} ({entry.get('NAME', 'unnamed')}): format {data_format!r} needs {', '.join(missing)}")
    classes = entry.get("CLASSES", [])
    if not all(isinstance(c, str) for c in classes) or len(set(classes)) != len(classes):
        raise UserError(f"{where}: CLASSES expects different names, found {classes}")
    return entry


def _register_coco(entry: dict[str, Any]) -> None:
    register_coco_instances(entry["NAME"], {}, entry["JSON"], entry["IMAGES"])


def _register_voc(entry: dict[str, Any]) -> None:
    name, root, split = entry["NAME"], entry["ROOT"], entry["SPLIT"]

    def load() -> DatasetDicts:
        classes = entry.get("CLASSES") or find_voc_classes(root)
        MetadataCatalog.get(name).set(thing_classes=classes)
        return load_voc_instances(root, split, classes, name)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="pascal_voc", dirname=root, split=split, year=entry.get("YEAR", 2012))
    if "CLASSES" in entry:
        MetadataCatalog.get(name).set(thing_classes=list(entry["CLASSES"]))
