"""GFPN, the generalised pyramid: layers of nodes with links along levels, across levels and over layers.

    node_{t,l} = BN(conv3x3(silu(conv1x1(cat(resize(x) for x in inputs of (t, l))))))

Jiang et al., "GiraffeDet: A Heavy-Neck Paradigm for Object Detection", ICLR 2022 (arXiv 2202.04256). Layer 0 holds the
inputs; 2 * depth - 1 fusion layers and an output layer follow. Odd layers are computed from coarse to fine, even
ones from fine to coarse. A node reads ("queen fusion") its own level in earlier layers ("log2n": 1, 2, 4, 8, …
layers back), the node computed just before it, and the next coarser and finer levels of the layer before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import Conv2d, check_upsampling, upsample_add
from ..layers.norm import Norm
from .base import InputShape, Pyramid
from .registry import register_pyramid

__all__ = ["GFPN", "GiraffeGraph", "gfpn_links"]

Node = tuple[int, int]
"""(layer t, level l)"""


def gfpn_links(levels: Sequence[int], depth: int = 2, skip: str = "log2n") -> dict[Node, list[Node]]:
    """The inputs of every node (layer, level), in the order of concatenation; nodes in the order of computation.

    Args:
        levels: log2 strides, fine to coarse.
        depth: D; layers 1 … 2D - 1 fuse, layer 2D holds the outputs.
        skip: same-level inputs from 1, 2, 4, 8, … layers back ("log2n"), or from all earlier layers ("dense"). The
            inputs (layer 0) are read by layer 1 only.

    Raises:
        UserError: depth < 1 or unknown `skip`.

    Example:
        >>> from sn2fpn.pyramids import gfpn_links
        >>> gfpn_links((2, 3, 4, 5, 6))[3, 4]
        [(1, 4), (2, 4), (3, 5), (2, 5), (2, 3)]
    """
    if depth < 1:
        raise UserError(f"MODEL.GFPN.DEPTH: expected at least 1, found {depth}")
    if skip not in ("log2n", "dense"):
        raise UserError(f"MODEL.GFPN.SKIP: found {skip!r}{did_you_mean(skip, ('log2n', 'dense'))}")
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


class GFPN(Pyramid):
    """1x1 laterals (p6, or RetinaNet's p6 and p7, included), then a `GiraffeGraph` over all levels.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W of laterals and outputs.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        norm: of the laterals, as in FPN; "": none, and they have biases.
        depth, inner_channels, skip, node_norm, separable, upsample: as in `GiraffeGraph`.

    Raises:
        UserError: an unknown choice, depth < 1, or inputs that make no pyramid.

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
        input_shape: InputShape | None = None,
        out_channels: int = 256,
        *,
        in_features: Sequence[str] = (),
        bottom_up: nn.Module | None = None,
        norm: Norm = "",
        depth: int = 2,
        inner_channels: int = 128,
        skip: str = "log2n",
        node_norm: Norm = "BN",
        separable: bool = False,
        upsample: str = "nearest",
    ) -> None:
        super().__init__(input_shape, out_channels, in_features=in_features, bottom_up=bottom_up)
        self.add_laterals(norm)
        self._graph = dict(
            inner_channels=inner_channels,
            out_channels=out_channels,
            depth=depth,
            skip=skip,
            norm=node_norm,
            separable=separable,
            upsample=upsample,
        )
        self._add_graph()

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """The laterals; p6 is subsampled from the last."""
        return self.laterals(features)

    def refine(self, maps: list[Tensor]) -> list[Tensor]:
        """The graph over all levels."""
        return self.gfpn(maps)

    def add_p6_p7(self, source: str = "res5") -> None:
        """As in every pyramid; the graph, made anew, then has nodes for p7 too. "p5" is the coarsest lateral."""
        super().add_p6_p7(source)
        self._add_graph()

    def _add_graph(self) -> None:
        widths = [self.out_channels] * len(self.out_levels)
        self.add_parts(gfpn=GiraffeGraph(widths, finest_level=self.out_levels[0], **self._graph))


