"""Masks as runs of pixels, whose memory grows with the outlines of the objects and not with the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

__all__ = ["RunLengthMasks"]

Window = tuple[slice, slice]  # of rows and of columns


class RunLengthMasks:
    """The masks of N objects in an image of any size, as runs along the columns, which is COCO's order.

    Args:
        runs: for each mask the first pixel of each run and the pixel after its last one, in turn and strictly rising;
            pixel (y, x) has the number x * height + y (integer arrays [2 * R]).
        image_size: the (height, width) of the image.
    """

    def __init__(self, runs: Sequence[np.ndarray], image_size: tuple[int, int]) -> None:
        self.runs = list(runs)
        self.image_size = tuple(image_size)

    @staticmethod
    def from_windows(windows: Sequence[tuple[Window, np.ndarray]], image_size: tuple[int, int]) -> RunLengthMasks:
        """Return masks of which each is given inside of a window.

        Args:
            windows: for each mask the rows and columns of the window and its bitmap (array [rows, columns] of bool).
            image_size: the (height, width) of the image.
        """
        return RunLengthMasks([_runs(part, bitmap, image_size[0]) for part, bitmap in windows], image_size)

    def area(self, index: int) -> int:
        """Return the number of pixels of a mask."""
        return int((self.runs[index][1::2] - self.runs[index][::2]).sum())

    def window(self, index: int) -> tuple[Window, np.ndarray]:
        """Return the rows and columns of the window around a mask, and its bitmap (array [rows, columns] of bool)."""
        runs, height = self.runs[index], self.image_size[0]
        if not len(runs):
            return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), dtype=bool)
        left, right = runs[0] // height, (runs[-1] - 1) // height + 1
        steps = np.zeros((right - left) * height + 1, dtype=np.int8)
        steps[runs[::2] - left * height] = 1
        steps[runs[1::2] - left * height] = -1
        bitmap = steps[:-1].cumsum(dtype=np.int8).reshape(right - left, height).T.astype(bool)
        rows = np.flatnonzero(bitmap.any(axis=1))
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        return (part, slice(int(left), int(right))), bitmap[part]

    def rles(self) -> list[dict[str, Any]]:
        """Return each mask in COCO's compressed run lengths: `{"size": [height, width], "counts": str}`."""
        height, width = self.image_size
        out = []
        for runs in self.runs:
            counts = np.diff(runs, prepend=0, append=height * width).tolist()
            counts = counts[:-1] if len(counts) > 1 and not counts[-1] else counts
            rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
            out.append({"size": [height, width], "counts": rle["counts"].decode("ascii")})
        return out

    def to(self, *args: Any, **kwargs: Any) -> RunLengthMasks:
        """Return the masks themselves, because they stay on the CPU."""
        return self

    @staticmethod
    def cat(masks: Sequence[RunLengthMasks]) -> RunLengthMasks:
        """Concatenate the masks of several objects of one image."""
        return RunLengthMasks([runs for m in masks for runs in m.runs], masks[0].image_size)

    def __getitem__(self, item: int | slice | Tensor) -> RunLengthMasks:
        if isinstance(item, slice):
            return RunLengthMasks(self.runs[item], self.image_size)
        index = torch.as_tensor([item] if isinstance(item, int) else item)
        rows = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return RunLengthMasks([self.runs[i] for i in rows.tolist()], self.image_size)

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the bitmaps of the whole image one after the other (arrays [height, width] of bool)."""
        for index in range(len(self)):
            part, bitmap = self.window(index)
            whole = np.zeros(self.image_size, dtype=bool)
            whole[part] = bitmap
            yield whole

    def __repr__(self) -> str:
        return f"RunLengthMasks(num_instances={len(self)}, image_size={self.image_size})"


def _runs(part: Window, bitmap: np.ndarray, height: int) -> np.ndarray:
    """Return the runs of a mask that is given in a window, see `RunLengthMasks`."""
    rows, columns = part
    padded = np.zeros((bitmap.shape[1], bitmap.shape[0] + 1), dtype=np.int8)
    padded[:, :-1] = bitmap.T
    column, row = np.diff(padded, prepend=0, axis=1).nonzero()  # where runs begin and end, by turns
    runs = (columns.start + column.astype(np.int64)) * height + rows.start + row
    if len(runs) > 2:  # A run over the whole height goes on in the next column.
        inner = np.flatnonzero(runs[1:-1:2] == runs[2::2])
        runs = np.delete(runs, [2 * inner + 1, 2 * inner + 2])
    return runs
