"""BiFPN: weighted fusion, top-down and bottom-up, repeated. EfficientDet (Tan et al., CVPR 2020, arXiv 1911.09070).

    A_i = f(In_i, up(A_{i+1})),  A_6 = In_6;  O_2 = f(In_2, up(A_3)),  O_i = f(In_i, A_i, down(O_{i-1})),
    O_6 = f(In_6, down(O_5));  f(x_1, …) = norm(conv(swish(sum_k w_k x_k / (sum_k w_k + 1e-4)))),  w_k = relu(edge_k)

This is one cell; the next one reads O_2 … O_6. conv is a separable 3x3, up nearest interpolation, down a 3x3/2
max-pool. In_l = norm(conv1x1(C_l)), In_6 = down(norm(conv1x1(C_5))), so p6 is learned like the other levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import Conv2d, check_upsampling, get_norm, kaiming_normal_per_group, upsample_add
from ..layers.norm import Norm
from .base import InputShape, Pyramid
from .registry import register_pyramid

__all__ = ["BiFPN"]

_NORM = partial(get_norm, "BN", eps=1e-3, momentum=0.01)
_FUSIONS = ("fast", "softmax", "sum")
_DOWN_PADS = ("same", "tf_same")


class BiFPN(Pyramid):
    """Bidirectional pyramid of weighted sums; its coarsest outputs (p6, or RetinaNet's p6 and p7) are fused too.

    Names: `bifpn_lateral<l>` (1x1, also p6's), `bifpn_cell<k>.top_down<l>` (A_l) and `bifpn_cell<k>.output<l>` (O_l).
    Departures from the reference: every level has a projection (it leaves out those that have W channels already),
    nodes that read the same map share it unless `per_edge_projections`, and convs start Kaiming-normal.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, …
        out_channels: width W.
        in_features: trunk maps to use, fine to coarse; empty: all.
        bottom_up: a trunk to attach, in place of `input_shape`.
        num_cells: how often the path is repeated, >= 1.
        fusion: "fast" (normalised, as above), "softmax" (of the edges' weights), or "sum" (no weights).
        separable: depthwise 3x3, then 1x1; False: a dense 3x3.
        down_pad: of the max-pool: "same" (1 on all sides), or "tf_same": on an axis of even length only at the
            end, as TensorFlow pads. Sizes are halved and rounded up in both.
        per_edge_projections: True: where both A_l and O_l read C_l, O_l has a projection of its own
            (`bifpn_output_lateral<l>`), as in the reference.
        norm: of projections and nodes, see `sn2fpn.layers.get_norm`; by default BN with eps 1e-3, momentum 0.01.
        upsample: "nearest", or "sni" (nearest, scaled by the area ratio).

    Raises:
        UserError: an unknown choice, no cell, or inputs that make no pyramid.

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
        input_shape: InputShape | None = None,
        out_channels: int = 256,
        *,
        in_features: Sequence[str] = (),
        bottom_up: nn.Module | None = None,
        num_cells: int = 3,
        fusion: str = "fast",
        separable: bool = True,
        down_pad: str = "same",
        per_edge_projections: bool = False,
        norm: Norm = _NORM,
        upsample: str = "nearest",
    ) -> None:
        super().__init__(input_shape, out_channels, in_features=in_features, bottom_up=bottom_up)
        if num_cells < 1:
            raise UserError(f"MODEL.BIFPN.NUM_CELLS: expected at least 1, found {num_cells}")
        for key, found, choices in (("FUSION", fusion, _FUSIONS), ("DOWN_PAD", down_pad, _DOWN_PADS)):
            if found not in choices:
                raise UserError(f"MODEL.BIFPN.{key}: found {found!r}{did_you_mean(found, choices)}")
        check_upsampling(upsample, "MODEL.BIFPN.UPSAMPLE", ("nearest", "sni"))
        self.num_cells, self.down_pad = num_cells, down_pad
        self._make_node = partial(
            _Node, width=out_channels, fusion=fusion, separable=separable, norm=norm, upsample=upsample
        )

        def projection(channels: int) -> Conv2d:
            conv = Conv2d(channels, out_channels, 1, bias=True, norm=norm)  # a bias also before a norm: the reference
            kaiming_normal_per_group(conv)
            return conv

        self.add_per_level(bifpn_lateral=lambda i: projection(self.in_channels[i]))
        self.add_parts(**{f"bifpn_lateral{self.levels[-1] + 1}": projection(self.in_channels[-1])})
        self.per_edge_projections = per_edge_projections
        if per_edge_projections:
            self.add_per_level(bifpn_output_lateral=lambda i: projection(self.in_channels[i]) if i else None)
        self._add_cells()

    def _add_cells(self) -> None:
        names = [f"bifpn_cell{k}" for k in range(1, self.num_cells + 1)]
        self.add_parts(**{name: _Cell(self.out_levels, self._make_node, self.down_pad) for name in names})

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Projections, then the cells."""
        maps = [conv(x) for conv, x in zip(self.per_level("bifpn_lateral"), features)]
        for_outputs = list(maps)
        if self.per_edge_projections:
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
        """RetinaNet's two levels in EfficientDet's way: In_7 = down(In_6), and the cells fuse one level more.

        Call it before weights are loaded; the cells are made anew.

        Args:
            source: the trunk's coarsest map, of which In_6 is made; nothing else.

        Raises:
            UserError: another source.
        """
        if source != self.in_features[-1]:
            coarsest = self.in_features[-1]
            raise UserError(f"BiFPN makes p6 and p7 of the trunk's coarsest map, {coarsest!r}; found {source!r}")
        self._name_outputs(extra_levels=2)
        self._add_cells()


class _Cell(nn.Module):
    """One pass down and one up, over any number of levels (>= 2)."""

    def __init__(self, levels: Sequence[int], node: Callable[[int], nn.Module], down_pad: str) -> None:
        super().__init__()
        self.levels, self.down_pad = tuple(levels), down_pad
        inner = self.levels[1:-1]
        for level in reversed(inner):
            self.add_module(f"top_down{level}", node(2))
        for level in self.levels:
            self.add_module(f"output{level}", node(3 if level in inner else 2))

    def forward(self, maps: list[Tensor], for_outputs: list[Tensor]) -> list[Tensor]:
        """The inputs In_l, fine to coarse, as A_l and as O_l read them -> the outputs O_l."""
        last = len(maps) - 1
        between = list(maps)  # A_l on the inner levels
        for i in reversed(range(1, last)):
            between[i] = getattr(self, f"top_down{self.levels[i]}")([maps[i], between[i + 1]])
        outputs = [getattr(self, f"output{self.levels[0]}")([for_outputs[0], between[1]])]
        for i in range(1, last + 1):
            inputs = [for_outputs[i], between[i]] if i < last else [for_outputs[i]]
            outputs.append(getattr(self, f"output{self.levels[i]}")([*inputs, _down(outputs[-1], self.down_pad)]))
        return outputs


class _Node(nn.Module):
    """norm(conv(swish(weighted sum))); `edges` are the weights as learned, in the order of the inputs."""

    def __init__(self, num_edges: int, width: int, fusion: str, separable: bool, norm: Norm, upsample: str) -> None:
        super().__init__()
        self.fusion, self.upsample = fusion, upsample
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

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The first map has the node's size; a coarser one is upsampled to it -> Tensor[N, W, H, W]."""
        if self.fusion != "sum":
            maps = [x * share for x, share in zip(maps, self.shares().unbind())]
        z = maps[0]
        for x in maps[1:]:
            z = z + x if x.shape == z.shape else upsample_add(z, x, self.upsample)
        z = F.silu(z)
        return self.pointwise(self.depthwise(z)) if self.separable else self.dense(z)

    def shares(self) -> Tensor:
        """The inputs' factors, Tensor[edges]."""
        if self.fusion == "softmax":
            return self.edges.softmax(0)
        positive = self.edges.relu()
        return positive / (positive.sum() + 1e-4)


def _down(x: Tensor, pad: str) -> Tensor:
    """3x3/2 max-pool: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
    if pad == "tf_same":  # rounding up lets the last window of an even axis reach over the end
        return F.max_pool2d(x, 3, 2, padding=(x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True)
    return F.max_pool2d(x, 3, 2, padding=1)


@register_pyramid("bifpn")
def build_bifpn(cfg: Any, input_shape: InputShape) -> BiFPN:
    """BiFPN from `MODEL.FPN` (width, inputs) and `MODEL.BIFPN`."""
    fpn, bifpn = cfg.MODEL.FPN, cfg.MODEL.BIFPN
    return BiFPN(
        input_shape,
        fpn.OUT_CHANNELS,
        in_features=fpn.IN_FEATURES,
        num_cells=bifpn.NUM_CELLS,
        fusion=bifpn.FUSION,
        separable=bifpn.SEPARABLE,
        down_pad=bifpn.DOWN_PAD,
        per_edge_projections=bifpn.PER_EDGE_PROJ,
        norm=partial(get_norm, bifpn.NORM, eps=bifpn.NORM_EPS, momentum=bifpn.NORM_MOMENTUM),
        upsample=bifpn.UPSAMPLE,
    )
