"""The mask branch: a small fully convolutional network on pooled features (Mask R-CNN, 2017, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import CfgNode
from ...errors import argument_names, keys_of
from ...layers import Conv2d, c2_msra_fill
from ...layers.cpu.layout import channels_last_on_cpu
from ...ranges import check_count, check_each
from ...structures import Instances
from ..hooked import has_hooks
from ..metrics import collecting_metrics, log_scalar

__all__ = ["MaskHead", "build_mask_head", "mask_loss", "mask_probabilities", "mask_targets"]


class MaskHead(nn.Module):
    """A mask head: 3x3 convolutions (`mask_fcn1`, ...), upsampling by 2 (`deconv`), and logits (`predictor`).

    Convolutions start from MSRA's normal weights, the predictor from normal weights with a standard deviation of 0.001.

    Args:
        in_channels: number of channels of the pooled features.
        num_classes: number K of classes without the background; 1 gives one mask whatever the class is.
        conv_dims: output channels of each convolution.
        deconv_dim: output channels of the upsampling layer.
        norm: the norm of the convolutions, see `sn2fpn.layers.get_norm`; "" means none.

    Raises:
        ArgumentError: there is no such norm, or a number is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        conv_dims: Sequence[int] = (256,) * 4,
        deconv_dim: int = 256,
        norm: str = "",
    ) -> None:
        super().__init__()
        self.in_channels = channels = check_count("in_channels", in_channels)
        self.num_classes = check_count("num_classes", num_classes)
        check_count("deconv_dim", deconv_dim)
        for n, width in enumerate(check_each("conv_dims", conv_dims, check_count), 1):
            self.add_module(f"mask_fcn{n}", Conv2d(channels, width, 3, padding=1, norm=norm, activation="relu"))
            channels = width
        self.deconv = nn.ConvTranspose2d(channels, deconv_dim, 2, stride=2)
        self.deconv_relu = nn.ReLU(inplace=True)
        self.predictor = Conv2d(deconv_dim, num_classes, 1)
        for layer in self.children():
            if layer is not self.predictor and isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                c2_msra_fill(layer)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map pooled features (Tensor[R, C, P, P]) to logits (Tensor[R, K or 1, 2P, 2P])."""
        x = channels_last_on_cpu(x)
        self.deconv_relu.inplace = not has_hooks(self.deconv)  # a backward hook forbids it
        for layer in self.children():
            x = layer(x)
        return x


def mask_targets(sampled: Sequence[Instances], targets: Sequence[Instances], side: int) -> Tensor:
    """Return the part of each proposal's ground-truth mask that lies in the proposal's box.

    Args:
        sampled: the foreground proposals of each image, with `proposal_boxes` and `gt_index`.
        targets: the ground truth of each image. `gt_masks` is needed where there are proposals.
        side: side S of a predicted mask.

    Returns:
        The masks of the proposals of all images (Tensor[R, S, S], bool), on their device.
    """
    device = sampled[0].proposal_boxes.device
    return torch.cat(
        [
            t.gt_masks.crop_and_resize(s.proposal_boxes.tensor, side, s.gt_index).to(device)
            if len(s)
            else torch.empty(0, side, side, dtype=torch.bool, device=device)
            for s, t in zip(sampled, targets)
        ]
    )


def mask_loss(logits: Tensor, classes: Tensor, goal: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over all pixels of the masks of the proposals' own classes.

    The loss is zero when there is no proposal.

    Args:
        logits (Tensor[R, K or 1, S, S]): the predictions.
        classes (Tensor[R]): the ground-truth classes.
        goal (bool Tensor[R, S, S]): the ground-truth masks.
    """
    own = _of_class(logits, classes)
    _log_accuracy(own, goal)
    if not len(own):
        return own.sum()
    return F.binary_cross_entropy_with_logits(own, goal.float())


def mask_probabilities(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the probabilities of the mask of each detection's own class (Tensor[R, 1, S, S], float32)."""
    return _of_class(logits, classes).sigmoid()[:, None]


def _of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logits of one class per row, or of the only class (Tensor[R, S, S], float32)."""
    if logits.shape[1] == 1:
        return logits[:, 0].float()
    return logits[torch.arange(len(classes), device=classes.device), classes].float()


@torch.no_grad()
def _log_accuracy(logits: Tensor, goal: Tensor) -> None:
    """Log the shares of right pixels, of background taken for the object, and of the object taken for background."""
    if not collecting_metrics() or not len(goal):
        return
    wrong = (logits > 0) != goal
    positive = goal.sum()
    log_scalar("mask_rcnn/accuracy", 1 - wrong.float().mean(dtype=torch.float64))
    log_scalar("mask_rcnn/false_positive", (wrong & ~goal).sum() / (goal.numel() - positive).clamp(min=1))
    log_scalar("mask_rcnn/false_negative", (wrong & goal).sum() / positive.clamp(min=1))


def build_mask_head(cfg: CfgNode, in_channels: int) -> MaskHead:
    """Return the mask head that `MODEL.ROI_MASK_HEAD` describes, for maps of `in_channels` channels."""
    c, group = cfg.MODEL.ROI_MASK_HEAD, "MODEL.ROI_MASK_HEAD"
    classes = 1 if c.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES
    names = keys_of(
        group,
        num_classes="MODEL.ROI_HEADS.NUM_CLASSES",
        deconv_dim=f"{group}.CONV_DIM",
        **{"conv_dims[0]": f"{group}.CONV_DIM"},
    )
    with argument_names(names):
        check_count("num_conv", c.NUM_CONV, at_least=0)
        return MaskHead(in_channels, classes, [c.CONV_DIM] * c.NUM_CONV, c.CONV_DIM, c.NORM)
