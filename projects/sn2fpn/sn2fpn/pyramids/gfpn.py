"""GFPN, the generalised pyramid: layers of nodes with links along levels, across levels and over layers.

    node_{t,l} = BN(conv3x3(silu(conv1x1(cat(resize(x) for x in inputs of (t, l))))))

Source: Jiang et al., "GiraffeDet: A Heavy-Neck Paradigm for Object Detection", ICLR 2022 (arXiv 2202.04256). Layer 0
holds the inputs; 2 * depth - 1 fusion layers and an output layer follow. Odd layers are computed from coarse to fine,
even layers from fine to coarse. A node reads ("queen fusion") its own level in earlier layers ("log2n": 1, 2, 4,
8, … layers back), the node computed just before it, and the next coarser and finer levels of the layer before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import argument_names, check_choice
from ..layers import Conv2d, Upsampling, get_upsample
from ..layers.cpu.pointwise import pointwise_conv
from ..layers.norm import Norm
from ..ranges import check_count, check_each
from .base import Pyramid
from .registry import register_pyramid

__all__ = ["GFPN", "GiraffeGraph", "gfpn_links"]

Node = tuple[int, int]
"""(layer t, level l)"""


def gfpn_links(levels: Sequence[int], depth: int = 2, skip: str = "log2n") -> dict[Node, list[Node]]:
    """Return the inputs of every node (layer, level) in the order of concatenation.

    The nodes are in the order of computation.

    Args:
        levels: base-2 logarithms of the strides, from fine to coarse.
        depth: D. Layers 1 … 2D - 1 fuse, and layer 2D holds the outputs.
        skip: "log2n" for inputs of the same level from 1, 2, 4, 8, … layers back, or "dense" for those from all
            earlier layers. The inputs of the graph (layer 0) are read by layer 1 only.

    Raises:
        ArgumentError: a depth below 1, or an unknown `skip`.

    Example:
        >>> from sn2fpn.pyramids import gfpn_links
        >>> gfpn_links((2, 3, 4, 5, 6))[3, 4]
        [(1, 4), (2, 4), (3, 5), (2, 5), (2, 3)]
    """
    check_count("depth", depth)
    check_choice("skip", skip, ("log2n", "dense"))
    links: dict[Node, list[Node]] = {}
    for t in range(1, 2 * depth):
        back = [2**k for k in range(t.bit_length()) if 2**k < t] if skip == "log2n" else range(1, t)
        earlier = sorted(t - steps for steps in back) or [0]
        before: list[Node] = []
        for level in reversed(levels) if t % 2 else levels:
            beside = [(t - 1, n) for n in (level + 1, level - 1) if n in levels]
            links[t, level] = [(s, level) for s in earlier] + before + beside
            before = [(t, level)]
    return links | {(2 * depth, level): [(2 * depth - 1, level)] for level in levels}


@register_pyramid("gfpn", renames={"NORM": "node_norm"})
class GFPN(Pyramid):
    """A generalised feature pyramid network (GFPN): 1x1 laterals, then a `GiraffeGraph` over all levels.

    The graph includes p6, or RetinaNet's p6 and p7.

    Args:
        inputs, shared: the trunk's maps, `out_channels`, `in_features` and `bottom_up`, see `Pyramid`.
        norm: norm of the laterals, as in FPN. Without one ("") they have biases.
        depth, inner_channels, skip, separable, upsample: as in `GiraffeGraph`.
        node_norm: `norm` of the `GiraffeGraph`.

    Raises:
        ArgumentError: an unknown choice, a depth or a number of channels below 1, or inputs that do not make a pyramid.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import GFPN
        >>> pyramid = GFPN([8, 16, 32, 64], out_channels=16, inner_channels=8)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> pyramid(maps)["p2"].shape
        torch.Size([1, 16, 32, 48])
    """

    def __init__(
        self,
        *inputs: Any,
        norm: Norm = "",
        depth: int = 2,
        inner_channels: int = 128,
        skip: str = "log2n",
        node_norm: Norm = "BN",
        separable: bool = False,
        upsample: Upsampling = "nearest",
        **shared: Any,
    ) -> None:
        super().__init__(*inputs, **shared)
        self.add_laterals(norm)
        self._graph = {
            "inner_channels": inner_channels,
            "out_channels": self.out_channels,
            "depth": depth,
            "skip": skip,
            "norm": node_norm,
            "separable": separable,
            "upsample": upsample,
        }
        self._add_graph()

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Compute the laterals; p6 is subsampled from the last one."""
        return self.laterals(features)

    def refine(self, maps: list[Tensor]) -> list[Tensor]:
        """Compute the graph over all levels."""
        return self.gfpn(maps)

    def add_p6_p7(self, source: str = "res5") -> None:
        """Add RetinaNet's two levels as in every pyramid ("p5" is the coarsest lateral).

        The graph is made anew with nodes for p7, so weights must be loaded afterwards.
        """
        super().add_p6_p7(source)
        self._add_graph()

    def _add_graph(self) -> None:
        widths = [self.out_channels] * len(self.out_levels)
        with argument_names({"norm": "node_norm"}):
            self.add_parts(gfpn=GiraffeGraph(widths, finest_level=self.out_levels[0], **self._graph))


