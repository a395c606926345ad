"""Axis-aligned boxes `(x1, y1, x2, y2)` in absolute pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou, clip_boxes_to_image

__all__ = ["Boxes", "pairwise_iou"]


class Boxes:
    """A list of N boxes, stored as one floating-point tensor.

    Args:
        tensor: the boxes `(x1, y1, x2, y2)` in absolute pixels (Tensor[N, 4], or anything that `torch.as_tensor`
            takes). Integers and float64 become float32.

    Raises:
        ValueError: the tensor has another shape.
    """

    def __init__(self, tensor: Tensor | np.ndarray | list[list[float]]) -> None:
        tensor = torch.as_tensor(tensor)
        if not tensor.is_floating_point() or tensor.dtype == torch.float64:
            tensor = tensor.to(torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.shape[1] != 4:
            raise ValueError(f"tensor: expected the shape (N, 4), found {tuple(tensor.shape)}")
        self.tensor = tensor

    def clone(self) -> Boxes:
        """Return a copy."""
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Boxes:
        """Return the boxes on a device; `non_blocking` is that of `Tensor.to`."""
        return Boxes(self.tensor.to(device, non_blocking=non_blocking))

    def area(self) -> Tensor:
        """Return the area of each box in square pixels (Tensor[N])."""
        return box_area(self.tensor)

    def clip(self, image_size: tuple[int, int]) -> None:
        """Clip the boxes in place to an image of (height, width)."""
        self.tensor = clip_boxes_to_image(self.tensor, image_size)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Return whether both sides of each box are longer than `threshold` pixels (Tensor[N], bool)."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(1)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the x and y coordinates in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    def get_centers(self) -> Tensor:
        """Return the centres (x, y) of the boxes (Tensor[N, 2])."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """Return whether each box lies in an image of (height, width) (Tensor[N], bool).

        Boxes may reach up to `boundary_threshold` pixels beyond the image.
        """
        h, w = box_size
        t = self.tensor
        return (
            (t[:, :2] >= -boundary_threshold).all(1)
            & (t[:, 2] < w + boundary_threshold)
            & (t[:, 3] < h + boundary_threshold)
        )

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def cat(boxes_list: list[Boxes]) -> Boxes:
        """Concatenate lists of boxes; without any the result has no boxes."""
        if not boxes_list:
            return Boxes(torch.empty(0, 4))
        return Boxes(torch.cat([b.tensor for b in boxes_list]))

    def __getitem__(self, item: int | slice | Tensor) -> Boxes:
        picked = self.tensor[item]
        return Boxes(picked.view(1, -1) if isinstance(item, int) else picked)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the intersection over union of each pair (Tensor[N, M]), which is 0 for empty boxes."""
    return torch.nan_to_num(box_iou(boxes1.tensor, boxes2.tensor), nan=0.0)
