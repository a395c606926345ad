"""Paste the small masks of boxes into masks of the whole image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.cpu.mask_windows import windows_of_boxes
from ...structures import RunLengthMasks

__all__ = ["paste_masks", "paste_run_lengths"]

_PIXELS_PER_PASS = 2**24
"""Number of pixels in one pass, for which three arrays of 64 MiB are needed."""


@torch.no_grad()
def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Stretch each mask over its box and keep the pixels whose centres reach the threshold.

    Values between the centres of a mask's cells are interpolated linearly, and values outside of the mask are 0. Apart
    from the result, the memory that this takes does not grow with the number of masks.

    Args:
        masks (Tensor[N, M, M]): probabilities.
        boxes (Tensor[N, 4]): corners `(x1, y1, x2, y2)` in pixels of the image; no box may be empty.
        size: height and width of the image.
        threshold: lowest probability of a pixel inside.

    Returns:
        bool Tensor[N, height, width].
    """
    out = torch.zeros(len(masks), *size, dtype=torch.bool, device=masks.device)
    windows = windows_of_boxes(boxes, size, _margin(masks, threshold))
    passes = windows if masks.is_cpu else _whole_images(len(masks), size)
    for some, rows, columns in passes:
        values = _sample(masks[some], boxes[some], _centres(rows, masks), _centres(columns, masks))
        torch.ge(values, threshold, out=out[some, rows, columns])
    return out


@torch.no_grad()
def paste_run_lengths(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> RunLengthMasks:
    """Return the same masks as `paste_masks` in little memory, whatever the size of the image is.

    The arguments are those of `paste_masks`. The work is done on the CPU.
    """
    masks, boxes = masks.cpu(), boxes.cpu()
    windows = [((slice(0, 0), slice(0, 0)), np.zeros((0, 0), dtype=bool))] * len(masks)  # outside of the image
    for some, rows, columns in windows_of_boxes(boxes, size, _margin(masks, threshold)):
        values = _sample(masks[some], boxes[some], _centres(rows, masks), _centres(columns, masks))
        windows[some.start] = ((rows, columns), (values[0] >= threshold).numpy())
    return RunLengthMasks.from_windows(windows, size)


def _margin(masks: Tensor, threshold: float) -> float:
    """Return how far pasted masks may reach beyond their boxes, as a share of the sides of the boxes.

    Between the outermost cells' centres and the zeros around the mask, values fall linearly over one cell. They are
    half of the outermost cells' at the sides of the box, where probabilities thus cannot exceed 1/2.
    """
    return 0.0 if threshold >= 0.5 else 0.5 / masks.shape[-1]


def _whole_images(number: int, size: tuple[int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Yield as many masks at once as fit into a fixed amount of memory, each with all rows and columns."""
    height, width = size
    step = max(1, _PIXELS_PER_PASS // (height * width))
    for first in range(0, number, step):
        yield slice(first, min(first + step, number)), slice(0, height), slice(0, width)


def _centres(pixels: slice, like: Tensor) -> Tensor:
    """Return the centres of the pixels along one axis."""
    return torch.arange(pixels.start, pixels.stop, device=like.device, dtype=torch.float32) + 0.5


def _sample(masks: Tensor, boxes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return the masks (Tensor[N, M, M]), stretched over their boxes, at the rows y and columns x (Tensor[N, Y, X])."""
    x1, y1, x2, y2 = boxes.float().unsqueeze(2).unbind(1)  # each (N, 1)
    padded = F.pad(masks.float(), (1, 1, 1, 1))
    side = masks.shape[1]
    low, share = _cells((x - x1) / (x2 - x1) * side, side)
    take = low[:, None, :].expand(-1, side + 2, -1)
    columns = torch.lerp(padded.gather(2, take), padded.gather(2, take + 1), share[:, None, :])  # (N, M + 2, X)
    low, share = _cells((y - y1) / (y2 - y1) * side, side)
    each = torch.arange(len(masks), device=masks.device)[:, None]
    return torch.lerp(columns[each, low], columns[each, low + 1], share[:, :, None])


def _cells(position: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return, for positions between 0 and `side`, the padded mask's cell before each and the next cell's share."""
    position = (position + 0.5).clamp(0, side + 1)  # Cell centres lie at halves, and the padding adds a cell.
    low = position.floor().clamp(max=side)
    return low.long(), position - low
