"""The RPN's layers: a 3x3 conv, then objectness and offsets per anchor, shared by all levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError

__all__ = ["RPNHead"]


class RPNHead(nn.Module):
    """3x3 conv(s) with ReLU, then 1x1 convs for objectness logits and box offsets (Faster R-CNN, fig. 3).

    State-dict names are Detectron2's: `conv` (several: `conv.conv0`, `conv.conv1` …), `objectness_logits`,
    `anchor_deltas`. Weights start normal with standard deviation 0.01, biases at 0.

    Args:
        in_channels: of every input map.
        num_anchors: A, anchors per position.
        conv_dims: output channels of each 3x3 conv; -1: as many as its input.
    """

    def __init__(self, in_channels: int, num_anchors: int, conv_dims: Sequence[int] = (-1,)) -> None:
        super().__init__()
        if not conv_dims or any(d != -1 and d <= 0 for d in conv_dims):
            raise UserError("MODEL.RPN.CONV_DIMS expects channel counts, or -1 for the input's, found "
                            f"{list(conv_dims)}")
        dims = [in_channels]
        dims.extend(dims[-1] if d == -1 else d for d in conv_dims)
        convs = [nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(dims)]
        if len(convs) == 1:
            self.conv: nn.Module = convs[0]
        else:
            self.conv = nn.Sequential()
            for i, conv in enumerate(convs):
                self.conv.add_module(f"conv{i}", conv)
        self.num_anchors = num_anchors
        self.objectness_logits = nn.Conv2d(dims[-1], num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(dims[-1], num_anchors * 4, 1)
        for layer in (*convs, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predictions for every anchor, in the order of `AnchorGenerator`.

        Args:
            features: per level, (N, C, H, W).

        Returns:
            Per level, logits (N, H * W * A) and offsets (N, H * W * A, 4).
        """
        logits, deltas = [], []
        for x in features:
            for conv in self.conv if isinstance(self.conv, nn.Sequential) else (self.conv,):
                x = F.relu(conv(x), inplace=True)
            logits.append(self.objectness_logits(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.anchor_deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4))
        return logits, deltas

    def sparse_is_smaller(self, features: Sequence[Tensor], num_samples: int) -> bool:
        """Whether `at` for this many anchors of the batch is less work than the dense pass backwards.

        Its patches hold 9 input vectors per anchor; beyond as many as the maps have, they would cost memory.
        """
        positions = sum(f.shape[0] * f.shape[2] * f.shape[3] for f in features)
        return isinstance(self.conv, nn.Conv2d) and 9 * num_samples <= positions

    def at(self, features: Sequence[Tensor], image: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """The same predictions for S anchors only: the 3x3 conv as a matrix product with S input patches.

        Args:
            features: per level, (N, C, H, W).
            image, anchor: (S,) int64; anchors are counted over all levels.

        Returns:
            Logits (S,) and offsets (S, 4).
        """
        weight = self.conv.weight.permute(0, 2, 3, 1).flatten(1)  # (C_out, 9 * C_in)
        cell = anchor % self.num_anchors
        position = anchor // self.num_anchors  # over all levels
        patches, rows, start = [], [], 0
        for x in features:
            size = x.shape[2] * x.shape[3]
            here = ((position >= start) & (position < start + size)).nonzero().squeeze(1)
            patches.append(_patches_3x3(x, image[here], position[here] - start))
            rows.append(here)
            start += size
        order = torch.cat(rows).argsort()
        hidden = F.relu(F.linear(torch.cat(patches), weight, self.conv.bias), inplace=True)[order]
        logits = F.linear(hidden, self.objectness_logits.weight.flatten(1), self.objectness_logits.bias)
        deltas = F.linear(hidden, self.anchor_deltas.weight.flatten(1), self.anchor_deltas.bias)
        each = torch.arange(len(anchor), device=anchor.device)
        return logits[each, cell], deltas.unflatten(1, (self.num_anchors, 4))[each, cell]


def _patches_3x3(x: Tensor, image: Tensor, position: Tensor) -> Tensor:
    """(S, 9 * C): the neighbourhood, rows outermost, of positions `y * W + x`; zeros beyond the border."""
    _, channels, height, width = x.shape
    step = torch.arange(-1, 2, device=x.device)
    ys = (position // width)[:, None, None] + step[:, None]
    xs = (position % width)[:, None, None] + step
    inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
    index = (image[:, None, None] * height + ys.clamp(0, height - 1)) * width + xs.clamp(0, width - 1)
    vectors = x.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, index.flatten())
    return (vectors * inside.flatten()[:, None].to(x.dtype)).view(len(image), 9 * channels)
