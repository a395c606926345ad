"""Detection in overlapping tiles of a picture, which finds objects that are small in the whole picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..modeling.nms import grouped_nms
from ..ranges import check_count, check_number
from ..structures import Instances
from .pixels import as_pixels
from .predictor import Predictor

__all__ = ["TiledPredictor", "Window", "tile_windows"]

_NEAR = 1 / 64
"""Boxes that are nearer to the border of a tile than this share of its side may be cut off there."""
_COVERED = 0.5
_AS_SURE = 0.5


class Window(NamedTuple):
    """A part of a picture in pixels: columns x to x + width, rows y to y + height."""

    x: int
    y: int
    width: int
    height: int


def tile_windows(size: tuple[int, int], tile: int, overlap: float) -> list[Window]:
    """Return the windows that cut a picture into overlapping squares, row by row.

    All have the full size; the last ones of each row and column are shifted inwards. A picture that is smaller than a
    tile in one direction has a single window in this direction, of its own size.

    Args:
        size: the (height, width) of the picture in pixels.
        tile: the side of the squares in pixels.
        overlap: the share of a tile that the next one repeats, at least 0 and below 1.

    Raises:
        ArgumentError: `tile` or `overlap` is out of its range.

    Example:
        >>> [(w.x, w.width) for w in tile_windows((100, 250), 100, 0.2)]
        [(0, 100), (80, 100), (150, 100)]
    """
    check_count("tile", tile)
    step = max(1, round(tile * (1 - check_number("overlap", overlap, at_least=0, below=1))))
    starts = [[*range(0, max(side - tile, 0), step), max(side - tile, 0)] for side in size]
    height, width = (min(side, tile) for side in size)
    return [Window(x, y, width, height) for y, x in itertools.product(*starts)]


class TiledPredictor:
    """Detects objects in overlapping tiles of a picture and in the whole picture, and merges the detections.

    A box that ends at an inner border of its tile may belong to an object that is cut off there. It is dropped

    - if it lies inside of another tile and does not end at an inner border of that one, which sees more of the object
      and decides alone whether there is one; or
    - if another box of its class, which does not end at an inner border, covers at least half of it and scores at
      least half as much. This is how the whole picture takes the place of pieces of objects that are larger than the
      overlap and therefore whole in no tile.

    What is left is thinned by non-maximum suppression within each class, with the threshold of the model. The largest
    number of detections that the model allows holds for each tile, and there is none for the picture.

    Args:
        predictor: detects objects in the parts.
        tile: the side of the tiles in pixels of the picture. Smaller pictures are not cut.
        overlap: the share of a tile that the next one repeats, at least 0 and below 1.
        whole: whether the whole picture is looked at, too.
        track: a function that passes the windows on, for instance to show the progress.

    Raises:
        ArgumentError: `tile` or `overlap` is out of its range.

    Example:
        >>> import numpy as np
        >>> from sn2fpn.config import get_cfg
        >>> from sn2fpn.predict import Predictor, TiledPredictor
        >>> cfg = get_cfg()
        >>> cfg.merge_from_file("configs/quick/faster_rcnn_R18_sni_shapes.yaml")
        >>> predictor = TiledPredictor(Predictor(cfg), tile=64, overlap=0.25)
        >>> predictor(np.zeros((96, 128, 3), np.uint8))["instances"].image_size
        (96, 128)
    """

    def __init__(
        self,
        predictor: Predictor,
        tile: int = 640,
        overlap: float = 0.2,
        whole: bool = True,
        track: Callable[[Sequence[Window]], Iterable[Window]] = iter,
    ) -> None:
        tile_windows((1, 1), tile, overlap)  # checks the numbers
        self.predictor, self.tile, self.overlap, self.whole = predictor, tile, overlap, whole
        self._track = track

    @property
    def model(self) -> Any:
        """The detector."""
        return self.predictor.model

    @property
    def class_names(self) -> list[str]:
        """The class names by contiguous id, as in `pred_classes`."""
        return self.predictor.class_names

    def __call__(self, image: Any) -> dict[str, Any]:
        """Detect objects in one picture.

        Args:
            image: the picture, as `Predictor` takes it.

        Returns:
            A dict whose "instances" are on the CPU and have the fields that `Predictor` gives, best first. The
            `pred_masks` are `sn2fpn.structures.RunLengthMasks`, so that the memory does not grow with the size of the
            picture times the number of objects.

        Raises:
            ArgumentError: see `Predictor`.
        """
        image = as_pixels(image, len(self.model.pixel_mean))
        size = image.shape[0], image.shape[1]
        windows = tile_windows(size, self.tile, self.overlap)
        if self.whole and len(windows) > 1:
            windows.append(Window(0, 0, size[1], size[0]))
        parts = [self._detect(image, window) for window in self._track(windows)]
        found = Instances.cat(parts)
        which = torch.cat([torch.full((len(p),), i) for i, p in enumerate(parts)])
        found = found[~self._dropped(found, which, windows, size)]
        nms_thresh = self.model.roi_heads.nms_thresh
        keep = grouped_nms(found.pred_boxes.tensor, found.scores, found.pred_classes, nms_thresh)
        return {"instances": found[keep]}

    def _detect(self, image: np.ndarray, window: Window) -> Instances:
        part = image[window.y : window.y + window.height, window.x : window.x + window.width]
        return self.predictor.detect_in_window(part, (window.x, window.y), (image.shape[0], image.shape[1]))

    def _dropped(self, found: Instances, which: Tensor, windows: Sequence[Window], size: tuple[int, int]) -> Tensor:
        """Return which detections are dropped because another window knows better (Tensor[N], bool).

        Args:
            found: the detections of all windows (N).
            which (Tensor[N]): the number of the window of each detection.
            windows: the windows.
            size: the (height, width) of the picture.
        """
        boxes, near = found.pred_boxes.tensor, max(2.0, _NEAR * self.tile)
        cut, seen_better = torch.zeros(2, len(found), dtype=torch.bool)
        for number, window in enumerate(windows):
            clear = _clear_of_borders(boxes, window, size, near)
            cut |= ~clear & (which == number)
            if (window.height, window.width) != size:  # What is small is not seen better in the whole picture.
                seen_better |= clear & (which != number)
        return cut & (seen_better | _covered(found, cut, which))


def _clear_of_borders(boxes: Tensor, window: Window, size: tuple[int, int], near: float) -> Tensor:
    """Return which boxes lie inside of a window, and end nowhere near its inner borders (Tensor[N], bool).

    Borders of the window that are borders of the picture, whose (height, width) is `size`, are no inner ones.
    """
    ends = torch.tensor([window.x + window.width, window.y + window.height])
    starts, far = torch.tensor([window.x, window.y]), torch.tensor([size[1], size[0]])
    low = torch.where(starts > 0, starts + near, -torch.inf)
    high = torch.where(ends < far, ends - near, torch.inf)
    return (boxes[:, :2] >= low).all(1) & (boxes[:, 2:] <= high).all(1)


def _covered(found: Instances, cut: Tensor, which: Tensor) -> Tensor:
    """Return the cut boxes that a detection of the whole object covers (Tensor[N], bool).

    Args:
        found: the detections of all windows (N).
        cut (bool Tensor[N]): which boxes may be cut off.
        which (Tensor[N]): the number of the window of each detection.
    """
    boxes, scores, classes = found.pred_boxes.tensor, found.scores, found.pred_classes
    out = torch.zeros_like(cut)
    for number in which[cut].unique():  # One window after the other, so that the table of pairs stays small.
        mine = (cut & (which == number)).nonzero().squeeze(1)
        low, high = boxes[mine, :2].amin(0), boxes[mine, 2:].amax(0)
        near = (boxes[:, :2] < high).all(1) & (boxes[:, 2:] > low).all(1)
        other = (~cut & near).nonzero().squeeze(1)
        shared = torch.minimum(boxes[mine, None, 2:], boxes[other, 2:]) - torch.maximum(
            boxes[mine, None, :2], boxes[other, :2]
        )
        area = (boxes[mine, 2:] - boxes[mine, :2]).prod(1)
        covered = shared.clamp(min=0).prod(2) >= _COVERED * area[:, None]
        same = classes[mine, None] == classes[other]
        sure = scores[other] >= _AS_SURE * scores[mine, None]
        out[mine] = (covered & same & sure).any(1)
    return out
