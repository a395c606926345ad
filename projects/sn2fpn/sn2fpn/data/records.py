"""Data set dicts in the form of bytes, which worker processes share."""

from __future__ import annotations

import gc
import io
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np

__all__ = ["DatasetDicts", "Records", "paused_collection"]

DatasetDicts = list[dict[str, Any]]


class Records(Sequence[dict[str, Any]]):
    """An unchangeable sequence of data set dicts that is stored as bytes; each access makes new dicts.

    Reading a Python object changes its reference count, so that forked workers copy the memory that it lies in. Bytes
    stay shared. Parts of a sequence, and sequences that are joined, share the bytes of those that they come from. The
    masks of an image lie behind its other values, so that these are read alone where masks are not needed.

    Args:
        buffers: arrays of bytes.
        places: (N, 4) int64, for each image the index of its buffer, and where its dict and its masks start and end.
        with_masks: whether the annotations have their `segmentation`.
    """

    def __init__(self, buffers: Sequence[np.ndarray], places: np.ndarray, with_masks: bool = True) -> None:
        self._buffers, self._places, self._with_masks = list(buffers), places, with_masks

    @classmethod
    def of(cls, dataset_dicts: Iterable[dict[str, Any]], with_masks: bool = True) -> Records:
        """Return data set dicts as bytes, with or without their masks; a sequence of bytes is not copied."""
        if isinstance(dataset_dicts, cls):
            return dataset_dicts if with_masks else dataset_dicts.without_masks()
        file, places = io.BytesIO(), []
        for record in dataset_dicts:
            start = file.tell()
            bare, masks = _split(record)
            file.write(pickle.dumps(bare, protocol=-1))
            middle = file.tell()
            if masks and with_masks:
                file.write(pickle.dumps(masks, protocol=-1))
            places.append((0, start, middle, file.tell()))
        return cls([np.frombuffer(file.getbuffer(), np.uint8)], np.array(places, np.int64).reshape(-1, 4), with_masks)

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """Return one sequence after the other."""
        if len(parts) == 1:
            return parts[0]
        first = np.cumsum([0, *(len(part._buffers) for part in parts)])
        places = [np.add(part._places, [offset, 0, 0, 0]) for part, offset in zip(parts, first)]
        buffers = [buffer for part in parts for buffer in part._buffers]
        return cls(buffers, np.concatenate(places), all(part._with_masks for part in parts))

    def without_masks(self) -> Records:
        """Return the same images, whose annotations have no `segmentation`."""
        return Records(self._buffers, self._places, with_masks=False)

    def select(self, indices: Sequence[int]) -> Records:
        """Return the images at some positions, in the order of these."""
        return Records(self._buffers, self._places[np.asarray(indices, np.int64)], self._with_masks)

    def replaced(self, changed: Mapping[int, dict[str, Any]]) -> Records:
        """Return the images with other data set dicts at some positions."""
        if not changed:
            return self
        indices = np.arange(len(self))
        indices[list(changed)] = len(self) + np.arange(len(changed))
        return Records.joined([self, Records.of(changed.values(), self._with_masks)]).select(indices)

    def to_list(self) -> DatasetDicts:
        """Return all data set dicts, which the caller may change."""
        with paused_collection():
            return list(self)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Records:
        if isinstance(index, slice):
            return Records(self._buffers, self._places[index], self._with_masks)
        buffer, start, middle, end = self._places[index].tolist()
        data = memoryview(self._buffers[buffer])
        record = pickle.loads(data[start:middle])  # the bytes that `of` has written
        if self._with_masks and middle < end:
            for i, mask in pickle.loads(data[middle:end]).items():
                record["annotations"][i]["segmentation"] = mask
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(len(self)))


def _split(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[int, Any]]:
    """Return a data set dict without masks, and its masks by the positions of their annotations."""
    annotations = record.get("annotations") or ()
    masks = {i: a["segmentation"] for i, a in enumerate(annotations) if "segmentation" in a}
    if not masks:
        return record, masks
    bare = [{k: v for k, v in a.items() if k != "segmentation"} for a in annotations]
    return {**record, "annotations": bare}, masks


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause the search for cyclic garbage, which takes 40 % of the time where millions of dicts are made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
