"""Tests of the errors of whole detectors in float32 on a CPU, against float64; docs/performance.md has the figures."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from golden_detectron2 import CASES, config, filler, inputs, pairs
from sn2fpn.modeling import build_model
from sn2fpn.modeling.detector import GeneralizedRCNN

CASE = CASES["train_faster_r18"]


def make(depth: int, norm: str) -> GeneralizedRCNN:
    """Return a detector with the weights of the golden cases, whose norms have effect."""
    cfg = config(CASE)
    frozen = norm == "FrozenBN"
    overrides = {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64 if depth == 18 else 256,
        "MODEL.RESNETS.NORM": norm,
        "MODEL.FPN.NORM": "" if frozen else norm,
        "MODEL.BACKBONE.FREEZE_AT": 2 if frozen else 0,
    }
    cfg.merge_from_list(pairs(overrides))
    return filler.fill_model(build_model(cfg), CASE)


@torch.no_grad()
def outputs(detector: GeneralizedRCNN, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the maps of the pyramid, and the probabilities of all anchors."""
    detector = copy.deepcopy(detector).to(x.dtype)  # training changes running statistics
    maps = detector.backbone(x)
    rpn = detector.proposal_generator
    logits, _ = rpn.rpn_head([maps[name] for name in rpn.in_features])
    return list(maps.values()), [x.sigmoid() for x in logits]


def errors(found: tuple[list[Tensor], ...], expected: tuple[list[Tensor], ...]) -> tuple[float, float]:
    """Return the largest error of the maps, in deviations of a map, and of the probabilities."""
    maps, scores = ([(a - b).abs().max() for a, b in zip(*parts)] for parts in zip(found, expected))
    return max(float(e / b.std()) for e, b in zip(maps, expected[0])), max(map(float, scores))


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN"])
@pytest.mark.parametrize("depth", [18, 50])
def test_errors_are_those_of_contiguous_maps(depth: int, norm: str, training: bool) -> None:
    """In contiguous layout the errors are Detectron2's. Channels-last maps may have three times as much."""
    detector = make(depth, norm).train(training)
    x = detector.preprocess_image(inputs(CASE)).tensor
    assert x.is_contiguous(memory_format=torch.channels_last) != (training and norm != "FrozenBN")
    expected = outputs(detector, x.double())
    maps, scores = errors(outputs(detector, x), expected)
    contiguous_maps, contiguous_scores = errors(outputs(detector, x.contiguous()), expected)
    assert maps <= 3 * contiguous_maps
    assert scores <= 3 * contiguous_scores + 1e-6
    assert maps <= (1e-3 if (depth, norm, training) == (50, "BN", True) else 1e-4)  # the first case amplifies rounding