class GiraffeGraph(nn.Module):
    """The graph of a GFPN, with the nodes `L<t>_p<l>`, over maps that exist on all levels.

    Inputs are resized without changing their channels, those of the coarser level by upsampling and those of the
    finer level by a 3x3 max-pool of stride 2. The 1x1 convolution acts on each pixel alone, so its share of the
    coarser inputs is computed before they are upsampled. The result is equal for an interpolation; for upsampling
    with parameters this order is the definition.

    Args:
        in_channels: channels of each input map, from fine to coarse.
        inner_channels: channels c of the fusion layers.
        out_channels: channels of the output layer.
        depth: D, see `gfpn_links`.
        skip: "log2n" or "dense", see `gfpn_links`.
        norm: norm after each node's 3x3 convolution, see `sn2fpn.layers.get_norm`. Without one ("") the convolution
            has a bias.
        separable: whether a depthwise 3x3 and a 1x1 convolution take the place of each 3x3 convolution.
        upsample: how coarser inputs are upsampled, see `sn2fpn.layers.get_upsample`. Each node that reads a coarser
            level has a module `upsample`.
        finest_level: base-2 logarithm of the first map's stride, for the names of the nodes.

    Raises:
        ArgumentError: an unknown choice, or a depth or a number of channels below 1.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids.gfpn import GiraffeGraph
        >>> graph = GiraffeGraph([4, 8, 8], inner_channels=8, out_channels=16)
        >>> [tuple(y.shape) for y in graph([torch.randn(1, c, 32 // s, 32 // s) for c, s in ((4, 1), (8, 2), (8, 4))])]
        [(1, 16, 32, 32), (1, 16, 16, 16), (1, 16, 8, 8)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        inner_channels: int = 128,
        out_channels: int = 256,
        *,
        depth: int = 2,
        skip: str = "log2n",
        norm: Norm = "BN",
        separable: bool = False,
        upsample: Upsampling = "nearest",
        finest_level: int = 2,
    ) -> None:
        super().__init__()
        check_each("in_channels", in_channels, check_count)
        check_count("inner_channels", inner_channels)
        check_count("out_channels", out_channels)
        self.levels = tuple(range(finest_level, finest_level + len(in_channels)))
        self.links = gfpn_links(self.levels, depth, skip)
        self.output_layer = 2 * depth
        width = {(0, level): channels for level, channels in zip(self.levels, in_channels)}
        for (t, level), inputs in self.links.items():
            width[t, level] = out_channels if t == self.output_layer else inner_channels
            coarser = [i[1] > level for i in inputs]
            node = _Node([width[i] for i in inputs], coarser, width[t, level], norm, separable, upsample)
            self.add_module(f"L{t}_p{level}", node)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute the outputs, Tensor[N, W, H_l, W_l] for each level.

        Args:
            maps: Tensor[N, C_l, H_l, W_l] from fine to coarse; sizes are halved and rounded up from level to level.
        """
        values: dict[Node, Tensor] = {(0, level): x for level, x in zip(self.levels, maps)}
        halved: dict[Node, Tensor] = {}  # A map that two nodes of a coarser level read is pooled once.
        for (t, level), inputs in self.links.items():
            resized = []
            for i in inputs:
                if i[1] < level and i not in halved:
                    halved[i] = F.max_pool2d(values[i], 3, stride=2, padding=1)
                resized.append(halved[i] if i[1] < level else values[i])
            values[t, level] = getattr(self, f"L{t}_p{level}")(resized)
        return [values[self.output_layer, level] for level in self.levels]


class _Node(nn.Module):
    """norm(conv3x3(silu(conv1x1(cat(inputs))))); weights start at PyTorch's default, as in the released code."""

    def __init__(
        self,
        in_channels: list[int],
        coarser: list[bool],
        channels: int,
        norm: Norm,
        separable: bool,
        upsample: Upsampling,
    ) -> None:
        super().__init__()
        self.in_channels, self.coarser = in_channels, coarser
        self.merge = nn.Conv2d(sum(in_channels), channels, 1, bias=False)
        self.conv = Conv2d(channels, channels, 3, padding=1, norm=norm)
        if separable:
            depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
            self.conv = nn.Sequential(depthwise, Conv2d(channels, channels, 1, norm=norm))
        self.upsample = get_upsample(upsample, channels) if any(coarser) else None

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Compute the node from inputs of its size or, where `coarser` says so, of the next coarser level's."""
        weights = self.merge.weight.split(self.in_channels, dim=1)
        fine, coarse = (
            [(x, w) for x, w, is_coarse in zip(inputs, weights, self.coarser) if is_coarse == wanted]
            for wanted in (False, True)
        )
        y = _conv1x1(fine)
        if coarse:
            y = self.upsample.add(y, _conv1x1(coarse))
        return self.conv(F.silu(y))


def _conv1x1(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Compute the sum of 1x1 convolutions, given as (map, weight), as one convolution."""
    if len(parts) == 1:
        return pointwise_conv(*parts[0])
    maps, weights = zip(*parts)
    return pointwise_conv(torch.cat(maps, dim=1), torch.cat(weights, dim=1))
