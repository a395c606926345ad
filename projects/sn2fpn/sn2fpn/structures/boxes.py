"""Axis-aligned boxes, (x1, y1, x2, y2) in absolute pixels."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

__all__ = ["BoxMode", "Boxes", "pairwise_iou"]


class BoxMode(IntEnum):
    """Box formats found in data set dicts (Detectron2's numbering)."""

    XYXY_ABS = 0
    XYWH_ABS = 1

    @staticmethod
    def convert(box: list[float] | np.ndarray, from_mode: BoxMode, to_mode: BoxMode) -> np.ndarray:
        """Convert one box (4,) or many (N, 4) between the two formats; float64."""
        out = np.array(box, dtype=np.float64)
        if from_mode == to_mode:
            return out
        sign = 1.0 if to_mode == BoxMode.XYXY_ABS else -1.0
        out[..., 2:] += sign * out[..., :2]
        return out


class Boxes:
    """N boxes as one float32 tensor.

    Args:
        tensor: (N, 4) `(x1, y1, x2, y2)` in absolute pixels; anything `torch.as_tensor` takes.
    """

    def __init__(self, tensor: Tensor | np.ndarray | list[list[float]]) -> None:
        tensor = torch.as_tensor(tensor)
        if not tensor.is_floating_point() or tensor.dtype == torch.float64:
            tensor = tensor.to(torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.shape[1] != 4:
            raise ValueError(f"Boxes expects a tensor of shape (N, 4), found {tuple(tensor.shape)}")
        self.tensor = tensor

    def clone(self) -> Boxes:
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str) -> Boxes:
        return Boxes(self.tensor.to(device))

    def area(self) -> Tensor:
        """(N,) areas in square pixels."""
        wh = self.tensor[:, 2:] - self.tensor[:, :2]
        return wh[:, 0] * wh[:, 1]

    def clip(self, image_size: tuple[int, int]) -> None:
        """Clip in place to an image of (height, width)."""
        h, w = image_size
        x1, y1, x2, y2 = self.tensor.unbind(1)
        self.tensor = torch.stack([x1.clamp(0, w), y1.clamp(0, h), x2.clamp(0, w), y2.clamp(0, h)], 1)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """(N,) bool: both sides longer than `threshold` pixels."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(1)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply x and y coordinates in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    def get_centers(self) -> Tensor:
        """(N, 2) centres (x, y)."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """(N,) bool: within `boundary_threshold` pixels of an image of (height, width)."""
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
        """Concatenate; an empty list gives no boxes."""
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
    """(N, M) intersection over union; 0 for empty boxes, never NaN."""
    return torch.nan_to_num(box_iou(boxes1.tensor, boxes2.tensor), nan=0.0)
