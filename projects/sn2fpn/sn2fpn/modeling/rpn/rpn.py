"""The region proposal network: objectness and a box offset for every anchor (Faster R-CNN, 2015, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import CfgNode
from ...errors import ArgumentError, UserError, argument_names, check_choice, keys_of
from ...precision import no_grad_between
from ...ranges import check_count, check_each, check_number
from ...structures import Boxes, ImageList, Instances, ShapeSpec, pairwise_iou
from ..box_coding import BoxCoder
from ..features import common_channels, pick_shapes
from ..losses import BOX_LOSSES, box_regression_loss
from ..matching import Matcher
from ..metrics import log_scalar
from ..sampling import check_sampling, sample_labels
from .anchors import AnchorGenerator, build_anchor_generator
from .head import RPNHead, TopAnchors
from .proposals import top_proposals

__all__ = ["RPN", "build_rpn"]


class SampledAnchors(NamedTuple):
    """The S anchors of a batch that the losses are computed from, with the positives of each image first.

    Attributes:
        image (int64 Tensor[S]): the index of each anchor's image.
        anchor (int64 Tensor[S]): the index of each anchor among those of all levels.
        positive (bool Tensor[S]): whether each anchor stands for an object.
        positive_at (int64 Tensor[P]): the indices of the P anchors among the S that stand for an object.
        gt_boxes (Tensor[P, 4]): the matched ground-truth boxes of the P positive anchors.
    """

    image: Tensor
    anchor: Tensor
    positive: Tensor
    positive_at: Tensor
    gt_boxes: Tensor


class RPN(nn.Module):
    """A region proposal network: a head, anchors, the choice of proposals, and losses.

    Args:
        in_features: names of the pyramid maps to use, from high to low resolution.
        head: predicts objectness and offsets for each anchor.
        anchor_generator: makes the anchors of each level.
        matcher: labels anchors by their overlap with ground truth.
        box_coder: converts between boxes and offsets.
        batch_size_per_image: number of anchors of an image that the losses are computed from.
        positive_fraction: the largest share of these anchors that may be positive.
        pre_nms_topk: numbers of proposals per level that enter non-maximum suppression (NMS), as (in training, in
            evaluation).
        post_nms_topk: numbers of proposals of all levels that are kept after NMS, as (in training, in evaluation).
        nms_thresh: the IoU above which the weaker of two proposals of a level is removed.
        min_box_size: proposals with a side of at most this many pixels are removed.
        boundary_thresh: anchors that reach further than this many pixels beyond the image are ignored in training.
            With a negative number none is ignored.
        loss_weight: factors of the losses, as (objectness, box regression).
        box_loss: the box regression loss, one of `losses.BOX_LOSSES`.
        smooth_l1_beta: `beta` of `losses.box_regression_loss`.

    Raises:
        ArgumentError: `box_loss` is unknown, a number is out of its range, or the head and the anchors do not fit each
            other or the maps.
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: RPNHead,
        anchor_generator: AnchorGenerator,
        matcher: Matcher,
        box_coder: BoxCoder,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
        pre_nms_topk: tuple[int, int] = (2000, 1000),
        post_nms_topk: tuple[int, int] = (1000, 1000),
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        boundary_thresh: float = -1,
        loss_weight: tuple[float, float] = (1.0, 1.0),
        box_loss: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ) -> None:
        super().__init__()
        self.box_loss = check_choice("box_loss", box_loss, BOX_LOSSES)
        check_sampling(batch_size_per_image, positive_fraction)
        _check_parts(in_features, head, anchor_generator)
        self.in_features = tuple(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.matcher = matcher
        self.box_coder = box_coder
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.pre_nms_topk = tuple(check_each("pre_nms_topk", pre_nms_topk, check_count, length=2))
        self.post_nms_topk = tuple(check_each("post_nms_topk", post_nms_topk, check_count, length=2))
        self.nms_thresh = check_number("nms_thresh", nms_thresh, at_least=0, at_most=1)
        self.min_box_size = check_number("min_box_size", min_box_size, at_least=0)
        self.boundary_thresh = check_number("boundary_thresh", boundary_thresh)
        self.loss_weight = tuple(check_each("loss_weight", loss_weight, check_number, length=2, at_least=0))
        self.smooth_l1_beta = check_number("smooth_l1_beta", smooth_l1_beta, at_least=0)

    def forward(
        self, images: ImageList, features: Mapping[str, Tensor], targets: Sequence[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return the proposals of each image and, in training, the losses.

        Args:
            images: the batch, of which only the image sizes are used.
            features (Tensor[N, C, H, W]): the pyramid maps by name.
            targets: the ground truth of each image, with `gt_boxes`. It is needed in training.

        Returns:
            For each image `proposal_boxes` and `objectness_logits`, best first; and the losses "loss_rpn_cls" and
            "loss_rpn_loc", or an empty dict in evaluation.

        Raises:
            FloatingPointError: the module is in training mode on a CPU and predictions are not finite. On a GPU, the
                loss "loss_rpn_cls" is NaN instead, because an error would have to wait for the GPU.
        """
        maps = [features[name] for name in self.in_features]
        anchors = torch.cat(self.anchor_generator(maps))
        with no_grad_between() if self.training else torch.no_grad():  # The later stages take proposals as constants.
            top = self.rpn_head.best(maps, self.pre_nms_topk[0 if self.training else 1])
            proposals = top_proposals(
                anchors,
                top,
                images.image_sizes,
                self.box_coder,
                post_nms_topk=self.post_nms_topk[0 if self.training else 1],
                nms_thresh=self.nms_thresh,
                min_box_size=self.min_box_size,
                must_be_finite=self.training and maps[0].is_cpu,
            )
        if not self.training:
            return proposals, {}
        if targets is None:
            raise ValueError("the RPN needs targets in training mode")
        sample = self.label_and_sample(anchors, targets)
        logits, deltas = self.rpn_head.at(maps, sample.image, sample.anchor)
        losses = self.losses(anchors[sample.anchor], logits, deltas, sample, len(targets))
        if not maps[0].is_cpu:
            losses["loss_rpn_cls"] = _spoilt_by(top, losses["loss_rpn_cls"])
        return proposals, losses

    @torch.no_grad()
    def label_and_sample(self, anchors: Tensor, targets: Sequence[Instances]) -> SampledAnchors:
        """Match anchors (Tensor[R, 4]) with the `gt_boxes` of each image and draw those that the losses use."""
        images, picked, positive, positive_at, gt_boxes, start = [], [], [], [], [], 0
        for i, target in enumerate(targets):
            index, labels = self.matcher(pairwise_iou(target.gt_boxes, Boxes(anchors)))
            if self.boundary_thresh >= 0:
                labels.masked_fill_(~Boxes(anchors).inside_box(target.image_size, self.boundary_thresh), -1)
            pos, neg = sample_labels(labels, self.batch_size_per_image, self.positive_fraction, background=0)
            picked.append(torch.cat([pos, neg]))
            images.append(torch.full_like(picked[-1], i))
            positive.append(torch.arange(len(picked[-1]), device=pos.device) < len(pos))
            positive_at.append(torch.arange(start, start + len(pos), device=pos.device))
            gt_boxes.append(target.gt_boxes.tensor[index[pos]])
            start += len(picked[-1])
        sample = SampledAnchors(*map(torch.cat, (images, picked, positive, positive_at, gt_boxes)))
        num_positive = sample.positive.sum()
        log_scalar("rpn/num_pos_anchors", num_positive / len(targets))
        log_scalar("rpn/num_neg_anchors", (len(sample.positive) - num_positive) / len(targets))
        return sample

    def losses(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor, sample: SampledAnchors, num_images: int
    ) -> dict[str, Tensor]:
        """Return the losses of S sampled anchors.

        Both losses are sums over the anchors, divided by the number of anchors that were asked for, which is
        `batch_size_per_image` times the number of images.

        Args:
            anchors (Tensor[S, 4]): the sampled anchors.
            logits (Tensor[S]): their objectness logits.
            deltas (Tensor[S, 4]): their box offsets.
            sample: where they come from and what they stand for.
            num_images: number of images in the batch.
        """
        positive = sample.positive_at
        objectness = F.binary_cross_entropy_with_logits(logits.float(), sample.positive.float(), reduction="sum")
        location = box_regression_loss(
            self.box_loss, self.box_coder, deltas[positive], anchors[positive], sample.gt_boxes, self.smooth_l1_beta
        )
        scale = 1.0 / (self.batch_size_per_image * num_images)
        return {
            "loss_rpn_cls": objectness * (scale * self.loss_weight[0]),
            "loss_rpn_loc": location * (scale * self.loss_weight[1]),
        }


def _spoilt_by(top: TopAnchors, loss: Tensor) -> Tensor:
    """Return the loss, or NaN if a prediction is not finite. Nothing waits for a GPU."""
    finite = top.logits.isfinite().all() & top.deltas.isfinite().all()
    return torch.where(finite, loss, float("nan"))


def _check_parts(in_features: Sequence[str], head: RPNHead, anchor_generator: AnchorGenerator) -> None:
    """Check that there are anchors for each map, and as many per position as the head predicts."""
    strides, counts = anchor_generator.strides, anchor_generator.num_anchors
    if len(strides) != len(in_features):
        problem = f"expected one for each stride of anchor_generator {strides}, found {list(in_features)}"
        raise ArgumentError("in_features", problem)
    if set(counts) != {head.num_anchors}:
        raise ArgumentError(
            "head",
            f"it predicts {head.num_anchors} anchors per position, but the anchor generator has {counts} on its levels",
        )


def build_rpn(cfg: CfgNode, input_shapes: Mapping[str, ShapeSpec]) -> RPN:
    """Return the RPN that `MODEL.RPN` describes, for a pyramid with the given outputs."""
    c = cfg.MODEL.RPN
    names = keys_of(
        "MODEL.RPN",
        thresholds="MODEL.RPN.IOU_THRESHOLDS",
        labels="MODEL.RPN.IOU_LABELS",
        weights="MODEL.RPN.BBOX_REG_WEIGHTS",
        min_box_size="MODEL.PROPOSAL_GENERATOR.MIN_SIZE",
        box_loss="MODEL.RPN.BBOX_REG_LOSS_TYPE",
        **{
            "pre_nms_topk[0]": "MODEL.RPN.PRE_NMS_TOPK_TRAIN",
            "pre_nms_topk[1]": "MODEL.RPN.PRE_NMS_TOPK_TEST",
            "post_nms_topk[0]": "MODEL.RPN.POST_NMS_TOPK_TRAIN",
            "post_nms_topk[1]": "MODEL.RPN.POST_NMS_TOPK_TEST",
            "loss_weight[0]": "MODEL.RPN.LOSS_WEIGHT",
        },
    )
    with argument_names(names):
        shapes = pick_shapes(input_shapes, c.IN_FEATURES)
        anchor_generator = build_anchor_generator(cfg, shapes)
        counts = anchor_generator.num_anchors
        if len(set(counts)) != 1:
            raise UserError(
                "MODEL.ANCHOR_GENERATOR: SIZES and ASPECT_RATIOS must give every level the same number of anchors "
                f"per position because the levels share the RPN's layers, found {counts}"
            )
        check_number("bbox_reg_loss_weight", c.BBOX_REG_LOSS_WEIGHT, at_least=0)
        return RPN(
            in_features=c.IN_FEATURES,
            head=RPNHead(common_channels(shapes), counts[0], c.CONV_DIMS),
            anchor_generator=anchor_generator,
            matcher=Matcher(c.IOU_THRESHOLDS, c.IOU_LABELS, allow_low_quality=True),
            box_coder=BoxCoder(c.BBOX_REG_WEIGHTS),
            batch_size_per_image=c.BATCH_SIZE_PER_IMAGE,
            positive_fraction=c.POSITIVE_FRACTION,
            pre_nms_topk=(c.PRE_NMS_TOPK_TRAIN, c.PRE_NMS_TOPK_TEST),
            post_nms_topk=(c.POST_NMS_TOPK_TRAIN, c.POST_NMS_TOPK_TEST),
            nms_thresh=c.NMS_THRESH,
            min_box_size=cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            boundary_thresh=c.BOUNDARY_THRESH,
            loss_weight=(c.LOSS_WEIGHT, c.LOSS_WEIGHT * c.BBOX_REG_LOSS_WEIGHT),
            box_loss=c.BBOX_REG_LOSS_TYPE,
            smooth_l1_beta=c.SMOOTH_L1_BETA,
        )
