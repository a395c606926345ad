"""Geometric transforms, which move an image and everything that is annotated in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .clipping import clip_polygon

__all__ = ["FILL", "Crop", "Flip", "Pad", "Resize", "Size", "Transform", "TransformList"]

Size = tuple[int, int]  # (height, width)
Polygons = list[np.ndarray]  # each (K, 2), (x, y) in pixels

FILL = 128
"""The value of all channels where an image has no pixels of a picture, as in Detectron2."""


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
        if image.ndim == 3 and image.shape[2] != 3:  # PIL would take two or four channels for transparent colours.
            return np.stack([self._pil(channel, filter) for channel in np.moveaxis(image, 2, 0)], axis=2)
        return np.asarray(Image.fromarray(image).resize(self.new[::-1], filter))

    def apply_pil(self, image: Image.Image) -> Image.Image:
        """Resize PIL's image, which gives the pixels of `apply_image`."""
        return image if image.size == self.new[::-1] else image.resize(self.new[::-1], Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Flip:
    """A horizontal flip of an image of `size` (height, width), or a vertical one."""

    size: Size
    vertical: bool = False

    def output_size(self, size: Size) -> Size:
        return size

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(image, 0 if self.vertical else 1))

    def apply_pil(self, image: Image.Image) -> Image.Image:
        """Flip PIL's image."""
        flips = Image.Transpose
        return image.transpose(flips.FLIP_TOP_BOTTOM if self.vertical else flips.FLIP_LEFT_RIGHT)

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

    def apply_pil(self, image: Image.Image) -> Image.Image:
        """Crop PIL's image."""
        return image.crop((self.x0, self.y0, self.x0 + self.size[1], self.y0 + self.size[0]))

    apply_mask = apply_image

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        return boxes - np.array([self.x0, self.y0, self.x0, self.y0])

    def apply_polygons(self, polygons: Polygons) -> Polygons:
        """Clip polygons to the window; polygons outside the window are dropped."""
        return [part for p in polygons for part in clip_polygon(p - np.array([self.x0, self.y0]), self.size)]


@dataclass(frozen=True)
class Pad:
    """A larger image of `size` (height, width), in which the top left corner of the image is at (y0, x0)."""

    y0: int
    x0: int
    size: Size

    def output_size(self, size: Size) -> Size:
        return self.size

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        return self._placed(image, FILL)

    def apply_pil(self, image: Image.Image) -> Image.Image:
        """Pad PIL's image."""
        out = Image.new(image.mode, self.size[::-1], (FILL,) * len(image.getbands()))
        out.paste(image, (self.x0, self.y0))
        return out

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        return self._placed(mask, 0)

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        return boxes + np.array([self.x0, self.y0, self.x0, self.y0])

    def apply_polygons(self, polygons: Polygons) -> Polygons:
        return [p + np.array([self.x0, self.y0]) for p in polygons]

    def _placed(self, array: np.ndarray, fill: int) -> np.ndarray:
        out = np.full((*self.size, *array.shape[2:]), fill, array.dtype)
        out[self.y0 : self.y0 + array.shape[0], self.x0 : self.x0 + array.shape[1]] = array
        return out


ON_PIL = (Resize, Flip, Crop, Pad)
"""The transforms with a method `apply_pil`, which gives the pixels of `apply_image`."""


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
