"""Geometric augmentation: augmentations draw random transforms.

An augmentation has a method `plan(size, rng)` that receives the image's size and a random generator and returns a
transform, or None to leave the image as it is. A transform holds no randomness, so that the same transform is applied
to the image and to everything that is annotated in it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, argument_names, check_choice, keys_of
from ..ranges import check_count, check_each, check_number
from .transforms import Crop, Flip, Pad, Resize, Size, Transform, TransformList

__all__ = ["RandomCrop", "RandomFlip", "ResizeShortestEdge", "ScaleJitter", "build_augmentations", "plan_transforms"]


class ResizeShortestEdge:
    """An augmentation that resizes the short edge to a given length and limits the long edge.

    Args:
        short_edges: lengths in pixels to choose from, where 0 leaves the size as it is; or (min, max) for "range".
        max_size: the limit of the long edge in pixels.
        sampling: "choice" picks one of `short_edges`, "range" draws from min to max, both included.

    Raises:
        ArgumentError: a length is negative or no whole number, or `sampling` is unknown.
    """

    def __init__(self, short_edges: Sequence[int] | int, max_size: int = sys.maxsize, sampling: str = "choice") -> None:
        if isinstance(short_edges, int):
            self.short_edges = [check_count("short_edges", short_edges, at_least=0)]
        else:
            self.short_edges = check_each("short_edges", short_edges, check_count, at_least=0)
        self.max_size = check_count("max_size", max_size)
        self.sampling = check_choice("sampling", sampling, ("choice", "range"))
        if not self.short_edges:
            raise ArgumentError("short_edges", f"expected lengths in pixels, found {short_edges}")
        if sampling == "range" and (len(self.short_edges) != 2 or not 1 <= self.short_edges[0] <= self.short_edges[1]):
            found = tuple(self.short_edges)
            raise ArgumentError("short_edges", f"expected (min, max) for the sampling 'range', found {found}")

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
    """An augmentation that flips half of the images horizontally, or vertically.

    Args:
        vertical: whether images are flipped upside down instead of left to right.

    Raises:
        ArgumentError: `vertical` is neither True nor False.
    """

    def __init__(self, vertical: bool = False) -> None:
        if not isinstance(vertical, bool):
            problem = f"expected True or False, found {vertical!r} (the share of flipped images is always one half)"
            raise ArgumentError("vertical", problem)
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
        self.size = tuple(check_each("size", size, check_number))
        if kind.startswith("relative"):
            valid = all(0 < s <= 1 for s in self.size)
        else:
            valid = all(s >= 1 and s == int(s) for s in self.size)
        if len(self.size) != 2 or not valid or (kind == "absolute_range" and self.size[0] > self.size[1]):
            raise ArgumentError("size", f"expected {_CROP_SIZES[kind]} for a {kind!r} crop, found {list(self.size)}")

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


class ScaleJitter:
    """An augmentation that resizes by a random factor and then crops or pads to a fixed size (large-scale jitter).

    A factor of 1 fits the whole image into `size`. Of a larger image a random window remains, and a smaller one is
    padded on the right and at the bottom (Ghiasi et al., "Simple Copy-Paste", CVPR 2021).

    Args:
        min_scale: the smallest factor.
        max_scale: the largest factor.
        size: the (height, width) of all images in pixels.

    Raises:
        ArgumentError: a factor is not positive, `min_scale` is larger than `max_scale`, or `size` is no size.
    """

    def __init__(self, min_scale: float = 0.1, max_scale: float = 2.0, size: Sequence[int] = (1024, 1024)) -> None:
        self.min_scale = check_number("min_scale", min_scale, above=0)
        self.max_scale = check_number("max_scale", max_scale, at_least=min_scale)
        height, width = check_each("size", size, check_count, length=2)
        self.size = height, width

    def plan(self, size: Size, rng: np.random.Generator) -> Transform | None:
        scale = self.min_scale + rng.random() * (self.max_scale - self.min_scale)
        factor = min(wanted * scale / side for wanted, side in zip(self.size, size))
        new = max(int(np.round(size[0] * factor)), 1), max(int(np.round(size[1] * factor)), 1)
        window = min(new[0], self.size[0]), min(new[1], self.size[1])
        transforms = TransformList([Resize(size, new)])
        if window != new:
            y0, x0 = (int(rng.integers(full - part + 1)) for full, part in zip(new, window))
            transforms.append(Crop(y0, x0, window))
        if window != self.size:
            transforms.append(Pad(0, 0, self.size))
        return transforms


def plan_transforms(augmentations: Sequence[Any], size: Size, rng: np.random.Generator) -> TransformList:
    """Draw the transforms of all augmentations in turn; each receives the size that the previous ones produce."""
    transforms = TransformList()
    for augmentation in augmentations:
        transform = augmentation.plan(size, rng)
        if transform is not None:
            transforms.extend(transform if isinstance(transform, TransformList) else [transform])
            size = transform.output_size(size)
    return transforms


def build_augmentations(cfg: Any, is_train: bool) -> list[Any]:
    """Build the geometric augmentations of `cfg.INPUT`: crop, resize and flip for training, resize for evaluation.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    if not is_train:
        with argument_names({"short_edges": "INPUT.MIN_SIZE_TEST", "max_size": "INPUT.MAX_SIZE_TEST"}):
            return [ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)]
    c = cfg.INPUT
    out: list[Any] = []
    if c.CROP.ENABLED:
        with argument_names({"kind": "INPUT.CROP.TYPE", "size": "INPUT.CROP.SIZE"}):
            out.append(RandomCrop(c.CROP.TYPE, c.CROP.SIZE))
    jitter = _scale_jitter(cfg)  # also if it is off, since a wrong value is a mistake then, too
    out.append(jitter if c.SCALE_JITTER.ENABLED else _resize_for_training(cfg))
    flip = check_choice("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, ("horizontal", "vertical", "none"))
    if flip != "none":
        out.append(RandomFlip(vertical=flip == "vertical"))
    return out


def _resize_for_training(cfg: Any) -> ResizeShortestEdge:
    keys = {"short_edges": "MIN_SIZE_TRAIN", "max_size": "MAX_SIZE_TRAIN", "sampling": "MIN_SIZE_TRAIN_SAMPLING"}
    with argument_names({argument: f"INPUT.{key}" for argument, key in keys.items()}):
        return ResizeShortestEdge(**{argument: cfg.INPUT[key] for argument, key in keys.items()})


def _scale_jitter(cfg: Any) -> ScaleJitter:
    c = cfg.INPUT.SCALE_JITTER
    with argument_names(keys_of("INPUT.SCALE_JITTER")):
        return ScaleJitter(c.MIN_SCALE, c.MAX_SCALE, c.SIZE)
