"""The masks of the objects in an image as polygons, bitmaps and COCO's run lengths (RLE)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401 - brings the operator of RoIAlign
from pycocotools import mask as coco_mask
from torch import Tensor

from .boxes import Boxes
from .run_lengths import RunLengthMasks

__all__ = ["BitMasks", "PolygonMasks", "masks_to_rle", "polygons_to_bitmask"]

_FAR_PX = 1e6  # pycocotools walks along the edges in 32-bit steps, and crashes where they are too long

Index = int | slice | list[int] | Tensor


class PolygonMasks:
    """The masks of N objects, each as the union of polygons `[x0, y0, x1, y1, ...]` in pixels.

    Args:
        polygons: the list of polygons of each object, which are stored in float64. An object without polygons has an
            empty mask.

    Raises:
        ValueError: the lists are not nested in this way, or a polygon has fewer than three points.
    """

    def __init__(self, polygons: list[list[np.ndarray | Sequence[float]]]) -> None:
        if not isinstance(polygons, list) or not all(isinstance(p, list) for p in polygons):
            raise ValueError("polygons: expected a list of objects, each of which is a list of polygons")
        self.polygons = [[np.asarray(p, dtype=np.float64).reshape(-1) for p in of_object] for of_object in polygons]
        for p in itertools.chain.from_iterable(self.polygons):
            if len(p) % 2 or len(p) < 6:
                raise ValueError(f"polygons: expected x and y of 3 or more points, found {len(p)} numbers")

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """Return the masks themselves, because polygons stay on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def area(self) -> Tensor:
        """Return the sum of the areas of each object's polygons in square pixels (Tensor[N], float64)."""
        return torch.tensor([sum(map(_polygon_area, of_object)) for of_object in self.polygons], dtype=torch.float64)

    def nonempty(self) -> Tensor:
        """Return whether each object has a polygon (Tensor[N], bool)."""
        return torch.tensor([len(of_object) > 0 for of_object in self.polygons], dtype=torch.bool)

    def get_bounding_boxes(self) -> Boxes:
        """Return the tight box around each mask, which is zero for an empty mask."""
        boxes = np.zeros((len(self), 4), dtype=np.float32)
        for box, of_object in zip(boxes, self.polygons):
            if of_object:
                points = np.concatenate(of_object).reshape(-1, 2)
                box[:2], box[2:] = points.min(0), points.max(0)
        return Boxes(torch.from_numpy(boxes))

    def crop_and_resize(self, boxes: Tensor, mask_size: int, index: Tensor | None = None) -> Tensor:
        """Draw the part of a mask that lies in each box on a square grid, which gives the targets of a mask head.

        Args:
            boxes (Tensor[K, 4]): the boxes `(x1, y1, x2, y2)`.
            mask_size: side S of the grid.
            index (Tensor[K]): the index of the mask of each box; None means that there is one box per mask.

        Returns:
            The grids (Tensor[K, S, S], bool) on the device of the boxes.
        """
        rows = _rows(self, boxes, index)
        out = np.empty((len(boxes), mask_size, mask_size), dtype=bool)
        for grid, row, box in zip(out, rows.tolist(), boxes.cpu().numpy()):
            corner, scale = box[:2], mask_size / np.maximum(box[2:] - box[:2], np.float32(0.1))
            moved = [((p.reshape(-1, 2) - corner) * scale).reshape(-1) for p in self.polygons[row]]
            grid[:] = polygons_to_bitmask(moved, mask_size, mask_size)
        return torch.from_numpy(out).to(boxes.device)

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """Concatenate the masks of several objects."""
        return PolygonMasks([of_object for masks in polymasks_list for of_object in masks.polygons])

    def __getitem__(self, item: Index) -> PolygonMasks:
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        index = torch.as_tensor([item] if isinstance(item, int) else item)
        rows = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return PolygonMasks([self.polygons[i] for i in rows.tolist()])

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"


