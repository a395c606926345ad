"""The second stage: classes and refined boxes of proposals (Fast R-CNN, 2015), and their masks (Mask R-CNN, 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import CfgNode
from ..structures import Boxes, ImageList, Instances, ShapeSpec, pairwise_iou
from .box_coding import BoxCoder
from .box_head import BoxHead, BoxPredictor, build_box_head
from .features import common_channels, pick_shapes
from .losses import box_regression_loss
from .mask_head import MaskHead, build_mask_head, mask_loss, mask_probabilities, mask_targets
from .matching import Matcher
from .metrics import collecting_metrics, log_scalar
from .postprocess import select_detections
from .roi_pooler import ROIPooler
from .sampling import sample_labels

__all__ = ["StandardROIHeads", "build_roi_heads"]


class StandardROIHeads(nn.Module):
    """Samples proposals in training, pools their features and runs the box branch and the mask branch, if there is one.

    The mask branch learns from the sampled proposals that hold an object, and sees the final detections alone.

    Args:
        num_classes: K, without the background, whose label is K.
        in_features: names of the pyramid maps, high to low resolution.
        box_pooler, box_head, box_predictor: the box branch.
        box_coder: offsets <-> boxes.
        matcher: labels proposals by their overlap with ground truth.
        batch_size_per_image, positive_fraction: proposals sampled for the losses, and the most that may be
            positive.
        append_gt: ground-truth boxes are proposals too, in training.
        box_loss, smooth_l1_beta, box_loss_weight: see `box_regression_loss`; the weight is a factor on it.
        sigmoid_cls: independent sigmoid scores and binary cross-entropy instead of softmax.
        score_thresh, nms_thresh, max_detections: see `select_detections`.
        mask_pooler, mask_head: the mask branch; None: boxes only.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: BoxHead,
        box_predictor: BoxPredictor,
        box_coder: BoxCoder,
        matcher: Matcher,
        batch_size_per_image: int = 512,
        positive_fraction: float = 0.25,
        append_gt: bool = True,
        box_loss: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
        box_loss_weight: float = 1.0,
        sigmoid_cls: bool = False,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        max_detections: int = 100,
        mask_pooler: ROIPooler | None = None,
        mask_head: MaskHead | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_features = tuple(in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.box_coder = box_coder
        self.matcher = matcher
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.append_gt = append_gt
        self.box_loss = box_loss
        self.smooth_l1_beta = smooth_l1_beta
        self.box_loss_weight = box_loss_weight
        self.sigmoid_cls = sigmoid_cls
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections
        self.mask_pooler = mask_pooler
        self.mask_head = mask_head

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Detections (evaluation) or losses (training).

        Args:
            images: the batch; only its sizes are used.
            features: pyramid maps (N, C, H, W) by name.
            proposals: per image, `proposal_boxes` (and `objectness_logits`).
            targets: per image, `gt_boxes`, `gt_classes` and for the mask branch `gt_masks`; needed in training.

        Returns:
            Evaluation: per image `pred_boxes`, `scores`, `pred_classes` and with a mask branch `pred_masks`, the
            (N, 1, M, M) probabilities within the boxes; and {}.
            Training: [], and {"loss_cls", "loss_box_reg"} and with a mask branch "loss_mask".
        """
        if self.training:
            if targets is None:
                raise ValueError("the RoI heads need targets in training mode")
            sampled = self.label_and_sample(proposals, targets)
            logits, deltas = self.predict(features, [p.proposal_boxes.tensor for p in sampled])
            losses = self.losses(logits, deltas, sampled)
            if self.mask_head is not None:
                losses["loss_mask"] = self.mask_branch_loss(features, sampled, targets)
            return [], losses
        boxes = [p.proposal_boxes.tensor for p in proposals]
        logits, deltas = self.predict(features, boxes)
        scores = logits.float().sigmoid() if self.sigmoid_cls else logits.float().softmax(dim=1)
        detections = select_detections(
            scores,
            deltas,
            boxes,
            images.image_sizes,
            self.box_coder,
            score_thresh=self.score_thresh,
            nms_thresh=self.nms_thresh,
            max_detections=self.max_detections,
        )
        if self.mask_head is not None:
            self.add_masks(features, detections)
        return detections, {}

    def predict(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (R, K + 1) and offsets (R, K or 1, 4) for all images' boxes (R_n, 4) together."""
        pooled = self.box_pooler([features[name] for name in self.in_features], boxes)
        return self.box_predictor(self.box_head(pooled))

    @torch.no_grad()
    def label_and_sample(self, proposals: Sequence[Instances], targets: Sequence[Instances]) -> list[Instances]:
        """Match proposals with ground truth, and draw those that the losses use.

        Returns:
            Per image `proposal_boxes`, `gt_classes` (K: background), `gt_index` (of the matched target) and
            `gt_boxes` (matched; for background rows of no meaning).
        """
        out, foreground = [], []
        for proposal, target in zip(proposals, targets):
            boxes, gt_boxes = proposal.proposal_boxes, target.gt_boxes
            if self.append_gt:
                boxes = Boxes.cat([boxes, gt_boxes])
            index, labels = self.matcher(pairwise_iou(gt_boxes, boxes))
            classes = torch.full_like(index, self.num_classes)
            if len(gt_boxes):
                classes = torch.where(labels == 1, target.gt_classes[index], classes)
                classes[labels == -1] = -1
            pos, neg = sample_labels(classes, self.batch_size_per_image, self.positive_fraction, self.num_classes)
            picked = torch.cat([pos, neg])
            index = index[picked]
            out.append(
                Instances(
                    proposal.image_size,
                    proposal_boxes=boxes[picked],
                    gt_classes=classes[picked],
                    gt_index=index,
                    gt_boxes=gt_boxes[index] if len(gt_boxes) else boxes[picked],
                )
            )
            foreground.append(len(pos))
        log_scalar("roi_head/num_fg_samples", sum(foreground) / len(out))
        log_scalar("roi_head/num_bg_samples", (sum(map(len, out)) - sum(foreground)) / len(out))
        return out

    def losses(self, logits: Tensor, deltas: Tensor, sampled: Sequence[Instances]) -> dict[str, Tensor]:
        """Classification loss, and box regression of the foreground; both per sampled proposal.

        Args:
            logits, deltas: see `predict`, for the proposals of `label_and_sample`.
        """
        logits = logits.float()
        classes = torch.cat([s.gt_classes for s in sampled])
        _log_accuracy(logits, classes)
        total = max(len(classes), 1)
        foreground = ((classes >= 0) & (classes < self.num_classes)).nonzero().squeeze(1)
        one_box = deltas.shape[1] == 1
        loss_box = box_regression_loss(
            self.box_loss,
            self.box_coder,
            deltas[foreground, 0 if one_box else classes[foreground]],
            torch.cat([s.proposal_boxes.tensor for s in sampled])[foreground],
            torch.cat([s.gt_boxes.tensor for s in sampled])[foreground],
            self.smooth_l1_beta,
        )
        if self.sigmoid_cls:
            one_hot = F.one_hot(classes, self.num_classes + 1)[:, :-1].float()
            loss_cls = F.binary_cross_entropy_with_logits(logits[:, :-1], one_hot, reduction="sum")
        else:
            loss_cls = F.cross_entropy(logits, classes, reduction="sum")
        return {"loss_cls": loss_cls / total, "loss_box_reg": loss_box * (self.box_loss_weight / total)}

    def mask_branch_loss(
        self, features: Mapping[str, Tensor], sampled: Sequence[Instances], targets: Sequence[Instances]
    ) -> Tensor:
        """The loss of the masks of those sampled proposals that hold an object; see `mask_head.mask_loss`."""
        foreground = [s[(s.gt_classes >= 0) & (s.gt_classes < self.num_classes)] for s in sampled]
        logits = self.predict_masks(features, [s.proposal_boxes.tensor for s in foreground])
        goal = mask_targets(foreground, targets, logits.shape[-1])
        return mask_loss(logits, torch.cat([s.gt_classes for s in foreground]), goal)

    def add_masks(self, features: Mapping[str, Tensor], detections: Sequence[Instances]) -> None:
        """Give each image's detections their `pred_masks`, (N, 1, M, M) probabilities."""
        logits = self.predict_masks(features, [d.pred_boxes.tensor for d in detections])
        masks = mask_probabilities(logits, torch.cat([d.pred_classes for d in detections]))
        for detection, mask in zip(detections, masks.split([len(d) for d in detections])):
            detection.pred_masks = mask

    def predict_masks(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Mask logits (R, K or 1, M, M) for all images' boxes (R_n, 4) together."""
        return self.mask_head(self.mask_pooler([features[name] for name in self.in_features], boxes))


@torch.no_grad()
def _log_accuracy(logits: Tensor, classes: Tensor) -> None:
    """Shares of right classes: of all, of the foreground, and of foreground taken for background."""
    if not collecting_metrics() or not len(classes):
        return
    background = logits.shape[1] - 1
    predicted = logits.argmax(dim=1)
    log_scalar("fast_rcnn/cls_accuracy", (predicted == classes).float().mean())
    foreground = (classes >= 0) & (classes < background)
    if foreground.any():
        log_scalar("fast_rcnn/fg_cls_accuracy", (predicted == classes)[foreground].float().mean())
        log_scalar("fast_rcnn/false_negative", (predicted == background)[foreground].float().mean())


def build_roi_heads(cfg: CfgNode, input_shapes: Mapping[str, ShapeSpec]) -> StandardROIHeads:
    """The RoI heads of `MODEL.ROI_HEADS`, `ROI_BOX_HEAD` and with `MASK_ON` `ROI_MASK_HEAD`, on a pyramid's outputs."""
    heads, box = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
    shapes = pick_shapes(input_shapes, heads.IN_FEATURES, "MODEL.ROI_HEADS.IN_FEATURES")
    channels = common_channels(shapes, "MODEL.ROI_HEADS.IN_FEATURES")
    box_head = build_box_head(cfg, channels)
    box_predictor = BoxPredictor(box_head.out_features, heads.NUM_CLASSES, box.CLS_AGNOSTIC_BBOX_REG)
    mask_on = cfg.MODEL.MASK_ON
    return StandardROIHeads(
        num_classes=heads.NUM_CLASSES,
        in_features=heads.IN_FEATURES,
        box_pooler=_build_pooler(box, shapes),
        box_head=box_head,
        box_predictor=box_predictor,
        box_coder=BoxCoder(box.BBOX_REG_WEIGHTS),
        matcher=Matcher(heads.IOU_THRESHOLDS, heads.IOU_LABELS, where="MODEL.ROI_HEADS"),
        batch_size_per_image=heads.BATCH_SIZE_PER_IMAGE,
        positive_fraction=heads.POSITIVE_FRACTION,
        append_gt=heads.PROPOSAL_APPEND_GT,
        box_loss=box.BBOX_REG_LOSS_TYPE,
        smooth_l1_beta=box.SMOOTH_L1_BETA,
        box_loss_weight=box.BBOX_REG_LOSS_WEIGHT,
        sigmoid_cls=box.USE_SIGMOID_CE,
        score_thresh=heads.SCORE_THRESH_TEST,
        nms_thresh=heads.NMS_THRESH_TEST,
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
        mask_pooler=_build_pooler(cfg.MODEL.ROI_MASK_HEAD, shapes) if mask_on else None,
        mask_head=build_mask_head(cfg, channels) if mask_on else None,
    )


def _build_pooler(head: CfgNode, shapes: Sequence[ShapeSpec]) -> ROIPooler:
    """The pooler of `MODEL.ROI_BOX_HEAD` or `MODEL.ROI_MASK_HEAD`."""
    return ROIPooler(
        head.POOLER_RESOLUTION,
        [s.stride for s in shapes],
        head.POOLER_SAMPLING_RATIO,
        aligned=head.POOLER_TYPE == "ROIAlignV2",
    )
