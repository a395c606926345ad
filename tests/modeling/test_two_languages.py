"""Test that a class names its own argument in an error, and that a configuration's builder names the key instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from golden_detectron2 import CASES, config, pairs
from sn2fpn.errors import ArgumentError
from sn2fpn.modeling import RPN, AnchorGenerator, BoxHead, MaskHead, Matcher, RPNHead, StandardROIHeads, build_model
from sn2fpn.modeling.build import check_device
from sn2fpn.modeling.trunk import ESDOptions, make_resnet
from sn2fpn.signatures import keyword_parameters

ESD = {"MODEL.ESD.ENABLED": True}
MISTAKES: list[tuple[Callable[..., Any], dict[str, Any], str, dict[str, Any], str]] = [
    # the class, its arguments, the argument at fault, further keys that are needed, the key at fault
    (Matcher, {"thresholds": [0.7, 0.3], "labels": [0, -1, 1]}, "thresholds", {}, "MODEL.RPN.IOU_THRESHOLDS"),
    (Matcher, {"thresholds": [0.5], "labels": [0]}, "labels", {}, "MODEL.ROI_HEADS.IOU_LABELS"),
    (RPNHead, {"in_channels": 8, "num_anchors": 3, "conv_dims": [0]}, "conv_dims", {}, "MODEL.RPN.CONV_DIMS"),
    (
        AnchorGenerator,
        {"sizes": [[8], [9]], "aspect_ratios": [1], "strides": [4, 8, 16, 32, 64]},
        "sizes",
        {},
        "MODEL.ANCHOR_GENERATOR.SIZES",
    ),
    (
        BoxHead,
        {"in_channels": 8, "resolution": 7, "fc_dims": []},
        "fc_dims",
        {"MODEL.ROI_BOX_HEAD.NUM_CONV": 0, "MODEL.ROI_BOX_HEAD.NUM_FC": 0},
        "MODEL.ROI_BOX_HEAD.NUM_FC",
    ),
    (MaskHead, {"in_channels": 8, "num_classes": 3, "norm": "BM"}, "norm", {}, "MODEL.ROI_MASK_HEAD.NORM"),
    (make_resnet, {"depth": 20}, "depth", {}, "MODEL.RESNETS.DEPTH"),
    (make_resnet, {"depth": 18, "num_groups": 2}, "num_groups", {}, "MODEL.RESNETS.NUM_GROUPS"),
    (make_resnet, {"out_features": ["ress3"]}, "out_features", {}, "MODEL.RESNETS.OUT_FEATURES"),
    (make_resnet, {"freeze_at": 6}, "freeze_at", {}, "MODEL.BACKBONE.FREEZE_AT"),
    (make_resnet, {"esd": ESDOptions(2), "esd_stem": "pol"}, "esd_stem", ESD, "MODEL.ESD.STEM"),
    (make_resnet, {"esd": ESDOptions(2), "esd_stages": ["res2"]}, "esd_stages", ESD, "MODEL.ESD.STAGES"),
    (
        make_resnet,
        {"esd": ESDOptions(2), "esd_stem": "none", "esd_stages": []},
        "esd_stages",
        ESD | {"MODEL.ESD.STEM": "none"},
        "MODEL.ESD.STAGES",
    ),
    (ESDOptions, {"mode": 2, "shortcut": "max"}, "shortcut", ESD, "MODEL.ESD.SHORTCUT"),
    (check_device, {"device": "cudda"}, "device", {}, "MODEL.DEVICE"),
]


@pytest.mark.parametrize(("target", "arguments", "argument", "keys", "key"), MISTAKES)
def test_the_same_problem_under_the_callers_name(
    target: Callable[..., Any], arguments: dict[str, Any], argument: str, keys: dict[str, Any], key: str
) -> None:
    with pytest.raises(ArgumentError) as direct:
        target(**arguments)
    assert direct.value.argument == argument and argument in keyword_parameters(target)
    cfg = config(CASES["train_faster_r18"])
    cfg.merge_from_list(pairs({"MODEL.MASK_ON": "MASK" in key, key: arguments[argument], **keys}))
    with pytest.raises(ArgumentError) as built:
        build_model(cfg)
    assert (built.value.argument, built.value.problem) == (key, direct.value.problem)


@pytest.mark.parametrize(("target", "key"), [(RPN, "MODEL.RPN"), (StandardROIHeads, "MODEL.ROI_BOX_HEAD")])
def test_an_unknown_box_loss(target: type, key: str) -> None:
    known = dict.fromkeys(keyword_parameters(target))
    with pytest.raises(ArgumentError, match=r"^box_loss: unknown value 'l1'"):
        target(**known | {"in_features": (), "box_loss": "l1"})
    cfg = config(CASES["train_faster_r18"])
    cfg.merge_from_list([f"{key}.BBOX_REG_LOSS_TYPE", "l1"])
    with pytest.raises(ArgumentError, match=f"^{key}.BBOX_REG_LOSS_TYPE: unknown value 'l1'"):
        build_model(cfg)


def test_errors_of_checks_between_parts_name_the_part() -> None:
    detector = build_model(config(CASES["train_faster_r18"]))
    parts = detector.backbone, detector.proposal_generator, detector.roi_heads
    detector.roi_heads.in_features = ("p2", "p9")
    with pytest.raises(ArgumentError, match=r"^roi_heads.in_features: the backbone has no output 'p9'; choose"):
        type(detector)(*parts, [0.0] * 3, [1.0] * 3)
    detector.roi_heads.in_features = ("p3", "p4", "p5", "p6")
    with pytest.raises(ArgumentError, match=r"^roi_heads: ROIPooler has strides \[4, .* have \[8, 16, 32, 64\]"):
        type(detector)(*parts, [0.0] * 3, [1.0] * 3)