class BitMasks:
    """The masks of N objects as bitmaps of the size of the image.

    Args:
        tensor: the bitmaps, which are True inside the objects ([N, H, W]).

    Raises:
        ValueError: the tensor has another shape.
    """

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        self.tensor = torch.as_tensor(tensor).to(torch.bool)
        if self.tensor.dim() != 3:
            raise ValueError(f"tensor: expected the shape (N, H, W), found {tuple(self.tensor.shape)}")

    @property
    def image_size(self) -> tuple[int, int]:
        """The (height, width) of the image."""
        return self.tensor.shape[1], self.tensor.shape[2]

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        """Return the masks on a device."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def nonempty(self) -> Tensor:
        """Return whether each mask has a pixel (Tensor[N], bool)."""
        return self.tensor.flatten(1).any(dim=1)

    def get_bounding_boxes(self) -> Boxes:
        """Return the tight box around the outer edges of each mask's pixels, which is zero for an empty mask."""
        ends = [_first_and_end(self.tensor.any(dim)) for dim in (1, 2)]  # of columns, of rows
        return Boxes(torch.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], dim=1).to(torch.float32))

    def crop_and_resize(self, boxes: Tensor, mask_size: int, index: Tensor | None = None) -> Tensor:
        """Sample the part of a mask that lies in each box on a square grid, as RoIAlign with a threshold of 0.5.

        Args:
            boxes (Tensor[K, 4]): the boxes `(x1, y1, x2, y2)`.
            mask_size: side S of the grid.
            index (Tensor[K]): the index of the mask of each box; None means that there is one box per mask.

        Returns:
            The grids (Tensor[K, S, S], bool) on the device of the masks.
        """
        boxes = boxes.to(self.device)
        rois = torch.cat([_rows(self, boxes, index)[:, None].to(boxes), boxes], dim=1)
        maps = self.tensor[:, None].to(torch.float32)
        # The operator itself: with deterministic algorithms on a GPU, `torchvision.ops.roi_align` takes another way,
        # which needs far more time and memory for boxes of this size.
        grids = torch.ops.torchvision.roi_align(maps, rois, 1.0, mask_size, mask_size, 0, True)
        return grids[:, 0] >= 0.5

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | Sequence[Sequence[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Draw polygons on an image of (height, width)."""
        masks = [polygons_to_bitmask(list(of_object), height, width) for of_object in polygon_masks]
        return BitMasks(np.stack(masks) if masks else np.empty((0, height, width), dtype=bool))

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """Concatenate the masks of several objects."""
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list]))

    def __getitem__(self, item: Index) -> BitMasks:
        picked = self.tensor[item]
        return BitMasks(picked[None] if isinstance(item, int) else picked)

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)}, image_size={self.image_size})"


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Draw the union of polygons `[x0, y0, x1, y1, ...]` as COCO's tools do (array [height, width] of bool).

    Raises:
        ValueError: a coordinate is not finite.
    """
    if not len(polygons):
        return np.zeros((height, width), dtype=bool)  # pycocotools takes no empty list.
    if not all(np.isfinite(p).all() for p in polygons):
        raise ValueError("polygons: expected finite coordinates")
    near = [np.clip(p, -_FAR_PX, _FAR_PX) for p in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(near, height, width))).astype(bool)


def masks_to_rle(masks: Tensor | RunLengthMasks) -> list[dict[str, Any]]:
    """Return each mask in COCO's compressed run lengths: `{"size": [height, width], "counts": str}`.

    Args:
        masks (bool Tensor[N, H, W]): the masks, or runs of them.
    """
    if isinstance(masks, RunLengthMasks):
        return masks.rles()
    out = []
    for mask in masks:
        columns = mask.t().contiguous().cpu().numpy().view(np.uint8)  # COCO counts along the columns.
        rle = coco_mask.encode(columns.T)
        out.append({"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")})
    return out


def _polygon_area(polygon: np.ndarray) -> float:
    """Return the area of a polygon by the shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def _first_and_end(any_there: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the first True of each row and one past the last, or 0 and 0 where there is none."""
    there = any_there.to(torch.int8)
    end = any_there.shape[1] - there.flip(1).argmax(1) if any_there.shape[1] else there.sum(1)
    return there.argmax(1), torch.where(any_there.any(1), end, 0)


def _rows(masks: PolygonMasks | BitMasks, boxes: Tensor, index: Tensor | None) -> Tensor:
    """Return `index`, or by default every mask once, after a check of its length."""
    expected = len(masks) if index is None else len(index)
    if len(boxes) != expected:
        raise ValueError(f"boxes: expected one for each of {expected} masks, found {len(boxes)}")
    return torch.arange(len(masks), device=boxes.device) if index is None else index