class GiraffeGraph(nn.Module):
    """The nodes of a GFPN, `L<t>_p<l>`, over maps that exist on all levels.

    Inputs are resized without changing their channels: nearest from the coarser level, 3x3/2 max-pool from the finer.
    As the 1x1 conv acts on each pixel alone, its share of coarser inputs is computed before they are upsampled.

    Args:
        in_channels: of each input map, fine to coarse.
        inner_channels: c of the fusion layers.
        out_channels: of the output layer.
        depth: D, see `gfpn_links`.
        skip: "log2n" or "dense", see `gfpn_links`.
        norm: after each node's 3x3 conv, see `get_norm`; "": none, and the conv has a bias.
        separable: a depthwise 3x3 conv and a 1x1 conv instead of each 3x3.
        upsample: "nearest", or "sni" (nearest, scaled by the area ratio).
        finest_level: log2 stride of the first map, for the names of the nodes.

    Raises:
        UserError: an unknown choice, or depth < 1.

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
        upsample: str = "nearest",
        finest_level: int = 2,
    ) -> None:
        super().__init__()
        self.upsample = check_upsampling(upsample, "MODEL.GFPN.UPSAMPLE", ("nearest", "sni"))
        self.levels = tuple(range(finest_level, finest_level + len(in_channels)))
        self.links = gfpn_links(self.levels, depth, skip)
        self.output_layer = 2 * depth
        width = {(0, level): channels for level, channels in zip(self.levels, in_channels)}
        for (t, level), inputs in self.links.items():
            width[t, level] = out_channels if t == self.output_layer else inner_channels
            node = _Node([width[i] for i in inputs], width[t, level], norm, separable)
            self.add_module(f"L{t}_p{level}", node)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps, fine to coarse (Tensor[N, C_l, H_l, W_l], halving with ceil) -> Tensor[N, W, H_l, W_l] each."""
        values: dict[Node, Tensor] = {(0, level): x for level, x in zip(self.levels, maps)}
        halved: dict[Node, Tensor] = {}  # a map that two nodes read from above is pooled once
        for (t, level), inputs in self.links.items():
            resized = []
            for i in inputs:
                if i[1] < level and i not in halved:
                    halved[i] = F.max_pool2d(values[i], 3, stride=2, padding=1)
                resized.append(halved[i] if i[1] < level else values[i])
            coarser = [i[1] > level for i in inputs]
            values[t, level] = getattr(self, f"L{t}_p{level}")(resized, coarser, self.upsample)
        return [values[self.output_layer, level] for level in self.levels]


class _Node(nn.Module):
    """norm(conv3x3(silu(conv1x1(cat(inputs))))); weights start at PyTorch's default, as in the released code."""

    def __init__(self, in_channels: list[int], channels: int, norm: Norm, separable: bool) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.merge = nn.Conv2d(sum(in_channels), channels, 1, bias=False)
        self.conv = Conv2d(channels, channels, 3, padding=1, norm=norm)
        if separable:
            depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
            self.conv = nn.Sequential(depthwise, Conv2d(channels, channels, 1, norm=norm))

    def forward(self, inputs: list[Tensor], coarser: list[bool], upsample: str) -> Tensor:
        """Inputs of the node's size, or (where `coarser`) of the next coarser level's."""
        weights = self.merge.weight.split(self.in_channels, dim=1)
        fine, coarse = (
            [(x, w) for x, w, is_coarse in zip(inputs, weights, coarser) if is_coarse == wanted]
            for wanted in (False, True)
        )
        y = _conv1x1(fine)
        if coarse:
            y = upsample_add(y, _conv1x1(coarse), upsample)
        return self.conv(F.silu(y))


def _conv1x1(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum of 1x1 convs (map, weight) as one conv."""
    if len(parts) == 1:
        return F.conv2d(*parts[0])
    maps, weights = zip(*parts)
    return F.conv2d(torch.cat(maps, dim=1), torch.cat(weights, dim=1))


@register_pyramid("gfpn")
def build_gfpn(cfg: Any, input_shape: InputShape) -> GFPN:
    """GFPN from `MODEL.FPN` (width, inputs, norm of the laterals) and `MODEL.GFPN`."""
    fpn, gfpn = cfg.MODEL.FPN, cfg.MODEL.GFPN
    return GFPN(
        input_shape,
        fpn.OUT_CHANNELS,
        in_features=fpn.IN_FEATURES,
        norm=fpn.NORM,
        depth=gfpn.DEPTH,
        inner_channels=gfpn.INNER_CHANNELS,
        skip=gfpn.SKIP,
        node_norm=gfpn.NORM,
        separable=gfpn.SEPARABLE,
        upsample=gfpn.UPSAMPLE,
    )
