"""Tests of the graph that is exported, in PyTorch: its detections are those of the detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from export_models import CASCADE, NORMED_HEADS, picture

from sn2fpn.export.comparison import Difference, compare, detections_of
from sn2fpn.export.inference import PlainDetector
from sn2fpn.modeling import GeneralizedRCNN
from sn2fpn.pyramids import PYRAMIDS

Detector = Callable[..., GeneralizedRCNN]

OPTIONS: dict[str, dict[str, Any]] = {
    **{f"{norm} in the heads": keys for norm, keys in NORMED_HEADS.items()},
    "frozen norms in the trunk": {"MODEL.RESNETS.NORM": "FrozenBN", "MODEL.BACKBONE.FREEZE_AT": 2},
    "one box for all classes": {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True},
    "one mask for all classes": {"MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True},
    "sigmoids": {"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.9},
    "unaligned": {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign", "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign"},
    "samples": {"MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2},
    "few": {"TEST.DETECTIONS_PER_IMAGE": 3, "MODEL.RPN.POST_NMS_TOPK_TEST": 20, "MODEL.RPN.PRE_NMS_TOPK_TEST": 15},
    "convolutions in the box head": {"MODEL.ROI_BOX_HEAD.NUM_CONV": 1, "MODEL.ROI_BOX_HEAD.CONV_DIM": 16},
    "large boxes": {"MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 20},
    "a cascade": CASCADE,
    "a cascade of sigmoids": CASCADE
    | {"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.8},
    "RGB": {"INPUT.FORMAT": "RGB"},
}


def check(model: GeneralizedRCNN) -> None:
    """Compare the detections in two pictures, with a score threshold that some detections reach."""
    plain = PlainDetector(model)
    for image in (picture(0), picture(1, 130, 101), picture(3, 70, 65).float()):
        expected = detections_of(model, image)
        difference = compare(plain(image), expected)
        assert len(expected[0]) and difference.equal, difference


@pytest.mark.parametrize("name", PYRAMIDS)
def test_every_pyramid(detector: Detector, name: str) -> None:
    check(detector({"MODEL.BACKBONE.NAME": f"build_sn2_{name}_backbone"}))


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_every_option(detector: Detector, changes: dict[str, Any]) -> None:
    check(detector(changes))


def test_without_masks(detector: Detector) -> None:
    model = detector({"MODEL.MASK_ON": False})
    assert len(PlainDetector(model)(picture(0))) == 3
    check(model)


def test_the_detector_is_not_changed(detector: Detector) -> None:
    model = detector(OPTIONS["frozen norms in the trunk"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = PlainDetector(model)
    assert not any(type(m).__name__ == "FrozenBatchNorm2d" for m in plain.modules())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


def detections(*rows: tuple[float, float, int]) -> list[torch.Tensor]:
    """Return detections of 10 x 10 pixels, given as (x1, score, class)."""
    x, scores, classes = map(torch.tensor, zip(*rows))
    return [torch.stack([x, 0 * x, x + 10, 0 * x + 10], 1), scores, classes]


@pytest.mark.parametrize(
    ("found", "equal"),
    [
        (detections((0.0, 0.9, 1), (50.0, 0.5, 0), (30.0, 0.5, 0)), True),
        (detections((30.0, 0.5, 0), (50.0, 0.5, 0), (0.0, 0.9, 1)), True),
        (detections((0.005, 0.9, 1), (50.0, 0.5, 0), (30.0, 0.50005, 0)), True),
        (detections((0.02, 0.9, 1), (50.0, 0.5, 0), (30.0, 0.5, 0)), False),
        (detections((0.0, 0.9002, 1), (50.0, 0.5, 0), (30.0, 0.5, 0)), False),
        (detections((0.0, 0.9, 0), (50.0, 0.5, 0), (30.0, 0.5, 0)), False),
        (detections((0.0, 0.9, 1), (50.0, 0.5, 0)), False),
    ],
)
def test_comparison(found: list[torch.Tensor], equal: bool) -> None:
    """The order of detections does not matter; small differences are rounding."""
    assert compare(found, detections((0.0, 0.9, 1), (50.0, 0.5, 0), (30.0, 0.5, 0))).equal is equal


def test_comparison_without_detections() -> None:
    nothing = [torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)]
    assert compare(nothing, nothing) == Difference(0, 0) and compare(nothing, nothing).equal
    assert not compare(nothing, nothing).compared and compare(nothing, detections((0.0, 0.9, 1))).compared
