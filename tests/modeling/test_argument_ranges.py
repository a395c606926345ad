"""Test that the parts of a detector refuse numbers that train to nothing, under the names that the caller knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from golden_detectron2 import CASES, config
from sn2fpn.config import LazyCall as L
from sn2fpn.config import instantiate
from sn2fpn.errors import ArgumentError
from sn2fpn.modeling import (
    RPN,
    AnchorGenerator,
    BoxCoder,
    BoxHead,
    BoxPredictor,
    GeneralizedRCNN,
    MaskHead,
    Matcher,
    ROIPooler,
    RPNHead,
    StandardROIHeads,
    build_backbone,
    build_model,
)
from sn2fpn.modeling.features import pick_shapes
from sn2fpn.modeling.roi_heads import build_roi_heads
from sn2fpn.modeling.rpn import build_rpn
from sn2fpn.structures import ShapeSpec

BOX, MASK, HEADS, ANCHORS = (
    f"MODEL.{group}" for group in ("ROI_BOX_HEAD", "ROI_MASK_HEAD", "ROI_HEADS", "ANCHOR_GENERATOR")
)
REFUSED: dict[str, tuple[Any, ...]] = {
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": (0, -1),
    "MODEL.RPN.POSITIVE_FRACTION": (0.0, -0.5, 1.5, math.nan),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": (0, -1),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": (0, -1),
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": (0, -1),
    "MODEL.RPN.POST_NMS_TOPK_TEST": (0, -1),
    "MODEL.RPN.NMS_THRESH": (7.0, -0.1, math.nan),
    "MODEL.RPN.SMOOTH_L1_BETA": (-1.0, math.inf),
    "MODEL.RPN.LOSS_WEIGHT": (-1.0, math.nan),
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": (-1.0, math.nan),
    "MODEL.RPN.BBOX_REG_WEIGHTS": ((1.0, 1.0, 1.0), (1.0, 1.0, 0.0, 1.0), (1.0, 1.0, 1.0, -1.0)),
    "MODEL.RPN.IOU_THRESHOLDS": ([0.3, 7.0], [-0.1, 0.7], []),
    "MODEL.RPN.CONV_DIMS": ([-2], [16, 0], []),
    "MODEL.RPN.IN_FEATURES": ([], ["p2", "p2", "p3"], ["p2", "p7"]),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": (-1,),
    f"{ANCHORS}.SIZES": ([[32], [0]], [[-8]], [[]], [[32], [64], [], [256], [512]]),
    f"{ANCHORS}.ASPECT_RATIOS": ([[0.5, -1.0]], [[0.0]]),
    f"{ANCHORS}.OFFSET": (1.0, -0.5, math.nan),
    f"{HEADS}.NUM_CLASSES": (0, -1),
    f"{HEADS}.BATCH_SIZE_PER_IMAGE": (0, -1),
    f"{HEADS}.POSITIVE_FRACTION": (0.0, 1.01, 0.0001),
    f"{HEADS}.IOU_LABELS": ([0, 0], [0, -1]),
    f"{HEADS}.IN_FEATURES": (["p2", "p2"], ["p2", "p4"], ["p3", "p2"]),
    f"{HEADS}.SCORE_THRESH_TEST": (1.0, 7.0, math.nan),
    f"{HEADS}.NMS_THRESH_TEST": (1.5, -0.5),
    f"{BOX}.SMOOTH_L1_BETA": (-1.0,),
    f"{BOX}.BBOX_REG_LOSS_WEIGHT": (-1.0,),
    f"{BOX}.BBOX_REG_WEIGHTS": ((10.0, 10.0, 5.0), (10.0, 10.0, 5.0, 0.0)),
    f"{BOX}.POOLER_RESOLUTION": (0, -7),
    f"{BOX}.POOLER_SAMPLING_RATIO": (-2,),
    f"{BOX}.NUM_CONV": (-1,),
    f"{BOX}.NUM_FC": (-1,),
    f"{BOX}.FC_DIM": (0, -1),
    f"{BOX}.CONV_DIM": (0,),
    f"{MASK}.POOLER_RESOLUTION": (0,),
    f"{MASK}.NUM_CONV": (-1,),
    f"{MASK}.CONV_DIM": (0, -1),
    "TEST.DETECTIONS_PER_IMAGE": (0, -2),
    "MODEL.PIXEL_STD": ([1.0, 0.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0]),
    "MODEL.PIXEL_MEAN": ([math.nan, 0.0, 0.0],),
}
ACCEPTED: dict[str, tuple[Any, ...]] = {  # as in Detectron2
    "MODEL.RPN.BOUNDARY_THRESH": (-1, 0, 100),
    "MODEL.RPN.CONV_DIMS": ([-1], [-1, -1], [16, -1]),
    "MODEL.RPN.SMOOTH_L1_BETA": (0.0, 0.1),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": (1, 10**6),
    "MODEL.RPN.NMS_THRESH": (0.0, 1.0),
    "MODEL.RPN.LOSS_WEIGHT": (0.0,),
    "MODEL.RPN.POSITIVE_FRACTION": (1.0,),
    "MODEL.RPN.IOU_LABELS": ([0, -1, -1],),  # the best anchors of each object are positive all the same
    f"{BOX}.POOLER_SAMPLING_RATIO": (0, -1, 2),
    f"{MASK}.NUM_CONV": (0,),
    f"{HEADS}.SCORE_THRESH_TEST": (0.0, -1.0),
    "TEST.DETECTIONS_PER_IMAGE": (-1, 1),
}


def build(key: str, value: Any) -> Any:
    cfg = config(CASES["train_faster_r18"])
    mask_conv = 1 if key == f"{MASK}.CONV_DIM" and value == 0 else 0
    cfg.merge_from_list(["MODEL.MASK_ON", True, f"{MASK}.NUM_CONV", mask_conv])
    if key == f"{BOX}.CONV_DIM":
        cfg.merge_from_list([f"{BOX}.NUM_CONV", 1])
    cfg.merge_from_list([key, value])
    return build_model(cfg)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_a_key_out_of_its_range_is_named(key: str, value: Any) -> None:
    with torch.device("meta"), pytest.raises(ArgumentError) as caught:
        build(key, value)
    assert caught.value.argument.partition("[")[0] == key


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ACCEPTED.items() for value in values])
def test_what_detectron2_trains_sensibly_is_accepted(key: str, value: Any) -> None:
    assert build(key, value).training


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BoxCoder((1, 1, "1", 1)), r"weights\[2\]: expected a number above 0, found '1'"),
        (lambda: BoxCoder(3), "weights: expected 4 numbers, found 3"),
        (lambda: BoxCoder(scale_clamp=0), "scale_clamp: expected a number above 0, found 0"),
        (lambda: Matcher([0.5], [0, 2]), "labels: expected 2 numbers out of -1, 0 and 1"),
        (lambda: ROIPooler(7, []), "strides: expected powers of two"),
        (lambda: ROIPooler(7, [0]), r"strides\[0\]: expected a whole number of at least 1, found 0"),
        (lambda: ROIPooler(7, [4, 8, 12]), "strides: expected powers of two"),
        (lambda: ROIPooler(7.5, [4]), "output_size: expected a whole number of at least 1, found 7.5"),
        (lambda: AnchorGenerator([32], [1.0], [4, 0]), r"strides\[1\]: expected a whole number of at least 1, found 0"),
        (lambda: AnchorGenerator(32, [1.0], [4]), "sizes: expected one list of numbers, .*found 32"),
        (lambda: AnchorGenerator([[32, "64"]], [1.0], [4]), r"sizes\[0\]\[1\]: expected a number above 0, found '64'"),
        (lambda: RPNHead(0, 3), "in_channels: expected a whole number of at least 1, found 0"),
        (lambda: RPNHead(8, 0), "num_anchors: expected a whole number of at least 1, found 0"),
        (lambda: BoxHead(8, 0), "resolution: expected a whole number of at least 1, found 0"),
        (lambda: BoxHead(8, 7, fc_dims=[16, 0]), r"fc_dims\[1\]: expected a whole number of at least 1, found 0"),
        (lambda: BoxPredictor(8, True), "num_classes: expected a whole number of at least 1, found True"),
        (lambda: MaskHead(8, 3, deconv_dim=-1), "deconv_dim: expected a whole number of at least 1, found -1"),
        (lambda: pick_shapes({"p2": ShapeSpec(8)}, "p2"), "in_features: expected a list of names, found 'p2'"),
    ],
)
def test_a_class_names_its_own_argument(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{words}"):
        call()


def rpn(**changes: Any) -> Any:
    parts = {
        "in_features": ["p2", "p3"],
        "head": L(RPNHead)(in_channels=8, num_anchors=3),
        "anchor_generator": L(AnchorGenerator)(sizes=[32], aspect_ratios=[0.5, 1.0, 2.0], strides=[4, 8]),
        "matcher": L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality=True),
        "box_coder": L(BoxCoder)(),
    }
    return L(RPN)(**parts | changes)


def heads(**changes: Any) -> Any:
    parts = {
        "num_classes": 3,
        "in_features": ["p2", "p3"],
        "box_pooler": L(ROIPooler)(output_size=7, strides=[4, 8]),
        "box_head": L(BoxHead)(in_channels=8, resolution=7, fc_dims=[16]),
        "box_predictor": L(BoxPredictor)(in_features=16, num_classes=3),
        "box_coder": L(BoxCoder)(),
        "matcher": L(Matcher)(thresholds=[0.5], labels=[0, 1]),
        "mask_pooler": L(ROIPooler)(output_size=14, strides=[4, 8]),
        "mask_head": L(MaskHead)(in_channels=8, num_classes=3, conv_dims=[8], deconv_dim=8),
    }
    return L(StandardROIHeads)(**parts | changes)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            rpn(in_features=["p2"]),
            r"in_features \(.*RPN\): expected one for each stride of anchor_generator \(4, 8\), found",
        ),
        (rpn(head=L(RPNHead)(in_channels=8, num_anchors=4)), r"head \(.*RPN\): it predicts 4 anchors"),
        (rpn(post_nms_topk=(1000, 0)), r"post_nms_topk\[1\] \(.*RPN\): expected a whole number of at least 1, found 0"),
        (rpn(pre_nms_topk=100), r"pre_nms_topk \(.*RPN\): expected 2 numbers, found 100"),
        (
            heads(in_features=["p2"]),
            r"in_features \(.*Heads\): expected one for each stride of box_pooler \(4, 8\), found \['p2'\]",
        ),
        (
            heads(box_head=L(BoxHead)(in_channels=8, resolution=8, fc_dims=[16])),
            r"box_head.resolution \(.*\): expected 7 like box_pooler.output_size, found 8",
        ),
        (
            heads(box_predictor=L(BoxPredictor)(in_features=32, num_classes=3)),
            r"box_predictor.in_features \(.*\): expected 16 like box_head.out_features, found 32",
        ),
        (
            heads(box_predictor=L(BoxPredictor)(in_features=16, num_classes=80)),
            r"box_predictor.num_classes \(.*\): expected 3 like num_classes, found 80",
        ),
        (heads(mask_head=None), r"mask_head \(.*\): the mask branch needs both"),
        (heads(mask_pooler=None), r"mask_pooler \(.*\): the mask branch needs both"),
        (
            heads(mask_pooler=L(ROIPooler)(output_size=14, strides=[8, 16])),
            r"mask_pooler.strides \(.*\): expected \(4, 8\) like box_pooler.strides, found \(8, 16\)",
        ),
        (
            heads(mask_head=L(MaskHead)(in_channels=8, num_classes=80, conv_dims=[8], deconv_dim=8)),
            r"mask_head.num_classes \(.*\): expected 3 like num_classes, found 80",
        ),
    ],
)
def test_parts_that_do_not_fit_each_other(node: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{words}"):
        instantiate(node)


@pytest.mark.parametrize(
    ("part", "head", "key"),
    [
        ("proposal_generator", {"rpn_head": RPNHead(11, 3)}, "proposal_generator.head.in_channels"),
        ("roi_heads", {"box_head": BoxHead(11, 7)}, "roi_heads.box_head.in_channels"),
        ("roi_heads", {"mask_head": MaskHead(11, 3)}, "roi_heads.mask_head.in_channels"),
    ],
)
def test_heads_for_other_channels_than_the_backbones(part: str, head: dict[str, Any], key: str) -> None:
    with torch.device("meta"):
        cfg = config(CASES["train_faster_r18"])
        cfg.merge_from_list(["MODEL.MASK_ON", True])
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        parts = {"proposal_generator": build_rpn(cfg, shapes), "roi_heads": build_roi_heads(cfg, shapes)}
    for name, module in head.items():
        setattr(parts[part], name, module)
    width = cfg.MODEL.FPN.OUT_CHANNELS
    with pytest.raises(ArgumentError, match=rf"^{key}: expected {width} like the map 'p2', found 11$"):
        GeneralizedRCNN(backbone, **parts, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)


def test_parts_that_fit_and_masks_of_one_class_for_all() -> None:
    assert instantiate(rpn()).training
    one_class = L(MaskHead)(in_channels=8, num_classes=1, conv_dims=[8], deconv_dim=8)
    assert instantiate(heads()).num_classes == instantiate(heads(mask_head=one_class)).num_classes == 3
