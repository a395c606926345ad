"""The catalogs of data sets: how each data set is read, and what is known about it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, UserError, counted, did_you_mean
from ..registry import Registry
from .given import check_given
from .records import DatasetDicts, Records
from .values import clean_name

__all__ = [
    "DatasetCatalog",
    "Metadata",
    "MetadataCatalog",
    "as_names",
    "category_ids",
    "check_registered",
    "class_names",
    "data_root",
    "is_slice",
    "share_images",
]

_SLICE = re.compile(r"(?P<name>.+)\[(?P<start>\d{0,18}):(?P<stop>\d{0,18})\]")


def data_root() -> Path:
    """Return the folder of the built-in data sets, `$DETECTRON2_DATASETS` or else `./datasets`."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


class Metadata:
    """The metadata of one data set, as attributes.

    Readers set `thing_classes` (class names by contiguous id), `thing_dataset_id_to_contiguous_id`, `evaluator_type`
    ("coco" or "pascal_voc"), and `json_file` with `image_root` (COCO) or `dirname`, `split` and `year` (VOC). Values
    that are read from files are set when the data set is loaded for the first time.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(
            f"data set {self.__dict__.get('name')!r} has no metadata {key!r} (yet); it has {sorted(self.__dict__)}"
        )

    def set(self, **values: Any) -> Metadata:
        """Set several attributes and return the object itself."""
        self.__dict__.update(values)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        return self.__dict__.get(key, default)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


class _MetadataCatalog:
    """A catalog of the `Metadata` of data sets by name. Metadata is created on first use."""

    def __init__(self) -> None:
        self._entries: dict[str, Metadata] = {}

    def get(self, name: str) -> Metadata:
        return self._entries.setdefault(name, Metadata(name))

    def remove(self, name: str) -> None:
        """Forget the metadata of a data set, if there is any."""
        self._entries.pop(name, None)

    def pop(self, name: str) -> Metadata:
        """Forget the metadata of a data set and return it.

        Raises:
            UserError: there is none.
        """
        if name not in self._entries:
            raise UserError(f"there is no metadata of data set {name!r}{did_you_mean(name, self._entries)}")
        return self._entries.pop(name)

    def clear(self) -> None:
        """Forget the metadata of all data sets."""
        self._entries.clear()

    def list(self) -> list[str]:
        """Return the names of all data sets that have metadata."""
        return [*self._entries]

    def __contains__(self, name: object) -> bool:
        return name in self._entries


class _DatasetCatalog(Registry):
    """A catalog of data sets by name: functions without arguments that return data set dicts.

    A data set dict describes one image: `file_name`, `height`, `width`, `image_id` and `annotations`. The annotations
    are a list of dicts with `bbox`, `bbox_mode`, `category_id` (contiguous) and, if the files have them, `iscrowd`,
    `segmentation`, `area` and `difficult`. Without the key `annotations`, an image is good for prediction only.

    A slice of a data set is a data set too: "coco_2017_train[:16]" holds its first 16 images.
    """

    def register(self, name: str, obj: Any = None) -> Any:
        """Register a function as the data set `name`, which names a folder of results; see `Registry.register`.

        Raises:
            ArgumentError: the name cannot name a folder inside another one, or is taken.
        """
        if not name.strip(" .") or name != clean_name(name) or set("/\\") & set(name) or len(name.encode()) > 200:
            expected = "expected at most 200 bytes on one line, without slashes and not only dots"
            raise ArgumentError("name", f"{name!r} cannot be the name of a data set, which names a folder; {expected}")
        return super().register(name, obj)

    def get(self, name: str, where: str = "") -> DatasetDicts:  # type: ignore[override]
        """Read the data set `name` as a list; `where` is the key or flag that the name came from.

        Raises:
            UserError: the name is unknown, a slice is empty, files are missing or broken, or a function of the user's
                own returns a box or a class that no model can be trained on, or an image id twice.
        """
        records = self.read(name, where)
        return records.to_list() if isinstance(records, Records) else records

    def read(self, name: str, where: str = "") -> Records | DatasetDicts:
        """Read the data set `name`, whose records must not be changed; see `get`.

        Returns:
            The records as bytes if the data set was registered with a reader of this package, which reads unchanged
            files once. Otherwise a list of what the registered function returns; see `check_given`.
        """
        part = None if super().__contains__(name) else _SLICE.fullmatch(name)
        if part is None:
            records = super().get(name, where)()
            # The readers of this package have checked theirs.
            return records if isinstance(records, Records) else _checked(records, name, where)
        whole = self.read(part["name"], where)
        MetadataCatalog.get(name).set(**MetadataCatalog.get(part["name"]).as_dict() | {"name": name})
        start, stop = (int(part[k]) if part[k] else None for k in ("start", "stop"))
        if not whole[start:stop]:
            source = f"{where}: " if where else ""
            raise UserError(f"{source}{name!r} is empty: {part['name']} has {counted(len(whole), 'image')}")
        return whole[start:stop]

    def __contains__(self, name: object) -> bool:
        part = _SLICE.fullmatch(str(name))
        return super().__contains__(name) or (part is not None and super().__contains__(part["name"]))

    def remove(self, name: str) -> None:
        """Remove a data set and its metadata."""
        super().remove(name)
        MetadataCatalog.remove(name)

    def pop(self, name: str) -> Callable[[], DatasetDicts | Records]:
        """Remove a data set, keep its metadata, and return its function, so that it can be registered again.

        Raises:
            UserError: there is no such data set.
        """
        function = super().get(name)
        super().remove(name)
        return function

    def clear(self) -> None:
        """Remove all data sets and their metadata, also those that this package registers itself."""
        for name in self.list():
            self.remove(name)

    def list(self) -> list[str]:
        """Return the names of all data sets."""
        return [*self]


def _checked(records: Any, name: str, where: str) -> DatasetDicts:
    """Return what a function of the user's own has returned, after its check."""
    names = MetadataCatalog.get(name).get("thing_classes")
    source = f"{where}: data set {name!r}" if where else f"data set {name!r}"
    return check_given(records, None if names is None else range(len(names)), source)


