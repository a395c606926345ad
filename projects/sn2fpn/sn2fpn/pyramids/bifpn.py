"""BiFPN: weighted fusion, top-down and bottom-up, repeated. EfficientDet (Tan et al., CVPR 2020, arXiv 1911.09070).

    A_i = f(In_i, up(A_{i+1})),  A_6 = In_6;  O_2 = f(In_2, up(A_3)),  O_i = f(In_i, A_i, down(O_{i-1})),
    O_6 = f(In_6, down(O_5));  f(x_1, …) = norm(conv(swish(sum_k w_k x_k / (sum_k w_k + 1e-4)))),  w_k = relu(edge_k)

This is one cell; the next one reads O_2 … O_6. conv is a separable 3x3 convolution, up is nearest interpolation, and
down is a 3x3 max-pool of stride 2. In_l = norm(conv1x1(C_l)) and In_6 = down(norm(conv1x1(C_5))), so p6 is learned
like the other levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, check_choice
from ..layers import Conv2d, Upsampling, get_norm, get_upsample, kaiming_normal_per_group
from ..layers.norm import Norm
from ..ranges import check_count
from .base import Pyramid
from .registry import register_pyramid

__all__ = ["BiFPN"]

_NORM = partial(get_norm, "BN", eps=1e-3, momentum=0.01)


@register_pyramid("bifpn")
class BiFPN(Pyramid):
    """A weighted bidirectional pyramid (BiFPN): cells of weighted sums, from coarse to fine and back.

    The coarsest output, p6 (or, after `add_p6_p7`, p6 and p7), is fused like the others. Modules are named
    `bifpn_lateral<l>` (1x1, p6 included), `bifpn_cell<k>.top_down<l>` (A_l) and `bifpn_cell<k>.output<l>` (O_l).
    There are four differences from the reference: every level has a projection (the reference leaves out those that
    have W channels already), nodes that read the same trunk map share its projection unless `per_edge_proj`, max-pools
    pad all sides unless `down_pad` is "tf_same", and convolutions start Kaiming-normal.

    Args:
        inputs, shared: the trunk's maps, `out_channels`, `in_features` and `bottom_up`, see `Pyramid`.
        num_cells: number of cells, at least 1.
        fusion: "fast" (the normalised sum above), "softmax" (of the edges' weights), or "sum" (without weights).
        separable: whether a node's convolution is a depthwise 3x3 and a 1x1 convolution instead of a dense 3x3 one.
        down_pad: padding of the max-pool, "same" (1 on all sides) or "tf_same" (as TensorFlow pads: only at the end
            on an axis of even length). Sizes are halved and rounded up in both.
        per_edge_proj: whether O_l has a projection `bifpn_output_lateral<l>` of its own where both A_l and O_l read
            C_l, as in the reference.
        norm: norm of projections and nodes, see `sn2fpn.layers.get_norm`; by default BN with eps 1e-3, momentum 0.01.
        upsample: up, see `sn2fpn.layers.get_upsample`. Each node that reads a coarser map has a module `upsample`; it
            reads the map after its weight w_k.

    Raises:
        ArgumentError: an unknown choice, no cell, or inputs that do not make a pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import BiFPN
        >>> pyramid = BiFPN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> pyramid(maps)["p6"].shape
        torch.Size([1, 16, 2, 3])
    """

    def __init__(
        self,
        *inputs: Any,
        num_cells: int = 3,
        fusion: str = "fast",
        separable: bool = True,
        down_pad: str = "same",
        per_edge_proj: bool = False,
        norm: Norm = _NORM,
        upsample: Upsampling = "nearest",
        **shared: Any,
    ) -> None:
        super().__init__(*inputs, **shared)
        self.num_cells, width = check_count("num_cells", num_cells), self.out_channels
        self.down_pad = check_choice("down_pad", down_pad, ("same", "tf_same"))
        self._node = {
            "width": width,
            "fusion": check_choice("fusion", fusion, ("fast", "softmax", "sum")),
            "separable": separable,
            "norm": norm,
            "upsample": upsample,
        }

        def projection(i: int) -> Conv2d:
            # As in the reference, there is a bias even before a norm.
            conv = Conv2d(self.in_channels[i], width, 1, bias=True, norm=norm)
            kaiming_normal_per_group(conv)
            return conv

        self.add_per_level(bifpn_lateral=projection)
        self.add_parts(**{f"bifpn_lateral{self.levels[-1] + 1}": projection(-1)})
        self.per_edge_proj = per_edge_proj
        if per_edge_proj:
            self.add_per_level(bifpn_output_lateral=lambda i: projection(i) if i else None)
        self._add_cells()

    def _add_cells(self) -> None:
        names = [f"bifpn_cell{k}" for k in range(1, self.num_cells + 1)]
        self.add_parts(**{name: _Cell(self.out_levels, partial(_Node, **self._node), self.down_pad) for name in names})

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Compute the projections, then the cells."""
        maps = [conv(x) for conv, x in zip(self.per_level("bifpn_lateral"), features)]
        for_outputs = list(maps)
        if self.per_edge_proj:
            convs = self.per_level("bifpn_output_lateral")
            for_outputs[1:] = [conv(x) for conv, x in zip(convs[1:], features[1:])]
        coarse = getattr(self, f"bifpn_lateral{self.levels[-1] + 1}")(features[-1])
        for _ in self.out_levels[len(maps) :]:
            coarse = _down(coarse, self.down_pad)
            maps.append(coarse)
            for_outputs.append(coarse)
        for k in range(1, self.num_cells + 1):
            maps = for_outputs = getattr(self, f"bifpn_cell{k}")(maps, for_outputs)
        return maps

    def add_p6_p7(self, source: str = "res5") -> None:
        """Add RetinaNet's two levels in EfficientDet's way: In_7 = down(In_6), and the cells fuse one more level.

        The cells are made anew, so weights must be loaded afterwards.

        Args:
            source: the trunk's coarsest map, which In_6 is computed from.

        Raises:
            ArgumentError: another source.
        """
        if source != self.in_features[-1]:
            raise ArgumentError(
                "source",
                f"BiFPN computes p6 and p7 from the trunk's coarsest map {self.in_features[-1]!r}; found {source!r}",
            )
        self._name_outputs(extra_levels=2)
        self._add_cells()


class _Cell(nn.Module):
    """One pass down and one pass up, over two or more levels."""

    def __init__(self, levels: Sequence[int], node: Callable[..., nn.Module], down_pad: str) -> None:
        super().__init__()
        self.levels, self.down_pad = tuple(levels), down_pad
        finest, *inner, coarsest = self.levels
        for level in reversed(inner):
            self.add_module(f"top_down{level}", node(2, reads_coarser=True))
        self.add_module(f"output{finest}", node(2, reads_coarser=True))
        for level in inner:
            self.add_module(f"output{level}", node(3))
        self.add_module(f"output{coarsest}", node(2))

    def forward(self, maps: list[Tensor], for_outputs: list[Tensor]) -> list[Tensor]:
        """Compute the outputs O_l from the inputs In_l, as A_l and as O_l read them; all from fine to coarse."""
        last = len(maps) - 1
        between = list(maps)  # A_l on the inner levels
        for i in reversed(range(1, last)):
            between[i] = getattr(self, f"top_down{self.levels[i]}")([maps[i]], between[i + 1])
        outputs = [getattr(self, f"output{self.levels[0]}")([for_outputs[0]], between[1])]
        for i in range(1, last + 1):
            inputs = [for_outputs[i], between[i]] if i < last else [for_outputs[i]]
            outputs.append(getattr(self, f"output{self.levels[i]}")([*inputs, _down(outputs[-1], self.down_pad)]))
        return outputs


class _Node(nn.Module):
    """norm(conv(swish(weighted sum))); `edges` holds the learned weights in the order of the inputs."""

    def __init__(
        self,
        num_edges: int,
        *,
        width: int,
        fusion: str,
        separable: bool,
        norm: Norm,
        upsample: Upsampling,
        reads_coarser: bool = False,
    ) -> None:
        super().__init__()
        self.fusion = fusion
        if fusion != "sum":
            self.edges = nn.Parameter(torch.ones(num_edges))
        if separable:
            self.depthwise = Conv2d(width, width, 3, padding=1, groups=width, bias=False)
            self.pointwise = Conv2d(width, width, 1, bias=True, norm=norm)
        else:
            self.dense = Conv2d(width, width, 3, padding=1, bias=True, norm=norm)
        self.separable = separable
        for conv in self.children():
            kaiming_normal_per_group(conv)
        self.upsample = get_upsample(upsample, width) if reads_coarser else None

    def forward(self, maps: list[Tensor], coarse: Tensor | None = None) -> Tensor:
        """Compute the node from maps of its own size and, as the last input, a coarser map -> Tensor[N, W, H, W']."""
        inputs = maps if coarse is None else [*maps, coarse]
        if self.fusion != "sum":
            inputs = [x * share for x, share in zip(inputs, self.shares().unbind())]
        z = inputs[0]
        for x in inputs[1 : len(maps)]:
            z = z + x
        if coarse is not None:
            z = self.upsample.add(z, inputs[-1])
        z = F.silu(z)
        return self.pointwise(self.depthwise(z)) if self.separable else self.dense(z)

    def shares(self) -> Tensor:
        """Return the factors of the inputs, Tensor[edges]."""
        if self.fusion == "softmax":
            return self.edges.softmax(0)
        positive = self.edges.relu()
        return positive / (positive.sum() + 1e-4)


def _down(x: Tensor, pad: str) -> Tensor:
    """Compute a 3x3 max-pool of stride 2: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
    if pad == "tf_same":  # Rounding up lets the last window of an even axis reach over the end.
        return F.max_pool2d(x, 3, 2, padding=(x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True)
    return F.max_pool2d(x, 3, 2, padding=1)
