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
from ...data.custom import is_custom
from ...errors import UserError

__all__ = ["is_shared", "register_custom", "share_dataset", "share_metadata"]

_shared: set[str] = set()


def register_custom(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Register the data sets of `cfg.DATASETS.CUSTOM` in both catalogs and return their names.

    Raises:
        UserError: see `sn2fpn.data.register_custom`; or Detectron2 has a data set of this name.
    """
    names = _register_ours(entries)
    for name in names:
        if name in TheirCatalog and not is_shared(name):
            raise UserError(
                f"DATASETS.CUSTOM ({name}): the NAME {name!r} is taken by a data set of Detectron2; choose another one"
            )
        share_dataset(name)
    return names


def is_shared(name: str) -> bool:
    """Return whether Detectron2 reads a data set by this project's reader."""
    return name in _shared and name in TheirCatalog


def share_dataset(name: str) -> None:
    """Register a data set of this project in Detectron2's catalogs, unless they have its name; files are read later.

    Args:
        name: name of the data set, or of a slice such as "shapes_train[:16]".
    """
    if name not in TheirCatalog:
        TheirCatalog.register(name, partial(_load, name))
        _shared.add(name)
        share_metadata(name)


def _load(name: str) -> list[dict[str, Any]]:
    records = DatasetCatalog.get(name)
    share_metadata(name)
    return [
        {**r, "annotations": [a | {"bbox_mode": BoxMode(a["bbox_mode"])} for a in r["annotations"]]}
        if "annotations" in r
        else r
        for r in records
    ]


def share_metadata(name: str) -> None:
    """Copy what is known of a data set to Detectron2's catalog; what depends on files is known when they are read."""
    metadata = MetadataCatalog.get(name).as_dict()
    known = {key: value for key, value in metadata.items() if key != "name" and value is not None}
    if is_slice(name) or is_custom(name):
        # Detectron2 evaluates what it has read where there is no file, which would hold the whole data set, or objects
        # that readers repair or skip.
        known.pop("json_file", None)
    if "year" in known:  # chooses one of two metrics; Detectron2 knows these two years only
        known["year"] = 2007 if known["year"] == 2007 else 2012
    vars(TheirMetadata.get(name)).update(known)  # without Detectron2's refusal of files that have changed since
