"""Geometric augmentation: augmentations draw random transforms, which move images, masks, boxes and polygons.

An augmentation has a method `plan(size, rng)` that receives the image's size and a random generator and returns a
transform, or None to leave the image as it is. A transform holds no randomness, so that the same transform is applied
to the image and to everything that is annotated in it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..errors import ArgumentError, argument_names, check_choice

__all__ = [
    "Resize",
    "Flip",
    "Crop",
    "TransformList",
    "ResizeShortestEdge",
    "RandomFlip",
    "RandomCrop",
    "plan_transforms",
    "build_augmentations",
]

Size = tuple[int, int]  # (height, width)
Polygons = list[np.ndarray]  # each (K, 2), (x, y) in pixels


class Transform(Protocol):
    """The interface of a transform: it moves an image and its annotations."""

    def output_size(self, size: Size) -> Size:
        """Return the size of the transformed image for an image of this size."""

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Transform an image of shape (H, W) or (H, W, C)."""

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        """Transform an (H, W) array of labels without mixing their values."""

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Transform (N, 4) boxes (x1, y1, x2, y2) without clipping them."""

    def apply_polygons(self, polygons: Polygons) -> Polygons:
        """Transform polygons of shape (K, 2) each."""


@dataclass(frozen=True)
class Resize:
    """A change of size from `old` to `new` (height, width).

    Images of type uint8 are resized with PIL's antialiased bilinear filter, as in Detectron2.
    """

    old: Size
    new: Size

    def output_size(self, size: Size) -> Size:
        return self.new

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        if image.shape[:2] == self.new:
            return image
        if image.dtype == np.uint8:
            return self._pil(image, Image.Resampling.BILINEAR)
        # PIL resizes 8-bit images only. Other types are interpolated without antialiasing.
        x = torch.from_numpy(np.ascontiguousarray(image.reshape(*image.shape[:2], -1))).permute(2, 0, 1)[None]
        y = F.interpolate(x, self.new, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        return y.reshape(*self.new, *image.shape[2:]).numpy()

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        return self._pil(mask, Image.Resampling.NEAREST)

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        return boxes * np.tile(self._scale(), 2)

    def apply_polygons(self, polygons: Polygons) -> Polygons:
        return [p * self._scale() for p in polygons]

    def _scale(self) -> np.ndarray:
        return np.array([self.new[1] * 1.0 / self.old[1], self.new[0] * 1.0 / self.old[0]])

    def _pil(self, image: np.ndarray, filter: Image.Resampling) -> np.ndarray:
        gray = image.ndim == 3 and image.shape[2] == 1
        resized = Image.fromarray(image[:, :, 0] if gray else image).resize(self.new[::-1], filter)
        return np.asarray(resized)[:, :, None] if gray else np.asarray(resized)


@dataclass(frozen=True)
class Flip:
    """A horizontal flip of an image of `size` (height, width), or a vertical one."""

    size: Size
    vertical: bool = False

    def output_size(self, size: Size) -> Size:
        return size

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(image, 0 if self.vertical else 1))

    apply_mask = apply_image

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        x1, y1, x2, y2 = boxes.T
        h, w = self.size
        return np.stack([x1, h - y2, x2, h - y1] if self.vertical else [w - x2, y1, w - x1, y2], 1)

    def apply_polygons(self, polygons: Polygons) -> Polygons:
        axis, length = (1, self.size[0]) if self.vertical else (0, self.size[1])
        out = [p.copy() for p in polygons]
        for p in out:
            p[:, axis] = length - p[:, axis]
        return out


@dataclass(frozen=True)
class Crop:
    """A crop to the window of `size` (height, width) whose top left corner is (y0, x0)."""

    y0: int
    x0: int
    size: Size

    def output_size(self, size: Size) -> Size:
        return self.size

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        return image[self.y0 : self.y0 + self.size[0], self.x0 : self.x0 + self.size[1]]

    apply_mask = apply_image

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        return boxes - np.array([self.x0, self.y0, self.x0, self.y0])

    def apply_polygons(self, polygons: Polygons) -> Polygons:
        """Clip polygons to the window; polygons outside the window are dropped."""
        moved = [_clip_polygon(p - np.array([self.x0, self.y0]), self.size) for p in polygons]
        return [p for p in moved if len(p) >= 3]


class TransformList(list[Any]):
    """A list of transforms that are applied one after the other."""

    def output_size(self, size: Size) -> Size:
        for t in self:
            size = t.output_size(size)
        return size

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        for t in self:
            image = t.apply_image(image)
        return image

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        for t in self:
            mask = t.apply_mask(mask)
        return mask

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        for t in self:
            boxes = t.apply_boxes(boxes)
        return boxes

    def apply_polygons(self, polygons: Polygons) -> Polygons:
        for t in self:
            polygons = t.apply_polygons(polygons)
        return polygons


class ResizeShortestEdge:
    """An augmentation that resizes the short edge to a given length and limits the long edge.

    Args:
        short_edges: lengths in pixels to choose from, or (min, max) for "range"; 0 leaves the size as it is.
        max_size: the limit of the long edge in pixels.
        sampling: "choice" picks one of `short_edges`, "range" draws from min to max, both included.

    Raises:
        ArgumentError: a length is not positive, or `sampling` is unknown.
    """

    def __init__(self, short_edges: Sequence[int] | int, max_size: int = sys.maxsize, sampling: str = "choice") -> None:
        self.short_edges = [short_edges] if isinstance(short_edges, int) else list(short_edges)
        self.sampling = check_choice("sampling", sampling, ("choice", "range"))
        if not self.short_edges or min(self.short_edges) < 0:
            raise ArgumentError("short_edges", f"expected lengths in pixels, found {short_edges}")
        if max_size < 1:
            raise ArgumentError("max_size", f"expected a length in pixels, found {max_size}")
        if sampling == "range" and (len(self.short_edges) != 2 or self.short_edges[0] > self.short_edges[1]):
            found = tuple(self.short_edges)
            raise ArgumentError("short_edges", f"expected (min, max) for the sampling 'range', found {found}")
        self.max_size = max_size

    def plan(self, size: Size, rng: np.random.Generator) -> Transform | None:
        if self.sampling == "range":
            edge = int(rng.integers(self.short_edges[0], self.short_edges[1] + 1))
        elif len(self.short_edges) > 1:
            edge = self.short_edges[int(rng.integers(len(self.short_edges)))]
        else:
            edge = self.short_edges[0]
        return Resize(size, self.new_size(size, edge, self.max_size)) if edge else None

    @staticmethod
    def new_size(size: Size, short_edge: int, max_size: int) -> Size:
        """Return the (height, width) after resizing, rounded as in Detectron2, but at least 1 pixel."""
        h, w = size
        scale = short_edge * 1.0 / min(h, w)
        new_h, new_w = (short_edge * 1.0, scale * w) if h < w else (scale * h, short_edge * 1.0)
        if max(new_h, new_w) > max_size:
            scale = max_size * 1.0 / max(new_h, new_w)
            new_h, new_w = new_h * scale, new_w * scale
        return max(int(new_h + 0.5), 1), max(int(new_w + 0.5), 1)


class RandomFlip:
    """An augmentation that flips half of the images horizontally, or vertically."""

    def __init__(self, vertical: bool = False) -> None:
        self.vertical = vertical

    def plan(self, size: Size, rng: np.random.Generator) -> Transform | None:
        return Flip(size, self.vertical) if rng.random() < 0.5 else None


_CROP_SIZES = {  # kind of a crop -> what its size must be
    "relative": "two shares in (0, 1]",
    "relative_range": "two shares in (0, 1]",
    "absolute": "(height, width) in pixels",
    "absolute_range": "(min, max) in pixels",
}


class RandomCrop:
    """An augmentation that crops a random window, in one of Detectron2's four ways.

    Args:
        kind: "relative" crops the shares `size` of (height, width); "relative_range" draws both shares from [size, 1];
            "absolute" crops `size` (height, width) in pixels; "absolute_range" draws both sides from
            [size[0], size[1]] pixels. A window in pixels is never larger than the image.
        size: two numbers whose meaning `kind` decides.

    Raises:
        ArgumentError: `kind` is unknown, or `size` does not fit it.
    """

    def __init__(self, kind: str, size: Sequence[float]) -> None:
        self.kind = check_choice("kind", kind, _CROP_SIZES)
        self.size = tuple(size)
        if kind.startswith("relative"):
            valid = all(0 < s <= 1 for s in self.size)
        else:
            valid = all(s >= 1 and s == int(s) for s in self.size)
        if len(self.size) != 2 or not valid or (kind == "absolute_range" and self.size[0] > self.size[1]):
            raise ArgumentError("size", f"expected {_CROP_SIZES[kind]} for a {kind!r} crop, found {list(size)}")

    def plan(self, size: Size, rng: np.random.Generator) -> Transform | None:
        window = self._window(size, rng)
        y0, x0 = (int(rng.integers(full - part + 1)) for full, part in zip(size, window))
        return Crop(y0, x0, window)

    def _window(self, size: Size, rng: np.random.Generator) -> Size:
        if self.kind == "absolute":
            sides = [min(int(s), full) for s, full in zip(self.size, size)]
        elif self.kind == "absolute_range":
            low, high = (int(s) for s in self.size)
            sides = [int(rng.integers(min(full, low), min(full, high) + 1)) for full in size]
        else:
            shares = self.size if self.kind == "relative" else [s + rng.random() * (1 - s) for s in self.size]
            sides = [max(int(full * share + 0.5), 1) for full, share in zip(size, shares)]
        return sides[0], sides[1]


def plan_transforms(augmentations: Sequence[Any], size: Size, rng: np.random.Generator) -> TransformList:
    """Draw the transforms of all augmentations in turn; each receives the size that the previous ones produce."""
    transforms = TransformList()
    for augmentation in augmentations:
        transform = augmentation.plan(size, rng)
        if transform is not None:
            transforms.append(transform)
            size = transform.output_size(size)
    return transforms


def build_augmentations(cfg: Any, is_train: bool) -> list[Any]:
    """Build the augmentations of `cfg.INPUT`: crop, resize and flip for training, resize for evaluation.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    if not is_train:
        with argument_names({"short_edges": "INPUT.MIN_SIZE_TEST", "max_size": "INPUT.MAX_SIZE_TEST"}):
            return [ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)]
    out: list[Any] = []
    if cfg.INPUT.CROP.ENABLED:
        with argument_names({"kind": "INPUT.CROP.TYPE", "size": "INPUT.CROP.SIZE"}):
            out.append(RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    keys = {"short_edges": "MIN_SIZE_TRAIN", "max_size": "MAX_SIZE_TRAIN", "sampling": "MIN_SIZE_TRAIN_SAMPLING"}
    with argument_names({argument: f"INPUT.{key}" for argument, key in keys.items()}):
        out.append(ResizeShortestEdge(**{argument: cfg.INPUT[key] for argument, key in keys.items()}))
    flip = check_choice("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, ("horizontal", "vertical", "none"))
    if flip != "none":
        out.append(RandomFlip(vertical=flip == "vertical"))
    return out


def _clip_polygon(polygon: np.ndarray, size: Size) -> np.ndarray:
    """Clip a polygon to [0, width] x [0, height], one edge after the other (Sutherland and Hodgman, 1974)."""
    for axis, limit, sign in ((0, 0, 1), (0, size[1], -1), (1, 0, 1), (1, size[0], -1)):
        kept: list[np.ndarray] = []
        for a, b in zip(np.roll(polygon, 1, 0), polygon):
            da, db = sign * (a[axis] - limit), sign * (b[axis] - limit)  # >= 0 is inside
            if (da < 0) != (db < 0):
                kept.append(a + (b - a) * (da / (da - db)))
            if db >= 0:
                kept.append(b)
        polygon = np.array(kept).reshape(-1, 2)
    return polygon
