"""Transforms: changes of an image and of what is annotated in it, without randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ....data.transforms import Crop, Flip
from ....data.transforms import Resize as _Resized
from ....errors import ArgumentError
from ...absent import absent

__all__ = [
    "BILINEAR",
    "BlendTransform",
    "ColorTransform",
    "CropTransform",
    "HFlipTransform",
    "NoOpTransform",
    "PILColorTransform",
    "ResizeTransform",
    "Transform",
    "TransformList",
    "VFlipTransform",
    "check_interp",
]

__getattr__ = absent(__name__, __all__)

BILINEAR = Image.Resampling.BILINEAR


class Transform:
    """A change of an image and of what is annotated in it, without randomness.

    A transform of your own has `apply_image` and `apply_coords`; boxes and polygons follow from the points, and label
    maps are moved as images. `apply_boxes` and `apply_mask` are the names under which `sn2fpn.data` calls them.
    """

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Return the transformed image, of shape (H, W) or (H, W, C)."""
        raise NotImplementedError(f"{type(self).__name__}.apply_image")

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Return the places of points (N, 2), which are (x, y) in pixels."""
        raise NotImplementedError(f"{type(self).__name__}.apply_coords")

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return the transformed (H, W) array of labels."""
        return self.apply_image(segmentation)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Return the boxes (N, 4) around the transformed corners of boxes (x1, y1, x2, y2) (N, 4), without clipping."""
        box = np.asarray(box, dtype=np.float64).reshape(-1, 4)
        corners = self.apply_coords(box[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 2)).reshape(-1, 4, 2)
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Return the transformed polygons, which have the shape (K, 2) each."""
        return [self.apply_coords(np.array(p, dtype=np.float64)) for p in polygons]

    def inverse(self) -> Transform:
        """Return the transform that undoes this one, if there is one."""
        raise NotImplementedError(f"{type(self).__name__}.inverse")

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        return self.apply_box(boxes)

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        return self.apply_segmentation(mask)

    def _set_attributes(self, params: Mapping[str, Any] | None = None) -> None:
        """Keep the arguments of a constructor, its `locals()`, as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({shown})"


class TransformList(Transform, list[Any]):
    """Transforms that are applied one after the other; lists inside of lists are put in their place."""

    def __init__(self, transforms: Sequence[Transform] = ()) -> None:
        super().__init__()
        for t in transforms:
            self.extend(t if isinstance(t, TransformList) else [t])

    transforms = property(lambda self: list(self))

    def __add__(self, other: Any) -> TransformList:  # type: ignore[override]
        return TransformList([*self, other] if isinstance(other, Transform) else [*self, *other])

    def __radd__(self, other: Any) -> TransformList:
        return TransformList([other, *self] if isinstance(other, Transform) else [*other, *self])

    def __iadd__(self, other: Any) -> TransformList:  # type: ignore[override, misc]
        self[:] = self + other
        return self

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self._apply("apply_image", img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return self._apply("apply_coords", coords)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self._apply("apply_segmentation", segmentation)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        return self._apply("apply_box", box)

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        return self._apply("apply_polygons", polygons)

    def inverse(self) -> TransformList:
        return TransformList([t.inverse() for t in reversed(self)])

    def _apply(self, method: str, value: Any) -> Any:
        for t in self:
            value = getattr(t, method)(value)
        return value


class NoOpTransform(Transform):
    """A transform that changes nothing."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return img

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def inverse(self) -> Transform:
        return self


class _Own(Transform):
    """A transform of `sn2fpn.data` with Detectron2's methods."""

    _own: Any

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self._own.apply_image(img)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self._own.apply_mask(segmentation)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        return self._own.apply_boxes(np.asarray(box, dtype=np.float64).reshape(-1, 4))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        points = np.asarray(coords, dtype=np.float64).reshape(-1, 2)
        return self._own.apply_boxes(np.tile(points, 2))[:, :2]  # a point is a box whose corners are equal

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        return self._own.apply_polygons([np.asarray(p, dtype=np.float64) for p in polygons])


class ResizeTransform(_Own):
    """A change of size from (h, w) to (new_h, new_w), antialiased and bilinear; see `sn2fpn.data.transforms.Resize`."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        check_interp(interp)
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w
        self._own = _Resized((h, w), (new_h, new_w))

    def inverse(self) -> Transform:
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w)


class HFlipTransform(_Own):
    """A horizontal flip of an image of the given width."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._own = Flip((0, width))

    def inverse(self) -> Transform:
        return self


class VFlipTransform(_Own):
    """A vertical flip of an image of the given height."""

    def __init__(self, height: int) -> None:
        self.height = height
        self._own = Flip((height, 0), vertical=True)

    def inverse(self) -> Transform:
        return self


class CropTransform(_Own):
    """A crop to the window of (w, h) pixels whose top left corner is (x0, y0). Polygons are clipped to it."""

    def __init__(self, x0: int, y0: int, w: int, h: int, orig_w: int | None = None, orig_h: int | None = None) -> None:
        self.x0, self.y0, self.w, self.h = x0, y0, w, h
        self._own = Crop(y0, x0, (h, w))


class ColorTransform(NoOpTransform):
    """A function of the image's colours, after which all annotations stay where they are."""

    def __init__(self, op: Callable[[np.ndarray], np.ndarray]) -> None:
        self.op = op

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self.op(img)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> Transform:
        raise NotImplementedError(f"{type(self).__name__}.inverse")


class PILColorTransform(ColorTransform):
    """A function of PIL's image of the same pixels."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.asarray(self.op(Image.fromarray(img)))


class BlendTransform(ColorTransform):
    """The sum of another image and this one, with a weight for each; 8-bit results are cut to 0..255."""

    def __init__(self, src_image: np.ndarray | float, src_weight: float, dst_weight: float) -> None:
        self.src_image, self.src_weight, self.dst_weight = src_image, src_weight, dst_weight

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        mixed = self.src_weight * self.src_image + self.dst_weight * img.astype(np.float32)
        return mixed.clip(0, 255).astype(np.uint8) if img.dtype == np.uint8 else mixed


def check_interp(interp: int | None) -> None:
    """Raise an ArgumentError unless `interp` is None or PIL's bilinear filter, the only one that is served."""
    if interp not in (None, BILINEAR):
        raise ArgumentError("interp", f"expected PIL's bilinear filter ({int(BILINEAR)}), found {interp!r}")
