"""Test the box branch: sampling, losses, the choice of detections, rescaling and empty batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import nms

from golden_detectron2 import NOTHING, max_error, pairs
from sn2fpn.config import get_cfg
from sn2fpn.errors import UserError
from sn2fpn.modeling.box_coding import BoxCoder
from sn2fpn.modeling.metrics import collect_metrics
from sn2fpn.modeling.roi_heads import StandardROIHeads, build_roi_heads
from sn2fpn.modeling.roi_heads.postprocess import rescale_detections, select_detections
from sn2fpn.structures import Boxes, ImageList, Instances, ShapeSpec

SHAPES = {f"p{level}": ShapeSpec(channels=4, stride=2**level) for level in (2, 3)}
SIZES = [(64, 96), (60, 90)]
GT = [[4.0, 5.0, 30.0, 28.0], [40.0, 10.0, 90.0, 60.0]]


def make_heads(overrides: Mapping[str, Any] = NOTHING) -> StandardROIHeads:
    cfg = get_cfg()
    cfg.merge_from_list(
        pairs(
            {
                "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3"],
                "MODEL.ROI_HEADS.NUM_CLASSES": 3,
                "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
                "MODEL.ROI_BOX_HEAD.FC_DIM": 6,
                "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 3,
                **overrides,
            }
        )
    )
    torch.manual_seed(0)
    heads = build_roi_heads(cfg, SHAPES)
    for p in heads.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return heads


def make_batch(*gt: list[list[float]]) -> tuple:
    g = torch.Generator().manual_seed(5)
    features = {name: torch.randn(2, 4, 64 // s.stride, 96 // s.stride, generator=g) for name, s in SHAPES.items()}
    proposals, targets = [], []
    for size, boxes in zip(SIZES, gt):
        xy = torch.rand(30, 2, generator=g) * 40
        near = torch.tensor(GT).repeat(5, 1) + torch.rand(10, 4, generator=g) * 8 - 4
        box = torch.cat([torch.cat([xy, xy + 5 + torch.rand(30, 2, generator=g) * 15], dim=1), near])
        proposals.append(Instances(size, proposal_boxes=Boxes(box), objectness_logits=torch.zeros(40)))
        targets.append(
            Instances(
                size, gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)), gt_classes=torch.arange(1, 1 + len(boxes))
            )
        )
    return ImageList(torch.zeros(2, 3, 64, 96), SIZES), features, proposals, targets


def test_samples_carry_their_ground_truth() -> None:
    _, _, proposals, targets = make_batch(GT, [])
    heads = make_heads({"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 20, "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25})
    with collect_metrics() as metrics:
        first, second = heads.label_and_sample(proposals, targets)
    assert len(first) == len(second) == 20
    foreground = first.gt_classes < 3
    assert foreground.sum() == 5 and (second.gt_classes == 3).all()
    for box, gt_box, label, index in zip(
        first.proposal_boxes[foreground],
        first.gt_boxes[foreground],
        first.gt_classes[foreground],
        first.gt_index[foreground],
    ):
        overlaps = [
            max(0, min(box[2], g[2]) - max(box[0], g[0])) * max(0, min(box[3], g[3]) - max(box[1], g[1])) for g in GT
        ]
        assert overlaps.index(max(overlaps)) == index == label - 1
        assert gt_box.tolist() == pytest.approx(GT[index])
    assert float(metrics["roi_head/num_fg_samples"]) == 2.5 and float(metrics["roi_head/num_bg_samples"]) == 17.5


@pytest.mark.parametrize("append", [True, False])
def test_ground_truth_joins_the_proposals(append: bool) -> None:
    _, _, proposals, targets = make_batch(GT, GT)
    heads = make_heads(
        {
            "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 4000,
            "MODEL.ROI_HEADS.POSITIVE_FRACTION": 1.0,
            "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": append,
        }
    )
    for sampled in heads.label_and_sample(proposals, targets):
        exact = [box for box in sampled.proposal_boxes.tensor.tolist() if box in torch.tensor(GT).tolist()]
        assert len(exact) == (2 if append else 0) and len(sampled) == 40 + len(exact)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_losses_by_hand(sigmoid: bool, agnostic: bool) -> None:
    heads = make_heads(
        {
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": sigmoid,
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": agnostic,
            "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 2.0,
        }
    )
    _, features, proposals, targets = make_batch(GT, GT[1:])
    sampled = heads.label_and_sample(proposals, targets)
    logits, deltas = heads.predict(features, [s.proposal_boxes.tensor for s in sampled])
    assert deltas.shape[1:] == (1 if agnostic else 3, 4)
    with collect_metrics() as metrics:
        losses = heads.losses(logits, deltas, sampled)
    cls = box = 0.0
    right = []
    rows = [(s, i) for s in sampled for i in range(len(s))]
    for row, (s, i) in enumerate(rows):
        label = int(s.gt_classes[i])
        if sigmoid:
            cls -= sum(F.logsigmoid(logits[row, k] * (1 if k == label else -1)).item() for k in range(3))
        else:
            cls -= logits[row].log_softmax(0)[label].item()
        right.append(int(logits[row].argmax()) == label)
        if label < 3:
            goal = BoxCoder((10, 10, 5, 5)).encode(s.proposal_boxes.tensor[i], s.gt_boxes.tensor[i])
            box += (deltas[row, 0 if agnostic else label] - goal).abs().sum().item()
    assert losses["loss_cls"].item() == pytest.approx(cls / len(rows), rel=1e-5)
    assert losses["loss_box_reg"].item() == pytest.approx(2 * box / len(rows), rel=1e-5)
    assert float(metrics["fast_rcnn/cls_accuracy"]) == pytest.approx(sum(right) / len(rows))


@pytest.mark.parametrize("loss", ["smooth_l1", "giou", "diou", "ciou"])
@pytest.mark.parametrize("no_proposals", [False, True])
def test_images_without_boxes(loss: str, no_proposals: bool) -> None:
    heads = make_heads({"MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": loss})
    images, features, proposals, targets = make_batch([], [])
    if no_proposals:
        proposals = [p[:0] for p in proposals]
    detections, losses = heads(images, features, proposals, targets)
    assert detections == [] and losses["loss_box_reg"] == 0 and losses["loss_cls"].isfinite()
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())


def by_the_long_way(scores, deltas, boxes, size, score_thresh, nms_thresh, limit) -> list[tuple]:
    """Return (score, class, box) of the detections of one image, computed class by class."""
    found = []
    for k in range(scores.shape[1] - 1):
        box = BoxCoder((10, 10, 5, 5)).decode(deltas[:, k if deltas.shape[1] > 1 else 0], boxes)
        box = torch.stack([c.clamp(0, m) for c, m in zip(box.unbind(1), (size[1], size[0]) * 2)], dim=1)
        good = scores[:, k] > score_thresh
        keep = nms(box[good], scores[good, k], nms_thresh)
        found += [(s.item(), k, b.tolist()) for s, b in zip(scores[good, k][keep], box[good][keep])]
    found.sort(key=lambda f: -f[0])
    return found if limit < 0 else found[:limit]


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("limit", [-1, 15])
def test_detections_by_the_long_way(limit: int, agnostic: bool) -> None:
    g = torch.Generator().manual_seed(2)
    _, _, proposals, _ = make_batch(GT, GT)
    boxes = [p.proposal_boxes.tensor for p in proposals]
    boxes[1] = boxes[1][:25]
    scores = (torch.randn(65, 4, generator=g) * 2).softmax(1)
    deltas = torch.randn(65, 1 if agnostic else 3, 4, generator=g)
    options = {"score_thresh": 0.2, "nms_thresh": 0.3}
    found = select_detections(scores, deltas, boxes, SIZES, BoxCoder((10, 10, 5, 5)), max_detections=limit, **options)
    for detections, s, d, b, size in zip(found, scores.split([40, 25]), deltas.split([40, 25]), boxes, SIZES):
        expected = by_the_long_way(s, d, b, size, 0.2, 0.3, limit)
        assert len(expected) > 10 and len(detections) == len(expected)
        assert detections.pred_classes.tolist() == [e[1] for e in expected]
        torch.testing.assert_close(detections.scores, torch.tensor([e[0] for e in expected]))
        torch.testing.assert_close(detections.pred_boxes.tensor, torch.tensor([e[2] for e in expected]))


def test_detections_that_are_not_finite_or_not_there() -> None:
    boxes = torch.tensor(GT)
    scores, deltas = torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.zeros(2, 1, 4)
    deltas[0, 0, 0] = float("nan")
    options = {"nms_thresh": 0.5, "max_detections": 10}
    (found,) = select_detections(scores, deltas, [boxes], SIZES[:1], BoxCoder(), score_thresh=0.05, **options)
    assert found.scores.tolist() == pytest.approx([0.8])
    (none,) = select_detections(scores, deltas, [boxes], SIZES[:1], BoxCoder(), score_thresh=0.95, **options)
    assert len(none) == 0 and none.pred_boxes.tensor.shape == (0, 4)
    empty = select_detections(scores[:0], deltas[:0], [boxes[:0]] * 2, SIZES, BoxCoder(), score_thresh=0, **options)
    assert [len(e) for e in empty] == [0, 0]


def test_rescaling_clips_and_drops_empty_boxes() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [95.0, 10.0, 95.0, 30.0], [50.0, 0.0, 98.0, 64.5]])
    detections = Instances((64, 96), pred_boxes=Boxes(boxes.clone()), scores=torch.tensor([0.9, 0.8, 0.7]))
    scaled = rescale_detections(detections, 32, 192)
    assert scaled.image_size == (32, 192) and scaled.scores.tolist() == pytest.approx([0.9, 0.7])
    assert max_error(scaled.pred_boxes.tensor, torch.tensor([[20.0, 10, 60, 20], [100, 0, 192, 32]]).numpy()) == 0
    assert torch.equal(detections.pred_boxes.tensor, boxes)


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_conv_head_names_and_shapes(norm: str) -> None:
    heads = make_heads(
        {
            "MODEL.ROI_BOX_HEAD.NUM_CONV": 2,
            "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
            "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
            "MODEL.ROI_BOX_HEAD.NORM": norm,
        }
    )
    shapes = {name: tuple(p.shape) for name, p in heads.box_head.named_parameters()}
    end = [("norm.weight", (32,)), ("norm.bias", (32,))] if norm else [("bias", (32,))]
    expected = {
        "conv1.weight": (32, 4, 3, 3),
        "conv2.weight": (32, 32, 3, 3),
        "fc1.weight": (6, 288),
        "fc1.bias": (6,),
        "fc2.weight": (6, 6),
        "fc2.bias": (6,),
        **{f"conv{i}.{k}": v for i in (1, 2) for k, v in end},
    }
    assert shapes == expected
    assert heads.predict(make_batch(GT, GT)[1], [torch.tensor(GT), torch.zeros(0, 4)])[0].shape == (2, 4)


def test_convs_alone_are_flattened() -> None:
    heads = make_heads({"MODEL.ROI_BOX_HEAD.NUM_CONV": 1, "MODEL.ROI_BOX_HEAD.NUM_FC": 0})
    assert heads.box_predictor.cls_score.in_features == 256 * 9
    assert heads.predict(make_batch(GT, GT)[1], [torch.tensor(GT), torch.zeros(0, 4)])[1].shape == (2, 3, 4)
    with pytest.raises(UserError, match=r"^MODEL.ROI_BOX_HEAD.NUM_FC: the box head has no layer"):
        make_heads({"MODEL.ROI_BOX_HEAD.NUM_FC": 0})
