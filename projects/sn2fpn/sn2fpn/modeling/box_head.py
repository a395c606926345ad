"""The box branch: convs and fully connected layers on pooled features, then classes and box offsets (Fast R-CNN)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import CfgNode
from ..errors import UserError
from ..layers import Conv2d, c2_msra_fill, c2_xavier_fill
from ..layers.cpu.linear import linear_of_maps

__all__ = ["BoxHead", "BoxPredictor", "build_box_head"]


class BoxHead(nn.Module):
    """3x3 convs (`conv1` …), then fully connected layers (`fc1` …), each followed by ReLU.

    Convs start with MSRA's normal weights, fully connected layers with Xavier's uniform ones (Caffe2's fills).

    Args:
        in_channels: C of the pooled features.
        resolution: P, their side.
        conv_dims: output channels of each conv.
        fc_dims: output width of each fully connected layer; without any, the output is the flattened map.
        norm: of the convs, a name that `layers.get_norm` knows; "" for none.
    """

    def __init__(
        self,
        in_channels: int,
        resolution: int,
        conv_dims: Sequence[int] = (),
        fc_dims: Sequence[int] = (1024, 1024),
        norm: str = "",
    ) -> None:
        super().__init__()
        if not conv_dims and not fc_dims:
            raise UserError(
                "the box head has no layer: MODEL.ROI_BOX_HEAD.NUM_CONV and MODEL.ROI_BOX_HEAD.NUM_FC give "
                "none; expected at least one"
            )
        conv_dims = [in_channels, *conv_dims]
        for n, (i, o) in enumerate(pairwise(conv_dims), 1):
            self.add_module(f"conv{n}", Conv2d(i, o, 3, padding=1, norm=norm, activation="relu"))
        fc_dims = [conv_dims[-1] * resolution**2, *fc_dims]
        for n, (i, o) in enumerate(pairwise(fc_dims), 1):
            self.add_module(f"fc{n}", nn.Linear(i, o))
        self.out_features: int = fc_dims[-1]
        for layer in self.children():
            (c2_xavier_fill if isinstance(layer, nn.Linear) else c2_msra_fill)(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(K, C, P, P) -> (K, out_features)."""
        for layer in self.children():
            x = F.relu(_fully_connected(layer, x), inplace=True) if isinstance(layer, nn.Linear) else layer(x)
        return x.flatten(1)


def _fully_connected(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer` of flattened maps (K, C, P, P) or of vectors (K, C)."""
    if x.dim() == 4 and x.is_cpu:
        return linear_of_maps(x, layer.weight, layer.bias)
    return layer(x.flatten(1))


class BoxPredictor(nn.Module):
    """Class logits (the last one is the background) and a box offset per class, as two linear layers.

    Weights start normal with standard deviations 0.01 (`cls_score`) and 0.001 (`bbox_pred`), biases at 0.

    Args:
        in_features: width of the box head's output.
        num_classes: K, without the background.
        class_agnostic: one box offset for all classes.
    """

    def __init__(self, in_features: int, num_classes: int, class_agnostic: bool = False) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_features, num_classes + 1)
        self.bbox_pred = nn.Linear(in_features, 4 * (1 if class_agnostic else num_classes))
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, in_features) -> logits (R, K + 1) and offsets (R, K or 1, 4)."""
        return self.cls_score(x), self.bbox_pred(x).unflatten(1, (-1, 4))


def build_box_head(cfg: CfgNode, in_channels: int) -> BoxHead:
    """The box head of `MODEL.ROI_BOX_HEAD` for maps of `in_channels`."""
    c = cfg.MODEL.ROI_BOX_HEAD
    return BoxHead(in_channels, c.POOLER_RESOLUTION, [c.CONV_DIM] * c.NUM_CONV, [c.FC_DIM] * c.NUM_FC, c.NORM)
