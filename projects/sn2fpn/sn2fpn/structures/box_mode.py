"""The formats of the boxes in data sets, and the conversion between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, argument_names, did_you_mean

__all__ = ["BoxMode", "box_of"]

RawBox = TypeVar("RawBox", list, tuple, np.ndarray, Tensor)


class BoxMode(IntEnum):
    """The formats of boxes in the records of data sets, with Detectron2's numbers.

    "ABS" stands for pixels, and "REL" for shares of the image's width and height. `XYWHA_ABS` is a rotated box: its
    centre, width, height and angle in degrees, counter-clockwise.
    """

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4

    @staticmethod
    def convert(box: RawBox, from_mode: BoxMode | int, to_mode: BoxMode | int) -> RawBox:
        """Convert one box or several boxes from one format to another.

        A rotated box becomes the smallest axis-aligned box around it, and an axis-aligned box becomes one with the
        angle 0. A box that has the wanted format already is returned itself; otherwise `box` is not changed.

        Args:
            box: one box of four numbers (five for `XYWHA_ABS`), or boxes along the other axes of an array or tensor.
            from_mode: the format of `box`.
            to_mode: the wanted format.

        Returns:
            The boxes as a list, tuple, array or tensor like `box`. Arrays and tensors keep their dtype, so those of
            whole numbers lose the halves of a centre. Lists and tuples are computed in float64, or as whole numbers if
            they hold nothing else and no box is rotated.

        Raises:
            ArgumentError: there is no such format, the conversion needs the size of the image, or `box` does not hold
                the numbers of its format.
        """
        source, target = _as_mode("from_mode", from_mode), _as_mode("to_mode", to_mode)
        if source == target:
            return box
        for argument, mode in (("from_mode", source), ("to_mode", target)):
            if mode in (BoxMode.XYXY_REL, BoxMode.XYWH_REL):
                raise ArgumentError(
                    argument,
                    f"{mode.name} ({int(mode)}) holds shares of the image's size, which only the caller knows; expected"
                    " boxes in pixels, so multiply them by the width and the height",
                )
        values = _as_numbers(box, count=5 if source == BoxMode.XYWHA_ABS else 4)
        out = values
        for step in _STEPS[source, target]:
            out = step(out)
        if isinstance(box, Tensor):
            return out.to(box.dtype)
        return out.astype(values.dtype, copy=False) if isinstance(box, np.ndarray) else type(box)(out.tolist())


def _as_mode(argument: str, mode: Any) -> BoxMode:
    try:
        return BoxMode(mode)
    except ValueError:
        choices = did_you_mean(str(mode), [str(int(m)) for m in BoxMode])
        raise ArgumentError(argument, f"there is no box mode {mode!r}{choices}") from None


def _as_numbers(box: Any, count: int) -> np.ndarray | Tensor:
    """Return boxes as an array, unless they are a tensor, after a check of their numbers."""
    try:
        values = box if isinstance(box, Tensor) else np.asarray(box)
    except ValueError:  # lists of different lengths
        values = np.asarray(None)
    numeric = isinstance(values, Tensor) or values.dtype.kind in "iuf"
    if not numeric or tuple(values.shape[-1:]) != (count,):
        raise ArgumentError("box", f"expected {count} numbers for each box, found {box!r}")
    return values


def _add_corner(boxes: Any) -> Any:
    """Turn (x, y, w, h) into (x1, y1, x2, y2)."""
    return _join([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]])


def _subtract_corner(boxes: Any) -> Any:
    """Turn (x1, y1, x2, y2) into (x, y, w, h)."""
    return _join([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]])


def _add_angle(boxes: Any) -> Any:
    """Turn (x, y, w, h) into (x_centre, y_centre, w, h, 0) in float64."""
    boxes = _in_float64(boxes)
    return _join([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:], 0 * boxes[..., :1]])


def _surround(boxes: Any) -> Any:
    """Turn (x_centre, y_centre, w, h, angle) into the box (x1, y1, x2, y2) around it, in float64."""
    boxes = _in_float64(boxes)
    of = torch if isinstance(boxes, Tensor) else np
    w, h, angle = boxes[..., 2:3], boxes[..., 3:4], boxes[..., 4:] * (math.pi / 180)
    cos, sin = of.abs(of.cos(angle)), of.abs(of.sin(angle))
    half = _join([cos * w + sin * h, sin * w + cos * h]) / 2
    return _join([boxes[..., :2] - half, boxes[..., :2] + half])


def _in_float64(boxes: Any) -> Any:
    return boxes.double() if isinstance(boxes, Tensor) else boxes.astype(np.float64)


def _join(parts: list[Any]) -> Any:
    return torch.cat(parts, -1) if isinstance(parts[0], Tensor) else np.concatenate(parts, -1)


_STEPS: dict[tuple[BoxMode, BoxMode], tuple[Callable[[Any], Any], ...]] = {
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): (_add_corner,),
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): (_subtract_corner,),
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): (_add_angle,),
    (BoxMode.XYXY_ABS, BoxMode.XYWHA_ABS): (_subtract_corner, _add_angle),
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): (_surround,),
    (BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS): (_surround, _subtract_corner),
}


def box_of(annotation: Mapping[str, Any], mode: BoxMode = BoxMode.XYXY_ABS) -> np.ndarray:
    """Return the box of an object of a data set dict in the given format, in float64 ([4]).

    Raises:
        ArgumentError: `bbox` does not hold the numbers of its `bbox_mode`, or this is one that cannot be converted.
    """
    with argument_names({"box": "bbox", "from_mode": "bbox_mode"}):
        box = BoxMode.convert(annotation.get("bbox"), annotation.get("bbox_mode"), mode)
        return np.array(_as_numbers(box, count=4), dtype=np.float64)
