"""A batch of images of different sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ImageList"]


class ImageList:
    """A batch of images that are padded at the bottom and on the right, with their own sizes.

    Args:
        tensor (Tensor[N, C, H, W]): the padded batch.
        image_sizes: the (height, width) of each image before padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    @staticmethod
    def from_tensors(
        tensors: list[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> ImageList:
        """Pad images to a common size.

        Args:
            tensors (Tensor[C, h, w]): the images.
            size_divisibility: both sides of the batch become multiples of this; 0 and 1 have no effect.
            pad_value: the value of the padding.
            padding_constraints: those of a Detectron2 backbone: a `size_divisibility` in place of the argument, and a
                `square_size` above 0, which both sides of the batch get at least.

        Raises:
            ValueError: there is no image.
        """
        if not tensors:
            raise ValueError("tensors: expected at least one image, found none")
        sizes = [(t.shape[-2], t.shape[-1]) for t in tensors]
        constraints = padding_constraints or {}
        square = constraints.get("square_size", 0)
        least = [*sizes, (square, square)] if square > 0 else sizes
        height, width = ImageList.padded_size(least, constraints.get("size_divisibility", size_divisibility))
        if len(tensors) == 1:
            h, w = sizes[0]
            return ImageList(F.pad(tensors[0], (0, width - w, 0, height - h), value=pad_value)[None], sizes)
        batch = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), pad_value)
        for slot, t, (h, w) in zip(batch, tensors, sizes):
            slot[..., :h, :w].copy_(t)
        return ImageList(batch, sizes)

    @staticmethod
    def padded_size(sizes: Sequence[tuple[int, int]], size_divisibility: int = 0) -> tuple[int, int]:
        """Return the smallest (height, width) that holds images of these sizes; see `from_tensors`."""
        d = max(size_divisibility, 1)
        return -(-max(h for h, _ in sizes) // d) * d, -(-max(w for _, w in sizes) // d) * d

    def to(self, device: torch.device | str) -> ImageList:
        """Return the batch on a device."""
        return ImageList(self.tensor.to(device), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index` without its padding (Tensor[C, h, w])."""
        h, w = self.image_sizes[index]
        return self.tensor[index, ..., :h, :w]
