"""Geometric augmentation: random choices (`plan`) give transforms for images, boxes and polygons.

An augmentation is asked with the picture's size and a random generator and answers with a transform, a
plain object without randomness. So one transform moves everything that belongs to a picture.
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

from ..errors import UserError, did_you_mean

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
    """Moves a picture and what is drawn on it."""

    def output_size(self, size: Size) -> Size: ...

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, C) to the new size."""

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        """(H, W) labels to the new size, without mixing values."""

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) XYXY to XYXY, not clipped."""

    def apply_polygons(self, polygons: Polygons) -> Polygons: ...


@dataclass(frozen=True)
class Resize:
    """Stretch from `old` to `new` (height, width): PIL's bilinear filter for uint8, as Detectron2."""

    old: Size
    new: Size

    def output_size(self, size: Size) -> Size:
        return self.new

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        if image.shape[:2] == self.new:
            return image
        if image.dtype == np.uint8:
            return self._pil(image, Image.Resampling.BILINEAR)
        # PIL resizes 8-bit pictures only; other types are interpolated without antialiasing.
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
    """Mirror a picture of `size`: left-right, or upside down when `vertical`."""

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
    """Keep the window with top left corner (y0, x0) and `size` (height, width)."""

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
        """The parts inside the window; polygons wholly outside vanish."""
        moved = [_clip_polygon(p - np.array([self.x0, self.y0]), self.size) for p in polygons]
        return [p for p in moved if len(p) >= 3]


class TransformList(list[Any]):
    """Several transforms, one after the other."""

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
    """Resize so that the short edge has a given length, unless the long edge would pass `max_size`.

    Args:
        short_edges: lengths in pixels to choose from, or (min, max) for "range". 0: leave as it is.
        max_size: limit of the long edge in pixels.
        sampling: "choice" or "range" (inclusive).
    """

    def __init__(self, short_edges: Sequence[int] | int, max_size: int = sys.maxsize, sampling: str = "choice") -> None:
        self.short_edges = [short_edges] if isinstance(short_edges, int) else list(short_edges)
        if sampling not in ("choice", "range"):
            raise UserError(
                f"INPUT.MIN_SIZE_TRAIN_SAMPLING: unknown value {sampling!r}"
                f"{did_you_mean(sampling, ('choice', 'range'))}"
            )
        if not self.short_edges or min(self.short_edges) < 0 or max_size < 1:
            raise UserError(
                "short_edges, max_size (INPUT.MIN_SIZE_*, INPUT.MAX_SIZE_*): expected lengths in "
                f"pixels, found {short_edges}, {max_size}"
            )
        if sampling == "range" and (len(self.short_edges) != 2 or self.short_edges[0] > self.short_edges[1]):
            raise UserError(f"INPUT.MIN_SIZE_TRAIN: 'range' needs (min, max), found {tuple(self.short_edges)}")
        self.max_size = max_size
        self.sampling = sampling

    def plan(self, size: Size, rng: np.random.Generator) -> Transform | None:
        if self.sampling == "range":
            edge = int(rng.integers(self.short_edges[0], self.short_edges[1] + 1))
        else:
            edge = (
                self.short_edges[int(rng.integers(len(self.short_edges)))]
                if len(self.short_edges) > 1
                else self.short_edges[0]
            )
        return Resize(size, self.new_size(size, edge, self.max_size)) if edge else None

    @staticmethod
    def new_size(size: Size, short_edge: int, max_size: int) -> Size:
        """(height, width) after resizing: Detectron2's rounding, but never an empty side."""
        h, w = size
        scale = short_edge * 1.0 / min(h, w)
        new_h, new_w = (short_edge * 1.0, scale * w) if h < w else (scale * h, short_edge * 1.0)
        if max(new_h, new_w) > max_size:
            scale = max_size * 1.0 / max(new_h, new_w)
            new_h, new_w = new_h * scale, new_w * scale
        return max(int(new_h + 0.5), 1), max(int(new_w + 0.5), 1)


class RandomFlip:
    """Mirror half of the pictures; left-right, or upside down when `vertical`."""

    def __init__(self, vertical: bool = False) -> None:
        self.vertical = vertical

    def plan(self, size: Size, rng: np.random.Generator) -> Transform | None:
        return Flip(size, self.vertical) if rng.random() < 0.5 else None


class RandomCrop:
    """Cut out a random window (Detectron2's four kinds).

    Args:
        kind: "relative": the shares `size` of (height, width); "relative_range": shares drawn from
            [size, 1]; "absolute": `size` (height, width) in pixels, at most the picture;
            "absolute_range": both sides drawn from [size[0], size[1]] pixels, at most the picture.
        size: two numbers, see `kind`.
    """

    KINDS = ("relative", "relative_range", "absolute", "absolute_range")

    def __init__(self, kind: str, size: Sequence[float]) -> None:
        if kind not in self.KINDS:
            raise UserError(f"INPUT.CROP.TYPE: unknown value {kind!r}{did_you_mean(kind, self.KINDS)}")
        self.kind = kind
        self.size = tuple(size)
        relative = kind.startswith("relative")
        if (
            len(self.size) != 2
            or not all((0 < s <= 1) if relative else (s >= 1 and s == int(s)) for s in self.size)
            or (kind == "absolute_range" and self.size[0] > self.size[1])
        ):
            expected = (
                "two shares in (0, 1]"
                if relative
                else ("(min, max) in pixels" if kind == "absolute_range" else "(height, width) in pixels")
            )
            raise UserError(f"INPUT.CROP.SIZE: type {kind!r} needs {expected}, found {list(size)}")

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
    """Ask the augmentations in turn, each with the size that the ones before leave."""
    transforms = TransformList()
    for augmentation in augmentations:
        transform = augmentation.plan(size, rng)
        if transform is not None:
            transforms.append(transform)
            size = transform.output_size(size)
    return transforms


def build_augmentations(cfg: Any, is_train: bool) -> list[Any]:
    """The augmentations of `INPUT.*`: crop, resize, flip in training; resize in evaluation."""
    if not is_train:
        return [ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)]
    out: list[Any] = []
    if cfg.INPUT.CROP.ENABLED:
        out.append(RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    out.append(
        ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING)
    )
    flip, flips = cfg.INPUT.RANDOM_FLIP, ("horizontal", "vertical", "none")
    if flip not in flips:
        raise UserError(f"INPUT.RANDOM_FLIP: unknown value {flip!r}{did_you_mean(flip, flips)}")
    if flip != "none":
        out.append(RandomFlip(vertical=flip == "vertical"))
    return out


def _clip_polygon(polygon: np.ndarray, size: Size) -> np.ndarray:
    """The part of a polygon in [0, width] x [0, height] (Sutherland and Hodgman 1974: edge by edge)."""
    for axis, limit, sign in ((0, 0, 1), (0, size[1], -1), (1, 0, 1), (1, size[0], -1)):
        kept: list[np.ndarray] = []
        for a, b in zip(np.roll(polygon, 1, 0), polygon):
            da, db = sign * (a[axis] - limit), sign * (b[axis] - limit)  # >= 0: inside
            if (da < 0) != (db < 0):
                kept.append(a + (b - a) * (da / (da - db)))
            if db >= 0:
                kept.append(b)
        polygon = np.array(kept).reshape(-1, 2)
    return polygon
