"""Augmentation by functions of the user's own, which are called as Albumentations calls its pipelines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ..errors import ArgumentError, UserError, did_you_mean, failing_line, nearby_files, shortened
from ..structures import BitMasks, Boxes, Instances
from .seeding import seeded

__all__ = ["UserFunction", "find_function"]


class UserFunction:
    """A function of the user's that changes an image together with its objects.

    It is called as `function(image=, bboxes=, indices=, masks=)` and returns a dict with the same keys:

    - `image`: the image, uint8 (H, W, 3) in RGB order, or (H, W, 1) for gray images. Its size may change.
    - `bboxes`: (N, 4) boxes (x1, y1, x2, y2) in pixels. Fewer may be returned.
    - `indices`: the numbers of the objects that the boxes belong to.
    - `masks`: for models with masks only, a list of the masks of all objects, uint8 (H, W).

    Before each call, the global generators of Python, NumPy and torch are seeded, and so is a function that has a
    method `set_random_seed`, as the pipelines of Albumentations have.

    Args:
        function: the function, or its name as `find_function` takes it.

    Raises:
        ArgumentError: see `find_function`.
    """

    def __init__(self, function: Callable[..., Mapping[str, Any]] | str) -> None:
        self.name = function if isinstance(function, str) else getattr(function, "__name__", repr(function))
        self._function = find_function(function) if isinstance(function, str) else function
        if not callable(self._function):
            raise ArgumentError("function", f"expected a function, found {self._function!r}")

    def apply(
        self, image: np.ndarray, instances: Instances, image_format: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, Instances]:
        """Change an image (C, H, W) whose channels have the order of `image_format`, and its objects.

        Objects whose boxes are empty after clipping are dropped.

        Raises:
            UserError: the function fails or returns something else than it should.
        """
        turn = slice(None, None, -1 if image_format == "BGR" else 1)
        given: dict[str, Any] = {
            "image": np.ascontiguousarray(image[turn].transpose(1, 2, 0)),
            "bboxes": instances.gt_boxes.tensor.numpy().astype(np.float64),
            "indices": np.arange(len(instances)),
        }
        if instances.has("gt_masks"):
            given["masks"] = list(instances.gt_masks.tensor.numpy().astype(np.uint8))
        found = self._call(given, rng)
        pixels, boxes, indices = self._checked(found, len(image), len(instances))
        image = np.array(pixels.transpose(2, 0, 1)[turn], order="C")
        size = image.shape[1:]
        masks = self._masks(found, len(instances), size) if instances.has("gt_masks") else None
        return image, _picked(instances, boxes, indices, masks, size)

    def _call(self, given: dict[str, Any], rng: np.random.Generator) -> Mapping[str, Any]:
        with seeded(rng) as seed:
            try:
                if hasattr(self._function, "set_random_seed"):
                    self._function.set_random_seed(seed)
                return self._function(**given)
            except Exception as e:
                file = getattr(getattr(self._function, "__code__", None), "co_filename", "")
                line = failing_line(e, file) if file else None
                place = f"{file}, line {line}: " if line else ""
                raise UserError(f"{self.name}: {place}{type(e).__name__}: {e}") from e

    def _checked(self, found: Any, channels: int, objects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the image, the boxes and the indices that the function has returned, after a check of all of them."""
        if not isinstance(found, Mapping) or not {"image", "bboxes", "indices"} <= found.keys():
            what = sorted(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise UserError(f"{self.name}: expected a dict with image, bboxes and indices in return, found {what}")
        image = self._array(found, "image")
        boxes, indices = (self._array(found, key, np.float64) for key in ("bboxes", "indices"))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or not image.size:
            expected = f"expected an image uint8 (height, width, {channels}) in return"
            raise UserError(f"{self.name}: {expected}, found {image.dtype} {image.shape}")
        is_empty = boxes.size == indices.size == 0
        if indices.ndim != 1 or (boxes.shape != (len(indices), 4) and not is_empty):
            expected = "expected (N, 4) bboxes and N indices in return"
            raise UserError(f"{self.name}: {expected}, found the shapes {boxes.shape} and {indices.shape}")
        if not np.isin(indices, np.arange(objects)).all():
            shown = shortened(str(np.asarray(found["indices"]).tolist()))
            raise UserError(f"{self.name}: expected indices below {objects} in return, found {shown}")
        if not np.isfinite(boxes).all():
            raise UserError(f"{self.name}: expected finite bboxes in return, found {shortened(str(boxes.tolist()))}")
        return image, boxes.reshape(-1, 4), indices.astype(np.int64)

    def _array(self, found: Mapping[str, Any], key: str, dtype: type | None = None) -> np.ndarray:
        try:
            return np.asarray(found[key], dtype)
        except Exception as e:  # NumPy and other libraries raise errors of several types for lists of unequal lengths
            shown = shortened(repr(found[key]))
            raise UserError(f"{self.name}: expected an array as {key} in return, found {shown} ({e})") from None

    def _masks(self, found: Mapping[str, Any], count: int, size: tuple[int, ...]) -> list[np.ndarray]:
        """Return the masks of all objects, after a check of their number and form."""
        masks = found.get("masks")
        try:
            masks = [np.asarray(mask) for mask in (() if masks is None else masks)]
            what = shortened(str([mask.shape for mask in masks]))
        except Exception as e:  # see `_array`
            masks, what = None, f"{type(masks).__name__} ({e})"
        if masks is None or [mask.shape for mask in masks] != [size] * count:
            expected = f"expected {count} masks of the new image's size {size} in return"
            raise UserError(f"{self.name}: {expected}, found {what}")
        if wrong := [mask for mask in masks if mask.dtype.kind not in "biuf"]:
            raise UserError(f"{self.name}: expected masks uint8 in return, found {wrong[0].dtype}")
        return masks


def _picked(
    instances: Instances, boxes: np.ndarray, indices: np.ndarray, masks: list[np.ndarray] | None, size: tuple[int, ...]
) -> Instances:
    """Return the objects that a function has left, with their new boxes and masks."""
    clipped = Boxes(boxes)
    clipped.clip(size)
    fields = instances[torch.as_tensor(indices)].get_fields() | {"gt_boxes": clipped}
    if masks is None:
        return Instances(size, **fields)[clipped.nonempty(1e-5)]
    kept = [masks[i] > 0 for i in indices.tolist()]
    fields["gt_masks"] = BitMasks(np.stack(kept) if kept else np.empty((0, *size), bool))
    return Instances(size, **fields)[clipped.nonempty(1e-5) & fields["gt_masks"].nonempty()]


def find_function(name: str) -> Callable[..., Any]:
    """Return a function of a module that has been imported.

    Nothing is imported, because a configuration is data: reading one that somebody else has written runs no code.

    Args:
        name: "module:function", or "file.py:function" for a file that `--import` has named.

    Raises:
        ArgumentError: there is no such module or function, or the name has another form.
    """
    place, _, attribute = name.rpartition(":")
    if not (place and attribute.isidentifier()):
        problem = f"expected 'module:function' or 'file.py:function', found {name!r}"
        raise ArgumentError("function", problem)
    module = _imported(place)
    functions = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
    if not callable(getattr(module, attribute, None)):
        raise ArgumentError("function", f"{place} has no function {attribute!r}{did_you_mean(attribute, functions)}")
    return getattr(module, attribute)


def _imported(place: str) -> ModuleType:
    """Return a module that has been imported, by its name or its file."""
    if not place.endswith(".py"):
        if place in sys.modules:
            return sys.modules[place]
        where, flag = f"the module {place!r}", f"{place.rpartition('.')[2]}.py"
    else:
        path = Path(place).expanduser().resolve()
        for module in list(sys.modules.values()):
            if getattr(module, "__file__", None) == str(path):
                return module
        if not path.is_file():
            raise ArgumentError("function", f"there is no file {place}{nearby_files(path, '*.py')}")
        where, flag = f"the file {place}", place
    problem = f"{where} has not been imported, and a configuration does not run code; add --import {flag}"
    raise ArgumentError("function", problem)
