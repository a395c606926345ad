"""Build the RoI heads that a configuration describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...config import CfgNode
from ...errors import argument_names, keys_of
from ...structures import ShapeSpec
from ..box_coding import BoxCoder
from ..features import common_channels, pick_shapes
from ..matching import Matcher
from ..soft_nms import SoftNMS
from .box_head import BoxPredictor, build_box_head
from .mask_head import build_mask_head
from .pooler import ROIPooler
from .standard import StandardROIHeads

__all__ = ["build_roi_heads"]


def build_roi_heads(cfg: CfgNode, input_shapes: Mapping[str, ShapeSpec]) -> StandardROIHeads:
    """Return the RoI heads of a configuration for a pyramid with the given outputs.

    They are described by `MODEL.ROI_HEADS`, `MODEL.ROI_BOX_HEAD` and, with `MODEL.MASK_ON`, `MODEL.ROI_MASK_HEAD`.
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
        box_head = build_box_head(cfg, channels)
        return StandardROIHeads(
            num_classes=heads.NUM_CLASSES,
            in_features=heads.IN_FEATURES,
            box_head=box_head,
            box_predictor=BoxPredictor(box_head.out_features, heads.NUM_CLASSES, box.CLS_AGNOSTIC_BBOX_REG),
            box_pooler=_build_pooler(box, "MODEL.ROI_BOX_HEAD", shapes),
            box_coder=BoxCoder(box.BBOX_REG_WEIGHTS),
            matcher=Matcher(heads.IOU_THRESHOLDS, heads.IOU_LABELS),
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
            mask_pooler=_build_pooler(cfg.MODEL.ROI_MASK_HEAD, "MODEL.ROI_MASK_HEAD", shapes) if mask_on else None,
            mask_head=build_mask_head(cfg, channels) if mask_on else None,
        )


def _build_pooler(head: CfgNode, group: str, shapes: Sequence[ShapeSpec]) -> ROIPooler:
    """Return the pooler that `MODEL.ROI_BOX_HEAD` or `MODEL.ROI_MASK_HEAD` describes."""
    keys = {"output_size": f"{group}.POOLER_RESOLUTION", "sampling_ratio": f"{group}.POOLER_SAMPLING_RATIO"}
    with argument_names(keys):
        return ROIPooler(
            head.POOLER_RESOLUTION,
            [s.stride for s in shapes],
            head.POOLER_SAMPLING_RATIO,
            aligned=head.POOLER_TYPE == "ROIAlignV2",
        )