def is_slice(name: str) -> bool:
    """Return whether a name means a part of a data set, such as "coco_2017_train[:16]"."""
    return _SLICE.fullmatch(name) is not None


def whole_name(name: str) -> str:
    """Return the data set that a name means a part of, which is the name itself if it is no slice."""
    return _part(name)[0]


def share_images(one: str, other: str) -> bool:
    """Return whether two names of data sets or slices mean some of the same images of one data set."""
    (name, start, stop), (other_name, other_start, other_stop) = _part(one), _part(other)
    return name == other_name and max(start, other_start) < min(stop, other_stop)


def _part(name: str) -> tuple[str, int, float]:
    """Return the data set that a name means, and the indices of the first of its images and of the one after them."""
    part = _SLICE.fullmatch(name)
    if part is None:
        return name, 0, math.inf
    return part["name"], int(part["start"] or 0), int(part["stop"]) if part["stop"] else math.inf


def check_registered(name: str, where: str = "") -> None:
    """Raise a UserError unless `name` is a data set or a slice of one; nothing is read. See `class_names`."""
    if name not in DatasetCatalog:
        DatasetCatalog.get(name, where)


def class_names(name: str, where: str = "") -> list[str]:
    """Return the class names of a data set by contiguous id. The data set is read if they are not known yet."""
    if MetadataCatalog.get(name).get("thing_classes") is None or name not in DatasetCatalog:
        DatasetCatalog.read(name, where)
    names = MetadataCatalog.get(name).get("thing_classes")
    if names is None:
        source = f"{where}: " if where else ""
        raise UserError(
            f"{source}the class names of data set {name!r} are not known; "
            f"set them with MetadataCatalog.get({name!r}).set(thing_classes=[…])"
        )
    return [clean_name(n) for n in names]


def category_ids(name: str) -> list[int]:
    """Return a data set's own category ids in the order of the contiguous class ids."""
    classes, own_ids = class_names(name), MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id")
    if not own_ids:
        return list(range(len(classes)))
    return [own_id for own_id, _ in sorted(own_ids.items(), key=lambda item: item[1])]


def as_names(names: str | Sequence[str], where: str = "") -> list[str]:
    """Return one name or several names of data sets as a list.

    Raises:
        ArgumentError: there is no name; `where` is the key or flag that should hold it (default: "names").
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ArgumentError(where or "names", "expected the name of a data set, such as 'coco_2017_train', found none")
    return names


MetadataCatalog = _MetadataCatalog()
DatasetCatalog = _DatasetCatalog("data set")
