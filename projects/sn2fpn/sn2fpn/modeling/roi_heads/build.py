"""Build the RoI heads that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...config import CfgNode
from ...errors import ArgumentError, argument_names, keys_of
from ...structures import ShapeSpec
from ..box_coding import BoxCoder
from ..features import common_channels, pick_shapes
from ..matching import Matcher
from ..soft_nms import SoftNMS
from .box_head import BoxHead, BoxPredictor, build_box_head
from .cascade import CascadeROIHeads
from .mask_head import build_mask_head
from .pooler import ROIPooler
from .standard import StandardROIHeads

__all__ = ["build_roi_heads", "cascade_stages", "check_cascade"]

CASCADE = "CascadeROIHeads"


def build_roi_heads(cfg: CfgNode, input_shapes: Mapping[str, ShapeSpec]) -> StandardROIHeads:
    """Return the RoI heads of a configuration for a pyramid with the given outputs.

    They are described by `MODEL.ROI_HEADS`, `MODEL.ROI_BOX_HEAD`, for Cascade R-CNN `MODEL.ROI_BOX_CASCADE_HEAD`, and
    with `MODEL.MASK_ON` by `MODEL.ROI_MASK_HEAD`.
    """
    heads, box = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
    mask_on, soft = cfg.MODEL.MASK_ON, heads.SOFT_NMS
    names = keys_of(
        "MODEL.ROI_HEADS",
        thresholds="MODEL.ROI_HEADS.IOU_THRESHOLDS",
        labels="MODEL.ROI_HEADS.IOU_LABELS",
        strides="MODEL.ROI_HEADS.IN_FEATURES",
        weights="MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
        box_loss="MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE",
        smooth_l1_beta="MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA",
        box_loss_weight="MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT",
        score_thresh="MODEL.ROI_HEADS.SCORE_THRESH_TEST",
        nms_thresh="MODEL.ROI_HEADS.NMS_THRESH_TEST",
        max_detections="TEST.DETECTIONS_PER_IMAGE",
        kind="MODEL.ROI_HEADS.SOFT_NMS.METHOD",
        sigma="MODEL.ROI_HEADS.SOFT_NMS.SIGMA",
    )
    with argument_names(names):
        shapes = pick_shapes(input_shapes, heads.IN_FEATURES)
        channels = common_channels(shapes)
        make, parts = _build_stages(cfg, channels)
        return make(
            num_classes=heads.NUM_CLASSES,
            in_features=heads.IN_FEATURES,
            box_pooler=_build_pooler(cfg, "ROI_BOX_HEAD", shapes),
            **parts,
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
            soft_nms=SoftNMS(soft.METHOD, soft.SIGMA) if soft.METHOD else None,
            mask_pooler=_build_pooler(cfg, "ROI_MASK_HEAD", shapes) if mask_on else None,
            mask_head=build_mask_head(cfg, channels) if mask_on else None,
        )


def check_cascade(cfg: Any) -> None:
    """Check the keys of Cascade R-CNN, if a configuration has its heads; both engines have the same demands.

    Raises:
        ArgumentError: there is no stage, the stages' IoUs and weights differ in number, the first IoU is not that of
            `MODEL.ROI_HEADS`, or box offsets are not shared by the classes.
    """
    heads, cascade = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_CASCADE_HEAD
    if heads.NAME != CASCADE:
        return
    ious, weights = cascade.IOUS, cascade.BBOX_REG_WEIGHTS
    if not ious or len(ious) != len(weights):
        problem = f"expected an IoU for each of the {len(weights)} stages of BBOX_REG_WEIGHTS, found {list(ious)}"
        raise ArgumentError("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", problem)
    if list(heads.IOU_THRESHOLDS)[:1] != [ious[0]]:
        problem = f"expected [{ious[0]}] like the first of MODEL.ROI_BOX_CASCADE_HEAD.IOUS"
        raise ArgumentError("MODEL.ROI_HEADS.IOU_THRESHOLDS", f"{problem}, found {list(heads.IOU_THRESHOLDS)}")
    if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        problem = f"{CASCADE} needs True, because a stage starts from one box per proposal, found False"
        raise ArgumentError("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", problem)


def cascade_stages(cfg: Any) -> int:
    """Return the number of stages of a configuration of Cascade R-CNN, and 0 for other heads."""
    return len(cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS) if cfg.MODEL.ROI_HEADS.NAME == CASCADE else 0


def _build_stages(cfg: CfgNode, channels: int) -> tuple[Callable[..., StandardROIHeads], dict[str, Any]]:
    """Return the class of the RoI heads and its arguments for the box branch, made in Detectron2's order."""
    heads, cascade = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_CASCADE_HEAD
    if heads.NAME != CASCADE:
        box_head, predictor = _build_box_layers(cfg, channels)
        parts = dict(
            box_head=box_head,
            box_predictor=predictor,
            box_coder=BoxCoder(cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS),
            matcher=Matcher(heads.IOU_THRESHOLDS, heads.IOU_LABELS),
        )
        return StandardROIHeads, parts
    check_cascade(cfg)
    group = "MODEL.ROI_BOX_CASCADE_HEAD"
    with argument_names({"weights": f"{group}.BBOX_REG_WEIGHTS", "thresholds": f"{group}.IOUS"}):
        coders = [BoxCoder(weights) for weights in cascade.BBOX_REG_WEIGHTS]
        matchers = [Matcher([iou], [0, 1]) for iou in cascade.IOUS]
    box_heads, predictors = zip(*(_build_box_layers(cfg, channels) for _ in matchers))
    return CascadeROIHeads, dict(box_heads=box_heads, box_predictors=predictors, box_coders=coders, matchers=matchers)


def _build_box_layers(cfg: CfgNode, channels: int) -> tuple[BoxHead, BoxPredictor]:
    box_head = build_box_head(cfg, channels)
    agnostic = cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG
    return box_head, BoxPredictor(box_head.out_features, cfg.MODEL.ROI_HEADS.NUM_CLASSES, agnostic)


def _build_pooler(cfg: CfgNode, group: str, shapes: Sequence[ShapeSpec]) -> ROIPooler:
    """Return the pooler that a group of `MODEL`, "ROI_BOX_HEAD" or "ROI_MASK_HEAD", describes."""
    head = cfg.MODEL[group]
    keys = {
        "output_size": f"MODEL.{group}.POOLER_RESOLUTION",
        "sampling_ratio": f"MODEL.{group}.POOLER_SAMPLING_RATIO",
        "canonical_box_size": "MODEL.ROI_HEADS.CANONICAL_BOX_SIZE",
    }
    with argument_names(keys):
        return ROIPooler(
            head.POOLER_RESOLUTION,
            [s.stride for s in shapes],
            head.POOLER_SAMPLING_RATIO,
            aligned=head.POOLER_TYPE == "ROIAlignV2",
            canonical_box_size=cfg.MODEL.ROI_HEADS.CANONICAL_BOX_SIZE,
        )
