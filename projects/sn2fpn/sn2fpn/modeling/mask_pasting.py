"""From the small masks of boxes to masks of the whole image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["paste_masks"]

_PIXELS_PER_PASS = 2**24  # of float32 at once on a GPU: three arrays of 64 MiB


@torch.no_grad()
def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Stretch each mask over its box and keep the pixels whose centres reach the threshold.

    Between the centres of a mask's cells values are interpolated linearly; outside of the mask they are 0.
    Besides the result, memory does not grow with the number of masks: on a CPU they are pasted one by one,
    each within its box; a GPU works on as many at once as fit in a fixed amount.

    Args:
        masks: (N, M, M) probabilities.
        boxes: (N, 4) XYXY in pixels of the image, none empty.
        size: (height, width) of the image.
        threshold: lowest probability inside.

    Returns:
        (N, height, width) bool.
    """
    height, width = size
    out = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    if masks.is_cuda:
        x, y = _centres(0, width, masks), _centres(0, height, masks)
        step = max(1, _PIXELS_PER_PASS // (height * width))
        for part, mask, box in zip(out.split(step), masks.split(step), boxes.split(step)):
            torch.ge(_sample(mask, box, y, x), threshold, out=part)
        return out
    for canvas, mask, box in zip(out, masks, boxes):
        x1, y1, x2, y2 = box.tolist()
        left, right = max(int(x1), 0), min(int(x2) + 1, width)
        top, bottom = max(int(y1), 0), min(int(y2) + 1, height)
        if left < right and top < bottom:
            x, y = _centres(left, right, masks), _centres(top, bottom, masks)
            torch.ge(_sample(mask[None], box[None], y, x)[0], threshold, out=canvas[top:bottom, left:right])
    return out


def _centres(first: int, end: int, like: Tensor) -> Tensor:
    """Centres of the pixels first … end - 1."""
    return torch.arange(first, end, device=like.device, dtype=torch.float32) + 0.5


def _sample(masks: Tensor, boxes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(N, M, M) masks stretched over (N, 4) boxes, at the rows y and columns x: (N, Y, X)."""
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
    """Where positions in 0 … side fall in a padded mask: the cell before each, and the next one's share."""
    position = (position + 0.5).clamp(0, side + 1)  # cell centres lie at halves, and the padding adds one cell
    low = position.floor().clamp(max=side)
    return low.long(), position - low
