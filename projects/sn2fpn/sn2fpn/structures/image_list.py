"""Images of different sizes as one padded batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ImageList"]


class ImageList:
    """A batch padded at the bottom and right, with each image's own size.

    Args:
        tensor: (N, C, H, W) padded batch.
        image_sizes: (height, width) of each image before padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    @staticmethod
    def from_tensors(tensors: list[Tensor], size_divisibility: int = 0, pad_value: float = 0.0) -> ImageList:
        """Pad (C, h, w) tensors to a common size.

        Args:
            size_divisibility: both sides of the batch become multiples of this (0 or 1: no rounding).
            pad_value: value of the padding.
        """
        if not tensors:
            raise ValueError("an ImageList needs at least one image")
        sizes = [(t.shape[-2], t.shape[-1]) for t in tensors]
        d = max(size_divisibility, 1)
        height = -(-max(h for h, _ in sizes) // d) * d
        width = -(-max(w for _, w in sizes) // d) * d
        if len(tensors) == 1:
            h, w = sizes[0]
            return ImageList(F.pad(tensors[0], (0, width - w, 0, height - h), value=pad_value)[None], sizes)
        batch = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), pad_value)
        for slot, t, (h, w) in zip(batch, tensors, sizes):
            slot[..., :h, :w].copy_(t)
        return ImageList(batch, sizes)

    def to(self, device: torch.device | str) -> ImageList:
        return ImageList(self.tensor.to(device), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` without its padding, (C, h, w)."""
        h, w = self.image_sizes[index]
        return self.tensor[index, ..., :h, :w]
