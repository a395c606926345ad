"""Augmentations that make one training image of several pictures: mosaic and copy-paste."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import argument_names, keys_of
from ..ranges import check_count, check_each, check_number
from ..structures import BitMasks, Instances
from .targets import SHARE_TOLERANCE
from .transforms import Crop, Pad, Resize, Size, TransformList

__all__ = ["CopyPaste", "Mosaic", "Window", "build_copy_paste", "build_mosaic"]


class Window(NamedTuple):
    """A part of an image, whose top left corner is (y0, x0)."""

    y0: int
    x0: int
    size: Size

    def as_box(self) -> tuple[int, int, int, int]:
        """Return the corners (x1, y1, x2, y2)."""
        return self.x0, self.y0, self.x0 + self.size[1], self.y0 + self.size[0]


class Mosaic:
    """An augmentation that puts four pictures together to one image.

    The image is divided at a random point, which is at least a quarter of its sides away from the border. Each part is
    covered by a random window of one picture, which is resized so that it is as large as possible in the window.

    Args:
        prob: the probability that an image is a mosaic.
        size: the (height, width) of a mosaic in pixels.

    Raises:
        ArgumentError: `prob` is no probability, or a side is shorter than 4 pixels.
    """

    def __init__(self, prob: float, size: Sequence[int] = (800, 800)) -> None:
        self.prob = check_number("prob", prob, at_least=0, at_most=1)
        height, width = check_each("size", size, check_count, length=2, at_least=4)
        self.size = height, width

    def is_drawn(self, rng: np.random.Generator) -> bool:
        """Return whether the next image is a mosaic."""
        return rng.random() < self.prob

    def windows(self, rng: np.random.Generator) -> list[Window]:
        """Return the four parts of an image in a random order."""
        y, x = (int(rng.integers(math.ceil(side / 4), side - math.ceil(side / 4) + 1)) for side in self.size)
        rows, columns = ((0, y), (y, self.size[0])), ((0, x), (x, self.size[1]))
        parts = [Window(top, left, (low - top, right - left)) for top, low in rows for left, right in columns]
        return [parts[i] for i in rng.permutation(4)]

    def plan(self, size: Size, window: Window, rng: np.random.Generator) -> TransformList:
        """Draw the transforms that put a picture of `size` (height, width) into a part of the image."""
        scale = max(part / side for part, side in zip(window.size, size))
        new = tuple(max(int(side * scale + 0.5), part) for part, side in zip(window.size, size))
        y0, x0 = (int(rng.integers(side - part + 1)) for side, part in zip(new, window.size))
        return TransformList([Resize(size, new), Crop(y0, x0, window.size), Pad(window.y0, window.x0, self.size)])


class CopyPaste:
    """An augmentation that pastes objects of another picture (Ghiasi et al., "Simple Copy-Paste", CVPR 2021).

    Both pictures are augmented before. The other one lies with its top left corner on that of the image, and what
    reaches beyond the image is cut off. Objects that are covered lose the covered part of their masks.

    Args:
        prob: the probability that objects are pasted into an image.
        share: the probability of each object of the other picture to be pasted.

    Raises:
        ArgumentError: one of the two is no probability.
    """

    def __init__(self, prob: float, share: float = 0.5) -> None:
        self.prob = check_number("prob", prob, at_least=0, at_most=1)
        self.share = check_number("share", share, at_least=0, at_most=1)

    def is_drawn(self, rng: np.random.Generator) -> bool:
        """Return whether objects are pasted into the next image."""
        return rng.random() < self.prob

    def paste(
        self,
        image: np.ndarray,
        instances: Instances,
        other: np.ndarray,
        others: Instances,
        rng: np.random.Generator,
        min_visible: float = 0.0,
    ) -> tuple[np.ndarray, Instances]:
        """Paste objects into an image.

        Args:
            image: the image (C, H, W).
            instances: its objects, with `gt_boxes` and with bitmaps as `gt_masks`. The box of an object without a
                pixel in its bitmap counts as its mask.
            other: the other picture (C, H', W').
            others: its objects.
            rng: draws the objects that are pasted.
            min_visible: the share of its pixels that an object must keep. Objects without a pixel are always dropped.

        Returns:
            The image, and its objects with those that were pasted behind them.
        """
        chosen = torch.from_numpy(rng.random(len(others)) < self.share)
        pasted = _kept(_framed(_masked(others[chosen]), image.shape[1:]), min_visible)
        if not len(pasted):
            return image, instances
        covered = pasted.gt_masks.tensor.any(0)
        h, w = (min(a, b) for a, b in zip(image.shape[1:], other.shape[1:]))
        image = image.copy()
        np.copyto(image[:, :h, :w], other[:, :h, :w], where=covered[:h, :w].numpy())
        masked = _masked(instances)
        return image, Instances.cat([_kept((masked, masked.gt_masks.tensor & ~covered), min_visible), pasted])


def _masked(instances: Instances) -> Instances:
    """Return objects of which each has a mask, which is the box where the bitmap is empty."""
    masks = instances.gt_masks.tensor.clone()
    for i in (_areas(masks) == 0).nonzero().flatten().tolist():
        x1, y1, x2, y2 = instances.gt_boxes.tensor[i].tolist()
        masks[i, math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
    return Instances(instances.image_size, **(instances.get_fields() | {"gt_masks": BitMasks(masks)}))


def _framed(instances: Instances, size: Size) -> tuple[Instances, Tensor]:
    """Return objects of another picture as objects of an image of `size`, and the part of their masks that is in it."""
    h, w = (min(a, b) for a, b in zip(size, instances.image_size))
    left = torch.zeros(len(instances), *size, dtype=torch.bool)
    left[:, :h, :w] = instances.gt_masks.tensor[:, :h, :w]
    return Instances(size, **instances.get_fields()), left


def _kept(found: tuple[Instances, Tensor], min_visible: float) -> Instances:
    """Return the objects that keep enough of their masks, with these masks; boxes shrink with the masks."""
    instances, left = found
    before, after = map(_areas, (instances.gt_masks.tensor, left))
    boxes = instances.gt_boxes.clone()
    cut = (after < before).nonzero().flatten()
    boxes.tensor[cut] = BitMasks(left[cut]).get_bounding_boxes().tensor
    boxes.clip(instances.image_size)
    fields = instances.get_fields() | {"gt_masks": BitMasks(left), "gt_boxes": boxes}
    kept = (after > 0) & (after >= (min_visible - SHARE_TOLERANCE) * before) & boxes.nonempty(1e-5)
    return Instances(instances.image_size, **fields)[kept]


def _areas(masks: Tensor) -> Tensor:
    """Return the number of pixels of each mask, which NumPy counts many times faster than torch."""
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.int64)


def build_mosaic(cfg: Any) -> Mosaic | None:
    """Build the mosaic of `cfg.INPUT.MOSAIC`, or None if it is off.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    with argument_names(keys_of("INPUT.MOSAIC")):
        mosaic = Mosaic(cfg.INPUT.MOSAIC.PROB, cfg.INPUT.MOSAIC.SIZE)
    return mosaic if mosaic.prob else None


def build_copy_paste(cfg: Any) -> CopyPaste | None:
    """Build the copy-paste of `cfg.INPUT.COPY_PASTE`, or None if it is off.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    with argument_names(keys_of("INPUT.COPY_PASTE")):
        copy_paste = CopyPaste(cfg.INPUT.COPY_PASTE.PROB, cfg.INPUT.COPY_PASTE.SHARE)
    return copy_paste if copy_paste.prob else None
