"""Which data sets there are: names to loading functions, and what is known about each set."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..registry import Registry

__all__ = ["DatasetCatalog", "MetadataCatalog", "Metadata", "class_names", "data_root", "is_slice"]

DatasetDicts = list[dict[str, Any]]

_SLICE = re.compile(r"(?P<name>.+)\[(?P<start>\d*):(?P<stop>\d*)\]")


def data_root() -> Path:
    """The folder of the built-in sets: `$DETECTRON2_DATASETS`, default `./datasets`; read at each call."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


class Metadata:
    """What is known about one data set, as attributes.

    Readers set `thing_classes` (names by contiguous class id), `thing_dataset_id_to_contiguous_id`,
    `evaluator_type` ("coco" or "pascal_voc"), and `json_file` with `image_root` (COCO) or `dirname`,
    `split` and `year` (VOC). What depends on files is set when the set is first loaded.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(
            f"data set {self.__dict__.get('name')!r} has no metadata {key!r} (yet); it has {sorted(self.__dict__)}"
        )

    def set(self, **values: Any) -> Metadata:
        """Set several attributes; returns itself."""
        self.__dict__.update(values)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        return self.__dict__.get(key, default)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


class _MetadataCatalog:
    """Name -> `Metadata`, made on first use."""

    def __init__(self) -> None:
        self._entries: dict[str, Metadata] = {}

    def get(self, name: str) -> Metadata:
        return self._entries.setdefault(name, Metadata(name))

    def remove(self, name: str) -> None:
        self._entries.pop(name, None)


class _DatasetCatalog(Registry):
    """Name -> function without arguments that reads the set and returns its data set dicts.

    A data set dict describes one image: `file_name`, `height`, `width`, `image_id` and `annotations`,
    a list of dicts with `bbox`, `bbox_mode`, `category_id` (contiguous) and, where the files have them,
    `iscrowd`, `segmentation`, `area`, `difficult`.

    A slice of a set is a set too: "coco_2017_train[:16]" holds its first 16 images.
    """

    def get(self, name: str, where: str = "") -> DatasetDicts:  # type: ignore[override]
        """Read the set `name`; `where` names the key or flag that asked for it.

        Raises:
            UserError: unknown name (the nearest one is suggested), an empty slice, or files missing or broken.
        """
        part = None if super().__contains__(name) else _SLICE.fullmatch(name)
        if part is None:
            return super().get(name, where)()
        whole = self.get(part["name"], where)
        MetadataCatalog.get(name).set(**MetadataCatalog.get(part["name"]).as_dict() | {"name": name})
        start, stop = (int(part[k]) if part[k] else None for k in ("start", "stop"))
        if not whole[start:stop]:
            source = f"{where}: " if where else ""
            raise UserError(f"{source}{name!r} holds nothing: {part['name']} has {len(whole)} images")
        return whole[start:stop]

    def __contains__(self, name: object) -> bool:
        part = _SLICE.fullmatch(str(name))
        return super().__contains__(name) or (part is not None and super().__contains__(part["name"]))

    def remove(self, name: str) -> None:
        """Forget a set and its metadata."""
        super().remove(name)
        MetadataCatalog.remove(name)


def is_slice(name: str) -> bool:
    """Whether `name` means a part of a set, such as "coco_2017_train[:16]"."""
    return _SLICE.fullmatch(name) is not None


def class_names(name: str, where: str = "") -> list[str]:
    """The class names of a set by contiguous id; reads the set when they are not known yet."""
    if MetadataCatalog.get(name).get("thing_classes") is None or name not in DatasetCatalog:
        DatasetCatalog.get(name, where)
    return list(MetadataCatalog.get(name).thing_classes)


def as_names(names: str | Sequence[str]) -> list[str]:
    """A name or a sequence of names as a list; an empty one is an error."""
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise UserError("no data set named: set DATASETS.TRAIN (or DATASETS.TEST) to names such as coco_2017_train")
    return names


MetadataCatalog = _MetadataCatalog()
DatasetCatalog = _DatasetCatalog("data set")
