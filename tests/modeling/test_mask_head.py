"""Test the mask branch: layers, loss, logged scalars, masks of final detections, and images without objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from golden_detectron2 import NOTHING, pairs
from sn2fpn.config import get_cfg
from sn2fpn.modeling.metrics import collect_metrics
from sn2fpn.modeling.roi_heads import StandardROIHeads, build_roi_heads
from sn2fpn.modeling.roi_heads.mask_head import MaskHead, mask_loss, mask_probabilities, mask_targets
from sn2fpn.structures import BitMasks, Boxes, ImageList, Instances, PolygonMasks, ShapeSpec

SHAPES = {f"p{level}": ShapeSpec(channels=8, stride=2**level) for level in (2, 3)}
SIZES = [(64, 96), (60, 90)]
GT = [[4.0, 5.0, 30.0, 28.0], [40.0, 10.0, 90.0, 60.0]]


def make_heads(overrides: Mapping[str, Any] = NOTHING) -> StandardROIHeads:
    cfg = get_cfg()
    cfg.merge_from_list(
        pairs(
            {
                "MODEL.MASK_ON": True,
                "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3"],
                "MODEL.ROI_HEADS.NUM_CLASSES": 3,
                "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
                "MODEL.ROI_BOX_HEAD.FC_DIM": 6,
                "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 3,
                "MODEL.ROI_MASK_HEAD.NUM_CONV": 2,
                "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
                "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 6,
                **overrides,
            }
        )
    )
    torch.manual_seed(0)
    return build_roi_heads(cfg, SHAPES)


def polygon(box: list[float]) -> list[np.ndarray]:
    """Return the lower left half of a box."""
    x1, y1, x2, y2 = box
    return [np.array([x1, y1, x2, y2, x1, y2])]


def make_batch(*gt: list[list[float]], bitmaps: bool = False) -> tuple:
    g = torch.Generator().manual_seed(5)
    features = {name: torch.randn(2, 8, 64 // s.stride, 96 // s.stride, generator=g) for name, s in SHAPES.items()}
    proposals, targets = [], []
    for size, boxes in zip(SIZES, gt):
        near = torch.tensor(GT).repeat(10, 1) + torch.rand(20, 4, generator=g) * 6 - 3
        proposals.append(Instances(size, proposal_boxes=Boxes(near), objectness_logits=torch.zeros(20)))
        masks = PolygonMasks([polygon(b) for b in boxes])
        targets.append(
            Instances(
                size,
                gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
                gt_classes=torch.arange(1, 1 + len(boxes)),
                gt_masks=BitMasks.from_polygon_masks(masks, *size) if bitmaps else masks,
            )
        )
    return ImageList(torch.zeros(2, 3, 64, 96), SIZES), features, proposals, targets


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
@pytest.mark.parametrize("agnostic", [False, True])
def test_names_and_shapes(norm: str, agnostic: bool) -> None:
    head = make_heads({"MODEL.ROI_MASK_HEAD.NORM": norm, "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": agnostic}).mask_head
    classes = 1 if agnostic else 3
    end = [("norm.weight", (32,)), ("norm.bias", (32,))] if norm else [("bias", (32,))]
    expected = {
        "mask_fcn1.weight": (32, 8, 3, 3),
        "mask_fcn2.weight": (32, 32, 3, 3),
        "deconv.weight": (32, 32, 2, 2),
        "deconv.bias": (32,),
        "predictor.weight": (classes, 32, 1, 1),
        "predictor.bias": (classes,),
        **{f"mask_fcn{i}.{k}": v for i in (1, 2) for k, v in end},
    }
    assert {name: tuple(p.shape) for name, p in head.named_parameters()} == expected
    assert head(torch.randn(5, 8, 6, 6)).shape == (5, classes, 12, 12)
    assert head.predictor.weight.std() < 0.002 and (head.predictor.bias == 0).all()


def test_a_head_without_convs_still_upsamples() -> None:
    assert MaskHead(8, 3, [], 16)(torch.randn(2, 8, 7, 7)).shape == (2, 3, 14, 14)


@pytest.mark.parametrize("agnostic", [False, True])
def test_loss_and_scalars_by_hand(agnostic: bool) -> None:
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 1 if agnostic else 3, 5, 5, generator=g, requires_grad=True)
    classes, goal = torch.tensor([2, 0, 1, 2]), torch.rand(4, 5, 5, generator=g) < 0.3
    with collect_metrics() as metrics:
        loss = mask_loss(logits, classes, goal)
    losses, counts = [], dict.fromkeys(((p, t) for p in (False, True) for t in (False, True)), 0)
    for row, label in enumerate(classes.tolist()):
        for y in range(5):
            for x in range(5):
                value, truth = logits[row, 0 if agnostic else label, y, x].item(), goal[row, y, x].item()
                losses.append(-math.log(1 / (1 + math.exp(-value if truth else value))))
                counts[value > 0, truth] += 1
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert float(metrics["mask_rcnn/accuracy"]) == pytest.approx((counts[0, 0] + counts[1, 1]) / 100)
    assert float(metrics["mask_rcnn/false_positive"]) == pytest.approx(counts[1, 0] / (counts[1, 0] + counts[0, 0]))
    assert float(metrics["mask_rcnn/false_negative"]) == pytest.approx(counts[0, 1] / (counts[0, 1] + counts[1, 1]))
    loss.backward()
    taught = (logits.grad != 0).flatten(2).any(2)
    assert taught.nonzero().tolist() == [[row, 0 if agnostic else c] for row, c in enumerate(classes.tolist())]
    probabilities = mask_probabilities(logits.detach(), classes)
    assert probabilities.shape == (4, 1, 5, 5)
    assert probabilities[1, 0, 0, 0].item() == pytest.approx(logits[1, 0, 0, 0].sigmoid().item())


@pytest.mark.parametrize("bitmaps", [False, True])
def test_targets_are_the_matched_objects_within_the_proposals(bitmaps: bool) -> None:
    _, _, _, targets = make_batch(GT, [], bitmaps=bitmaps)
    box, shifted = GT[1], [GT[1][0] + 25, *GT[1][1:]]  # the second one is the right half of the object
    sampled = [
        Instances(
            SIZES[0], proposal_boxes=Boxes(torch.tensor([box, shifted, GT[0]])), gt_index=torch.tensor([1, 1, 0])
        ),
        Instances(SIZES[1], proposal_boxes=Boxes(torch.zeros(0, 4)), gt_index=torch.zeros(0, dtype=torch.int64)),
    ]
    targets[1].remove("gt_masks")  # An image without objects needs none.
    goal = mask_targets(sampled, targets, 28)
    assert goal.shape == (3, 28, 28) and goal.dtype == torch.bool
    assert goal.float().mean((1, 2)).tolist() == pytest.approx([0.5, 0.25, 0.5], abs=0.03)
    assert goal[0, -1, :-1].all() and not goal[0, 0, 1:].any() and not goal[1, :13].any()


@pytest.mark.parametrize("bitmaps", [False, True])
def test_training_teaches_every_layer(bitmaps: bool) -> None:
    heads = make_heads()
    images, features, proposals, targets = make_batch(GT, GT[1:], bitmaps=bitmaps)
    losses = heads(images, features, proposals, targets)[1]
    assert list(losses) == ["loss_cls", "loss_box_reg", "loss_mask"]
    assert losses["loss_mask"].item() == pytest.approx(math.log(2), abs=0.05)
    losses["loss_mask"].backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in heads.mask_head.parameters())
    assert all(p.grad is None for p in heads.box_head.parameters())


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_images_without_objects_give_zero(norm: str) -> None:
    """Every parameter gets a gradient all the same, as distributed training needs."""
    heads = make_heads({"MODEL.ROI_MASK_HEAD.NORM": norm})
    images, features, proposals, targets = make_batch([], [])
    with collect_metrics() as metrics:
        loss = heads(images, features, proposals, targets)[1]["loss_mask"]
    assert loss == 0 and not any(k.startswith("mask_rcnn") for k in metrics)
    loss.backward()
    assert all((p.grad == 0).all() for p in heads.mask_head.parameters())


@pytest.mark.parametrize("limit", [0, 7])
def test_only_final_detections_get_masks(limit: int) -> None:
    heads = make_heads({"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.95}).eval()
    heads.max_detections = limit  # 0 stands for images without detections
    images, features, proposals, _ = make_batch(GT, GT)
    seen = []
    heads.mask_head.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    with torch.no_grad():
        detections, losses = heads(images, features, proposals)
        assert losses == {} and seen == [2 * limit]
        for n, found in enumerate(detections):
            assert found.pred_masks.shape == (limit, 1, 12, 12)
            maps = [features[name][n : n + 1] for name in heads.in_features]
            alone = heads.mask_head(heads.mask_pooler(maps, [found.pred_boxes.tensor])).sigmoid()
            for mask, each, label in zip(found.pred_masks, alone, found.pred_classes):
                torch.testing.assert_close(mask[0], each[label])


def test_no_mask_branch_unless_asked_for() -> None:
    heads = make_heads({"MODEL.MASK_ON": False})
    assert heads.mask_head is None and heads.mask_pooler is None and "mask" not in str(list(heads.state_dict()))
    images, features, proposals, targets = make_batch(GT, GT)
    assert list(heads(images, features, proposals, targets)[1]) == ["loss_cls", "loss_box_reg"]
    assert not heads.eval()(images, features, proposals)[0][0].has("pred_masks")
