"""This project's data sets in Detectron2's catalogs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog as TheirCatalog
from detectron2.data import MetadataCatalog as TheirMetadata
from detectron2.structures import BoxMode

from ...data import DatasetCatalog, MetadataCatalog
from ...data import register_custom as _register_ours
from ...data.catalog import is_slice

__all__ = ["register_custom", "share_dataset"]


def register_custom(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Register the data sets of `cfg.DATASETS.CUSTOM` in both catalogs and return their names.

    Raises:
        UserError: see `sn2fpn.data.register_custom`.
    """
    names = _register_ours(entries)
    for name in names:
        share_dataset(name)
    return names


def share_dataset(name: str) -> None:
    """Register a data set of this project in Detectron2's catalogs, unless they have its name; files are read later.

    Args:
        name: name of the data set, or of a slice such as "shapes_train[:16]".
    """
    if name not in TheirCatalog:
        TheirCatalog.register(name, partial(_load, name))
        _share_metadata(name)


def _load(name: str) -> list[dict[str, Any]]:
    records = DatasetCatalog.get(name)
    _share_metadata(name)
    return [
        {**r, "annotations": [a | {"bbox_mode": BoxMode(a["bbox_mode"])} for a in r["annotations"]]}
        if "annotations" in r
        else r
        for r in records
    ]


def _share_metadata(name: str) -> None:
    """Copy the metadata that are known now; those that depend on files follow when the files are read."""
    known = {k: v for k, v in MetadataCatalog.get(name).as_dict().items() if k != "name"}
    if is_slice(name):
        known.pop("json_file", None)  # holds the whole data set; without it, Detectron2 evaluates what it has read
    if "year" in known:  # chooses one of two metrics; Detectron2 knows these two years only
        known["year"] = 2007 if known["year"] == 2007 else 2012
    TheirMetadata.get(name).set(**known)
