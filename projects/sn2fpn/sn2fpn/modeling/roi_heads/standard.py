"""The standard RoI heads: one box branch (Fast R-CNN, 2015) and, if wanted, one mask branch (Mask R-CNN, 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ArgumentError, check_choice
from ...ranges import check_count, check_limit, check_number
from ...structures import Boxes, ImageList, Instances, pairwise_iou
from ..box_coding import BoxCoder
from ..losses import BOX_LOSSES, box_regression_loss
from ..matching import Matcher
from ..metrics import collecting_metrics, log_scalar
from ..sampling import check_sampling, sample_labels
from ..soft_nms import SoftNMS
from .box_head import BoxHead, BoxPredictor
from .mask_head import MaskHead, mask_loss, mask_probabilities, mask_targets
from .pooler import ROIPooler
from .postprocess import select_detections

__all__ = ["BoxStage", "StandardROIHeads"]


class BoxStage(NamedTuple):
    """One pass of a box branch over proposals: the layers, what they predict, and how proposals are labelled for it."""

    head: BoxHead
    predictor: BoxPredictor
    coder: BoxCoder
    matcher: Matcher


class StandardROIHeads(nn.Module):
    """RoI heads with a box branch and, if wanted, a mask branch.

    In training they sample proposals, pool the features of the samples and compute the losses. The mask branch learns
    from the samples that stand for an object; in evaluation it sees the final detections only.

    Args:
        num_classes: number K of classes without the background, whose label is K.
        in_features: names of the pyramid maps to pool from, from high to low resolution.
        box_pooler: pools the features of the box branch.
        box_head: the layers of the box branch.
        box_predictor: predicts classes and box offsets from the output of `box_head`.
        box_coder: converts between boxes and offsets.
        matcher: labels proposals by their overlap with ground truth.
        batch_size_per_image: number of proposals of an image that the losses are computed from.
        positive_fraction: the largest share of these proposals that may be positive.
        append_gt: whether ground-truth boxes are added to the proposals in training.
        box_loss: the box regression loss, one of `losses.BOX_LOSSES`.
        smooth_l1_beta: `beta` of `losses.box_regression_loss`.
        box_loss_weight: factor of the box regression loss.
        sigmoid_cls: whether each class is scored by a sigmoid of its own and trained with binary cross-entropy,
            instead of a softmax over all classes.
        score_thresh: detections must score higher than this.
        nms_thresh: the IoU above which the weaker of two detections of a class is removed.
        max_detections: largest number of detections per image; -1 means no limit.
        soft_nms: lowers the scores of overlapping detections of a class in place of removing them. With it,
            `nms_thresh` is the IoU from which on its kind "linear" does so.
        mask_pooler: pools the features of the mask branch.
        mask_head: the mask branch; without it only boxes are predicted.

    Raises:
        ArgumentError: `box_loss` is unknown, a number is out of its range, or two parts do not fit each other.
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
        soft_nms: SoftNMS | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: MaskHead | None = None,
    ) -> None:
        super().__init__()
        self.box_loss = check_choice("box_loss", box_loss, BOX_LOSSES)
        self.num_classes = check_count("num_classes", num_classes)
        check_sampling(batch_size_per_image, positive_fraction)
        self.in_features = tuple(in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.box_coder = box_coder
        self.matcher = matcher
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.append_gt = append_gt
        self.smooth_l1_beta = check_number("smooth_l1_beta", smooth_l1_beta, at_least=0)
        self.box_loss_weight = check_number("box_loss_weight", box_loss_weight, at_least=0)
        self.sigmoid_cls = sigmoid_cls
        self.score_thresh = check_number("score_thresh", score_thresh, below=1)
        self.nms_thresh = check_number("nms_thresh", nms_thresh, at_least=0, at_most=1)
        self.max_detections = check_limit("max_detections", max_detections)
        self.soft_nms = soft_nms
        self.mask_pooler = mask_pooler
        self.mask_head = mask_head
        self._check_parts()

    def _check_parts(self) -> None:
        """Check that the parts fit each other, which a configuration that lists them may get wrong."""
        pooler = self.box_pooler
        if len(pooler.strides) != len(self.in_features):
            problem = f"expected one for each stride of box_pooler {pooler.strides}, found {list(self.in_features)}"
            raise ArgumentError("in_features", problem)
        if (self.mask_pooler is None) != (self.mask_head is None):
            missing = "mask_pooler" if self.mask_pooler is None else "mask_head"
            raise ArgumentError(missing, "the mask branch needs both a mask_pooler and a mask_head, found None")
        for n, stage in enumerate(self.stages):
            head, predictor = self._argument("box_head", n), self._argument("box_predictor", n)
            _check_fit(head, stage.head, "resolution", pooler.output_size, "box_pooler.output_size")
            _check_fit(predictor, stage.predictor, "in_features", stage.head.out_features, f"{head}.out_features")
            _check_fit(predictor, stage.predictor, "num_classes", self.num_classes, "num_classes")
        _check_fit("mask_pooler", self.mask_pooler, "strides", pooler.strides, "box_pooler.strides")
        if getattr(self.mask_head, "num_classes", 1) != 1:  # One class stands for masks of all classes.
            _check_fit("mask_head", self.mask_head, "num_classes", self.num_classes, "num_classes")

    @property
    def stages(self) -> list[BoxStage]:
        """The passes of the box branch over the proposals, of which there is one."""
        return [BoxStage(self.box_head, self.box_predictor, self.box_coder, self.matcher)]

    def _argument(self, part: str, stage: int) -> str:
        """Return the name of the constructor's argument that gave a part of a stage."""
        return part

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return the detections in evaluation, or the losses in training.

        Args:
            images: the batch, of which only the image sizes are used.
            features (Tensor[N, C, H, W]): the pyramid maps by name.
            proposals: the `proposal_boxes` of each image.
            targets: for each image `gt_boxes`, `gt_classes` and, for the mask branch, `gt_masks`. They are needed in
                training.

        Returns:
            The detections of each image (none in training) and the losses (none in evaluation). Detections have
            `pred_boxes`, `scores`, `pred_classes` and, with a mask branch, `pred_masks`: the probabilities within the
            boxes (Tensor[N, 1, M, M]). The losses are "loss_cls", "loss_box_reg" and, with a mask branch, "loss_mask".
        """
        if self.training:
            if targets is None:
                raise ValueError("the RoI heads need targets in training mode")
            sampled = self.label_and_sample(proposals, targets)
            losses = self.box_branch_losses(features, sampled, targets)
            if self.mask_head is not None:
                losses["loss_mask"] = self.mask_branch_loss(features, sampled, targets)
            return [], losses
        detections = self.detect(images, features, proposals)
        if self.mask_head is not None:
            self.add_masks(features, detections)
        return detections, {}

    def detect(
        self, images: ImageList, features: Mapping[str, Tensor], proposals: Sequence[Instances]
    ) -> list[Instances]:
        """Return the detections of each image without masks, see `forward`."""
        scores, deltas, boxes = self.box_branch_predictions(features, proposals)
        return select_detections(
            scores,
            deltas,
            boxes,
            images.image_sizes,
            self.stages[-1].coder,
            score_thresh=self.score_thresh,
            nms_thresh=self.nms_thresh,
            max_detections=self.max_detections,
            soft_nms=self.soft_nms,
        )

    def box_branch_losses(
        self, features: Mapping[str, Tensor], sampled: Sequence[Instances], targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Return the losses of the box branch.

        Args:
            features: the pyramid maps by name.
            sampled: the result of `label_and_sample`.
            targets: the ground truth of each image.
        """
        logits, deltas = self.predict(features, [s.proposal_boxes.tensor for s in sampled])
        return self.losses(logits, deltas, sampled)

    def box_branch_predictions(
        self, features: Mapping[str, Tensor], proposals: Sequence[Instances]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return what detections are chosen from.

        Returns:
            The class probabilities (Tensor[R, K + 1], float32), the last stage's box offsets (Tensor[R, K or 1, 4]),
            and the boxes of each image that the offsets are relative to (Tensor[R_n, 4] per image).
        """
        boxes = [p.proposal_boxes.tensor for p in proposals]
        logits, deltas = self.predict(features, boxes)
        return self.class_scores(logits), deltas, boxes

    def class_scores(self, logits: Tensor) -> Tensor:
        """Return the probabilities of class logits (Tensor[R, K + 1], float32)."""
        return logits.float().sigmoid() if self.sigmoid_cls else logits.float().softmax(dim=1)

    def predict(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor], stage: int = 0) -> tuple[Tensor, Tensor]:
        """Return the class logits (Tensor[R, K + 1]) and box offsets (Tensor[R, K or 1, 4]) of the boxes of all images.

        Args:
            features: the pyramid maps by name.
            boxes (Tensor[R_n, 4] per image): the boxes of each image, R in all.
            stage: index of the stage in `stages` whose layers predict.
        """
        return self._predict_from(self.pool(features, boxes), stage)

    def pool(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return the pooled features (Tensor[R, C, P, P]) of the boxes of all images."""
        return self.box_pooler([features[name] for name in self.in_features], boxes)

    def _predict_from(self, pooled: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        part = self.stages[stage]
        return part.predictor(part.head(pooled))

    @torch.no_grad()
    def label_and_sample(self, proposals: Sequence[Instances], targets: Sequence[Instances]) -> list[Instances]:
        """Match proposals with ground truth and draw those that the losses use.

        Returns:
            For each image `proposal_boxes`, `gt_classes` (K for the background), `gt_index` (the index of the matched
            object) and `gt_boxes` (the matched box, which means nothing for the background).
        """
        out, foreground = [], []
        for proposal, target in zip(proposals, targets):
            boxes, gt_boxes = proposal.proposal_boxes, target.gt_boxes
            if self.append_gt:
                boxes = Boxes.cat([boxes, gt_boxes])
            index, classes = self.match(boxes, target)
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

    def match(self, boxes: Boxes, target: Instances, stage: int = 0) -> tuple[Tensor, Tensor]:
        """Match the boxes of an image with its ground truth by the matcher of a stage.

        Returns:
            The index of the best ground-truth object of each box (Tensor[N]), which means nothing without any, and the
            class of each box (Tensor[N]): that of the object, K for the background or -1 for boxes to ignore.
        """
        index, labels = self.stages[stage].matcher(pairwise_iou(target.gt_boxes, boxes))
        classes = torch.full_like(index, self.num_classes)
        if len(target.gt_boxes):
            classes = torch.where(labels == 1, target.gt_classes[index], classes)
            classes.masked_fill_(labels == -1, -1)
        return index, classes

    def losses(self, logits: Tensor, deltas: Tensor, sampled: Sequence[Instances], stage: int = 0) -> dict[str, Tensor]:
        """Return the classification loss, and the box regression loss of the foreground.

        Both are sums divided by the number of sampled proposals.

        Args:
            logits: the class logits of the sampled proposals, see `predict`.
            deltas: their box offsets, see `predict`.
            sampled: the result of `label_and_sample`.
            stage: index of the stage in `stages` that predicted them.
        """
        logits = logits.float()
        classes = torch.cat([s.gt_classes for s in sampled])
        _log_accuracy(logits, classes)
        total = max(len(classes), 1)
        foreground = ((classes >= 0) & (classes < self.num_classes)).nonzero().squeeze(1)
        one_box = deltas.shape[1] == 1
        loss_box = box_regression_loss(
            self.box_loss,
            self.stages[stage].coder,
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
        """Return the `mask_head.mask_loss` of those sampled proposals that stand for an object."""
        foreground = [s[(s.gt_classes >= 0) & (s.gt_classes < self.num_classes)] for s in sampled]
        logits = self.predict_masks(features, [s.proposal_boxes.tensor for s in foreground])
        goal = mask_targets(foreground, targets, logits.shape[-1])
        return mask_loss(logits, torch.cat([s.gt_classes for s in foreground]), goal)

    def add_masks(self, features: Mapping[str, Tensor], detections: Sequence[Instances]) -> None:
        """Add `pred_masks` to the detections of each image: probabilities within the boxes (Tensor[N, 1, M, M])."""
        logits = self.predict_masks(features, [d.pred_boxes.tensor for d in detections])
        masks = mask_probabilities(logits, torch.cat([d.pred_classes for d in detections]))
        for detection, mask in zip(detections, masks.split([len(d) for d in detections])):
            detection.pred_masks = mask

    def predict_masks(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return the mask logits (Tensor[R, K or 1, M, M]) of the boxes of all images (Tensor[R_n, 4] each)."""
        return self.mask_head(self.mask_pooler([features[name] for name in self.in_features], boxes))


def _check_fit(argument: str, part: Any, attribute: str, expected: Any, source: str) -> None:
    """Check an attribute of a part, if it has one, against that of another part."""
    found = getattr(part, attribute, expected)
    if found != expected:
        raise ArgumentError(f"{argument}.{attribute}", f"expected {expected} like {source}, found {found}")


@torch.no_grad()
def _log_accuracy(logits: Tensor, classes: Tensor) -> None:
    """Log the share of right classes among all and among the foreground, and of foreground taken for background."""
    if not collecting_metrics() or not len(classes):
        return
    background = logits.shape[1] - 1
    predicted = logits.argmax(dim=1)
    log_scalar("fast_rcnn/cls_accuracy", (predicted == classes).float().mean())
    foreground = (classes >= 0) & (classes < background)
    number = foreground.sum()  # of 0, the shares are NaN
    log_scalar("fast_rcnn/fg_cls_accuracy", ((predicted == classes) & foreground).sum() / number)
    log_scalar("fast_rcnn/false_negative", ((predicted == background) & foreground).sum() / number)
