"""The layers of the RPN: a 3x3 convolution, then objectness and offsets per anchor, shared by all levels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ArgumentError
from ...ranges import check_count, check_each
from ..hooked import has_hooks, relu_of
from ..transfer import rows_of_groups, tensor_like

__all__ = ["RPNHead", "TopAnchors"]


class TopAnchors(NamedTuple):
    """The predictions for the best anchors of N images: some of each level, one level after the other.

    Attributes:
        anchor (int64 Tensor[N, K]): the index of each anchor among those of all levels.
        level (int64 Tensor[K]): the level of each anchor.
        logits (float32 Tensor[N, K]): the objectness logits, in falling order within a level.
        deltas (Tensor[N, K, 4]): the box offsets.
    """

    anchor: Tensor
    level: Tensor
    logits: Tensor
    deltas: Tensor


class RPNHead(nn.Module):
    """The head of the RPN: 3x3 convolutions with ReLU, then 1x1 convolutions for logits and offsets.

    See Faster R-CNN, figure 3. The names in the state dict are Detectron2's: `conv` (`conv.conv0`, `conv.conv1`, ...
    when there are several), `objectness_logits` and `anchor_deltas`. Weights start from a normal distribution with a
    standard deviation of 0.01, biases from 0.

    Args:
        in_channels: number of channels of every input map.
        num_anchors: number A of anchors per position.
        conv_dims: output channels of each 3x3 convolution; -1 means as many as its input has.

    Raises:
        ArgumentError: a number is not positive, or `conv_dims` is empty or holds one that is neither positive nor -1.
    """

    def __init__(self, in_channels: int, num_anchors: int, conv_dims: Sequence[int] = (-1,)) -> None:
        super().__init__()
        conv_dims = check_each("conv_dims", conv_dims, check_count, at_least=-1)
        if not conv_dims or 0 in conv_dims:
            raise ArgumentError("conv_dims", f"expected numbers of channels, or -1 for the input's, found {conv_dims}")
        dims = [check_count("in_channels", in_channels)]
        dims.extend(dims[-1] if d == -1 else d for d in conv_dims)
        convs = [nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(dims)]
        if len(convs) == 1:
            self.conv: nn.Module = convs[0]
        else:
            self.conv = nn.Sequential()
            for i, conv in enumerate(convs):
                self.conv.add_module(f"conv{i}", conv)
        self.in_channels = in_channels
        self.num_anchors = check_count("num_anchors", num_anchors)
        self.objectness_logits = nn.Conv2d(dims[-1], num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(dims[-1], num_anchors * 4, 1)
        for layer in (*convs, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the predictions for all anchors, in the order of `AnchorGenerator`.

        Args:
            features (Tensor[N, C, H, W] per level): the map of each level.

        Returns:
            For each level, the logits (Tensor[N, H * W * A]) and the offsets (Tensor[N, H * W * A, 4]).
        """
        hidden = [self._hidden(x) for x in features]
        logits = [self._logits(h) for h in hidden]
        return logits, [self._deltas(h) for h in hidden]

    def best(self, features: Sequence[Tensor], topk: int) -> TopAnchors:
        """Return the predictions for the `topk` anchors of each level with the highest logits of each image.

        Offsets are computed for these anchors only.

        Args:
            features (Tensor[N, C, H, W] per level): the map of each level.
            topk: the number of anchors of a level; of a level with fewer, all are returned.
        """
        anchors, levels, logits, picked, start = [], [], [], [], 0
        plain = _is_plain(self.anchor_deltas, 1)
        image = torch.arange(len(features[0]), device=features[0].device)[:, None]
        for level, x in enumerate(features):
            hidden = self._hidden(x)
            of_all = self._logits(hidden).float()
            of_best, anchor = of_all.topk(min(topk, of_all.shape[1]), dim=1)
            logits.append(of_best)
            if plain:
                picked.append(hidden.flatten(2).transpose(1, 2)[image, anchor // self.num_anchors])
            else:
                picked.append(self._deltas(hidden)[image, anchor])
            anchors.append(anchor + start)
            levels.append(torch.full_like(anchor[0], level))
            start += of_all.shape[1]
        anchor, deltas = torch.cat(anchors, dim=1), torch.cat(picked, dim=1)
        deltas = self._deltas_of(deltas, anchor) if plain else deltas
        return TopAnchors(anchor, torch.cat(levels), torch.cat(logits, dim=1), deltas)

    def at(self, features: Sequence[Tensor], image: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions for S anchors, from which the losses are computed.

        S is usually small. The 3x3 convolution is then a matrix product with S patches of the input, so that neither
        it nor its backward pass has to go over whole maps. Layers that were put in place of the head's own are called.

        Args:
            features (Tensor[N, C, H, W] per level): the map of each level.
            image (int64 Tensor[S]): the index of each anchor's image.
            anchor (int64 Tensor[S]): the index of each anchor among those of all levels.

        Returns:
            The logits (Tensor[S]) and the offsets (Tensor[S, 4]).
        """
        plain = _is_plain(self.conv, 3) and _is_plain(self.objectness_logits, 1) and _is_plain(self.anchor_deltas, 1)
        if not plain or len(anchor) > sum(x[:, 0].numel() for x in features):
            logits, deltas = (torch.cat(x, dim=1) for x in self(features))
            return logits[image, anchor], deltas[image, anchor]
        patches, rows = _patches_3x3(features, image, anchor // self.num_anchors)
        weight = self.conv.weight.permute(0, 2, 3, 1).flatten(1)  # (C_out, 9 * C_in)
        hidden = F.relu(F.linear(patches, weight, self.conv.bias), inplace=True)[rows]
        logits = F.linear(hidden, self.objectness_logits.weight.flatten(1), self.objectness_logits.bias)
        logits = logits.gather(1, (anchor % self.num_anchors)[:, None]).squeeze(1)
        return logits, self._deltas_of(hidden, anchor)

    def _hidden(self, x: Tensor) -> Tensor:
        for conv in self.conv if isinstance(self.conv, nn.Sequential) else (self.conv,):
            x = relu_of(conv, conv(x))
        return x

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)

    def _deltas(self, hidden: Tensor) -> Tensor:
        return self.anchor_deltas(hidden).permute(0, 2, 3, 1).reshape(len(hidden), -1, 4)

    def _deltas_of(self, vectors: Tensor, anchor: Tensor) -> Tensor:
        """Return the offsets (..., 4) of anchors (...) from the hidden vectors (..., C) at their positions."""
        deltas = F.linear(vectors, self.anchor_deltas.weight.flatten(1), self.anchor_deltas.bias)
        cell = (anchor % self.num_anchors)[..., None, None].expand(*anchor.shape, 1, 4)
        return deltas.unflatten(-1, (self.num_anchors, 4)).gather(-2, cell).squeeze(-2)


def _is_plain(layer: nn.Module, side: int) -> bool:
    """Return whether a layer is a convolution of stride 1 without hooks, which a matrix product can replace."""
    if type(layer) is not nn.Conv2d or has_hooks(layer):
        return False
    form = layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups, layer.padding_mode
    return form == ((side, side), (side // 2, side // 2), (1, 1), (1, 1), 1, "zeros")


def _patches_3x3(features: Sequence[Tensor], image: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 3x3 neighbourhoods of some positions, level by level, and the row in which each one is found.

    Args:
        features (Tensor[N, C, H, W] per level): the maps.
        image (int64 Tensor[S]): the index of the image of each position.
        position (int64 Tensor[S]): the positions, counted along the rows of the first map, then of the next one.

    Returns:
        The neighbourhoods as vectors (Tensor[S, 9 * C]), whose rows vary slowest and which are zero beyond the border;
        and the row (int64 Tensor[S]) in which that of each position is found.
    """
    sizes = [tuple(x.shape[2:]) for x in features]
    starts = list(itertools.accumulate((h * w for h, w in sizes), initial=0))
    level = sum((position >= start for start in starts[1:-1]), start=torch.zeros_like(position))
    of_levels = rows_of_groups(level, len(features))
    order = torch.cat(of_levels)
    table = tensor_like([(*size, start) for size, start in zip(sizes, starts)], position)
    height, width, start = table[level[order]].unsqueeze(2).unbind(1)  # Tensor[S, 1] each
    position = position[order, None] - start
    step = torch.arange(9, device=position.device)
    ys, xs = position // width + (step // 3 - 1), position % width + (step % 3 - 1)
    inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
    pixels = (image[order, None] * height + ys) * width + xs  # counted over the images of a level
    pixels = torch.where(inside, pixels, 0)
    vectors = torch.cat(
        [
            x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).index_select(0, here.flatten())
            for x, here in zip(features, pixels.split([len(rows) for rows in of_levels]))
        ]
    )
    vectors = vectors * inside.flatten()[:, None].to(vectors.dtype)
    return vectors.view(len(order), 9 * vectors.shape[1]), order.argsort()
