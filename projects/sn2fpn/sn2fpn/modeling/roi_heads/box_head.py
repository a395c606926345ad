"""The box branch: layers on pooled features that predict classes and box offsets (Fast R-CNN, 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ...config import CfgNode
from ...errors import ArgumentError, argument_names, keys_of
from ...layers import Conv2d, c2_msra_fill, c2_xavier_fill
from ...layers.cpu.linear import linear_of_maps
from ...ranges import check_count, check_each
from ..hooked import has_hooks, relu_of

__all__ = ["BoxHead", "BoxPredictor", "build_box_head"]


class BoxHead(nn.Module):
    """A box head: 3x3 convolutions (`conv1`, ...), then fully connected layers (`fc1`, ...), all followed by ReLU.

    As in Caffe2, convolutions start from MSRA's normal weights and fully connected layers from Xavier's uniform ones.

    Args:
        in_channels: number of channels of the pooled features.
        resolution: side P of the pooled features.
        conv_dims: output channels of each convolution.
        fc_dims: output width of each fully connected layer. Without any, the output is the flattened map.
        norm: the norm of the convolutions, see `sn2fpn.layers.get_norm`; "" means none.

    Raises:
        ArgumentError: there is no layer, or no such norm, or a number is not positive.
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
        self.in_channels = check_count("in_channels", in_channels)
        self.resolution = check_count("resolution", resolution)
        conv_dims = check_each("conv_dims", conv_dims, check_count)
        fc_dims = check_each("fc_dims", fc_dims, check_count)
        if not conv_dims and not fc_dims:
            raise ArgumentError("fc_dims", "the box head has no layer; expected a convolution or a linear layer")
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
        """Map pooled features (Tensor[R, C, P, P]) to vectors (Tensor[R, out_features])."""
        for name, layer in self.named_children():
            x = relu_of(layer, _fully_connected(layer, x)) if name.startswith("fc") else layer(x)
        return x.flatten(1)


def _fully_connected(layer: nn.Module, x: Tensor) -> Tensor:
    """Return `layer` of vectors (Tensor[R, D]) or of maps (Tensor[R, C, P, P]), which are flattened.

    A layer that was put in place of the head's own, such as an adapter, is called.
    """
    if x.dim() == 4 and x.is_cpu and type(layer) is nn.Linear and not has_hooks(layer):
        return linear_of_maps(x, layer.weight, layer.bias)
    return layer(x.flatten(1))


class BoxPredictor(nn.Module):
    """Two linear layers that predict class logits, the background's last, and a box offset per class.

    Weights start from normal distributions with standard deviations of 0.01 (`cls_score`) and 0.001 (`bbox_pred`),
    biases from 0.

    Args:
        in_features: width of the box head's output.
        num_classes: number K of classes without the background.
        class_agnostic: whether all classes share one box offset.

    Raises:
        ArgumentError: a number is not positive.
    """

    def __init__(self, in_features: int, num_classes: int, class_agnostic: bool = False) -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.num_classes = check_count("num_classes", num_classes)
        self.class_agnostic = class_agnostic
        self.cls_score = nn.Linear(in_features, num_classes + 1)
        self.bbox_pred = nn.Linear(in_features, 4 * (1 if class_agnostic else num_classes))
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map vectors (Tensor[R, in_features]) to logits (Tensor[R, K + 1]) and offsets (Tensor[R, K or 1, 4])."""
        return self.cls_score(x), self.bbox_pred(x).unflatten(1, (-1, 4))


def build_box_head(cfg: CfgNode, in_channels: int) -> BoxHead:
    """Return the box head that `MODEL.ROI_BOX_HEAD` describes, for maps of `in_channels` channels."""
    c, group = cfg.MODEL.ROI_BOX_HEAD, "MODEL.ROI_BOX_HEAD"
    names = keys_of(
        group,
        resolution=f"{group}.POOLER_RESOLUTION",
        fc_dims=f"{group}.NUM_FC",
        **{"conv_dims[0]": f"{group}.CONV_DIM", "fc_dims[0]": f"{group}.FC_DIM"},
    )
    with argument_names(names):
        check_count("num_conv", c.NUM_CONV, at_least=0)
        check_count("num_fc", c.NUM_FC, at_least=0)
        return BoxHead(in_channels, c.POOLER_RESOLUTION, [c.CONV_DIM] * c.NUM_CONV, [c.FC_DIM] * c.NUM_FC, c.NORM)
