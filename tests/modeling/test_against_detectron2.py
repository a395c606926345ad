"""Test the detector against the real Detectron2 with random weights and many options."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from golden_detectron2 import CASES, config, filler, pairs
from sn2fpn.modeling import build_model, collect_metrics
from sn2fpn.structures import BitMasks, Boxes, Instances, PolygonMasks

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2

CASE = CASES["train_faster_r18"]
SMALL = {
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 64,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 64,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "dense_rpn": {"MODEL.RPN.BATCH_SIZE_PER_IMAGE": 4000},
    "smooth": {"MODEL.RPN.SMOOTH_L1_BETA": 0.11, "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5},
    "giou": {
        "MODEL.RPN.BBOX_REG_LOSS_TYPE": "giou",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "giou",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 2.0,
        "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 3.0,
    },
    "diou": {"MODEL.RPN.BBOX_REG_LOSS_TYPE": "diou", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "diou"},
    "ciou": {"MODEL.RPN.BBOX_REG_LOSS_TYPE": "ciou", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "ciou"},
    "agnostic": {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True, "MODEL.RPN.LOSS_WEIGHT": 0.5},
    "sigmoid": {"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True},
    "convs": {
        "MODEL.RPN.CONV_DIMS": [24, -1],
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 2,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
        "MODEL.ROI_BOX_HEAD.NORM": "GN",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    },
    "anchors": {
        "MODEL.ANCHOR_GENERATOR.SIZES": [[24, 48]],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.7, 1.4]],
        "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
        "MODEL.RPN.BOUNDARY_THRESH": 0,
    },
    "pooling": {
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
        "MODEL.ROI_HEADS.IN_FEATURES": ["p3", "p4"],
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
    },
    "groupnorm": {"MODEL.RESNETS.NORM": "GN", "MODEL.FPN.NORM": "GN", "MODEL.BACKBONE.FREEZE_AT": 0},
    "matching": {
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.2, 0.4],
        "MODEL.ROI_HEADS.IOU_LABELS": [0, -1, 1],
        "MODEL.RPN.IOU_THRESHOLDS": [0.25, 0.5],
        "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 12,
    },
    "masks": {"MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.NUM_CONV": 4, "MODEL.ROI_MASK_HEAD.CONV_DIM": 32},
    "masks_bitmap": {
        "MODEL.MASK_ON": True,
        "INPUT.MASK_FORMAT": "bitmask",
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 2,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
        "MODEL.ROI_MASK_HEAD.NORM": "GN",
    },
    "masks_agnostic": {
        "MODEL.MASK_ON": True,
        "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
        "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
    },
}

CASCADE = {
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 200,
}
OPTIONS |= {
    "cascade": CASCADE,
    "masks_cascade": CASCADE | OPTIONS["masks"],
    "cascade_giou_sigmoid_of_two_stages": {
        **CASCADE,
        "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True,
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "giou",
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 1,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
        "MODEL.ROI_BOX_HEAD.NORM": "GN",
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.4],
        "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": (0.4, 0.55),
        "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": ((8.0, 8.0, 4.0, 4.0), (20.0, 10.0, 10.0, 5.0)),
    },
}


def pair(overrides: dict[str, Any]) -> tuple[Any, Any]:
    """Return our model and Detectron2's with the same random weights."""
    from detectron2.config import get_cfg as d2_get_cfg
    from detectron2.modeling import build_model as d2_build_model

    def case_config(cfg: Any = None) -> Any:
        cfg = config(CASE, cfg)
        cfg.merge_from_list(pairs(SMALL | overrides))
        return cfg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = filler.fill_model(d2_build_model(case_config(d2_get_cfg())), CASE)
    for name, p in theirs.roi_heads.named_parameters():
        if "cls_score" in name:
            p.data *= 0.3  # Sigmoid scores that round to 1 would have no order.
    ours = build_model(case_config())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def batch(theirs: bool, empty: bool = False, bitmask: bool = False) -> list[dict[str, Any]]:
    """Return two images of different sizes with random boxes and ellipses, in our structures or Detectron2's."""
    instances, boxes, masks = Instances, Boxes, BitMasks if bitmask else PolygonMasks
    if theirs:
        from detectron2.structures import BitMasks as their_bitmasks
        from detectron2.structures import Boxes as boxes
        from detectron2.structures import Instances as instances
        from detectron2.structures import PolygonMasks as their_polygons

        masks = their_bitmasks if bitmask else their_polygons
    out = []
    for n, (h, w) in enumerate([(128, 160), (150, 100)]):
        g = torch.Generator().manual_seed(n)
        k = 0 if empty else 6
        xy, wh = torch.rand(k, 2, generator=g), torch.rand(k, 2, generator=g) * 0.5 + 0.1
        box = torch.cat([xy * 0.4, xy * 0.4 + wh], dim=1) * torch.tensor([w, h, w, h])
        target = instances((h, w), gt_boxes=boxes(box), gt_classes=torch.randint(7, (k,), generator=g))
        if bitmask:
            drawn = [torch.from_numpy(filler.ellipse_bitmask(b, h, w)) for b in box.tolist()]
            target.gt_masks = masks(torch.stack(drawn) if drawn else torch.zeros(0, h, w))
        else:
            target.gt_masks = masks([[torch.tensor(filler.ellipse_polygon(b)).numpy()] for b in box.tolist()])
        image = filler.to_tensor(filler.make_image(60 + n, h, w))
        out.append({"image": image, "height": 2 * h, "width": 2 * w, "instances": target})
    return out


def train(model: Any, theirs: bool, empty: bool = False, bitmask: bool = False) -> tuple[dict, dict, dict]:
    """Return losses, gradients and logged scalars of one step with a fixed seed for the samplers."""
    torch.manual_seed(7)
    if theirs:
        from detectron2.utils.events import EventStorage

        with EventStorage() as storage:
            losses = model(batch(theirs, empty, bitmask))
        scalars = {k: v for k, (v, _) in storage.latest().items()}
    else:
        with collect_metrics() as metrics:
            losses = model(batch(theirs, empty, bitmask))
        scalars = {k: float(v) for k, v in metrics.items()}
    sum(losses.values()).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return {k: v.item() for k, v in losses.items()}, grads, scalars


def take_step(model: Any, theirs: bool) -> tuple[dict[str, float], torch.Tensor]:
    """Return the losses of one step of SGD and what it subtracts from all weights, as one vector in order of names."""
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    losses, _, _ = train(model, theirs, bitmask=True)
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01).step()
    model.zero_grad()
    after = dict(model.named_parameters())
    return losses, torch.cat([(before[name] - after[name].detach()).flatten() for name in sorted(before)])


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_gradients_and_detections(name: str) -> None:
    ours, theirs = pair(OPTIONS[name])
    bitmask = "bitmask" in OPTIONS[name].values()
    losses, grads, scalars = train(ours, theirs=False, bitmask=bitmask)
    d2_losses, d2_grads, d2_scalars = train(theirs, theirs=True, bitmask=bitmask)
    assert losses == pytest.approx(d2_losses, rel=1e-4)
    assert scalars == pytest.approx(d2_scalars, rel=1e-5)
    assert grads.keys() == d2_grads.keys()
    for key, grad in grads.items():
        error = (grad - d2_grads[key]).norm() / d2_grads[key].norm().clamp(min=1e-6)
        assert error < 5e-3, f"{key}: {error:.1e}"
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        results = zip(ours(batch(theirs=False)), theirs(batch(theirs=True)))
    for found, expected in results:
        found, expected = found["instances"], expected["instances"]
        assert len(found) == len(expected) > 0
        assert torch.equal(found.pred_classes, expected.pred_classes)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=5e-5)
        torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=5e-3)
        assert found.has("pred_masks") == expected.has("pred_masks") == name.startswith("masks")
        if found.has("pred_masks"):
            wrong = (found.pred_masks != expected.pred_masks).sum()
            assert wrong <= 5e-4 * expected.pred_masks.sum() and expected.pred_masks.any()


@pytest.mark.parametrize("name", ["default", "masks", "masks_cascade"])
def test_images_without_boxes(name: str) -> None:
    ours, theirs = pair(OPTIONS[name])
    assert train(ours, False, empty=True)[0] == pytest.approx(train(theirs, True, empty=True)[0], rel=1e-4)


def test_same_seed_gives_the_same_heads() -> None:
    """Layers are made and initialised in Detectron2's order, so that a seed gives the same weights."""
    from detectron2.config import get_cfg as d2_get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_proposal_generator, build_roi_heads

    from sn2fpn.modeling import roi_heads, rpn

    shapes = {f"p{i}": ShapeSpec(channels=32, stride=2**i) for i in range(2, 7)}
    for options in ({}, OPTIONS["convs"], OPTIONS["masks"], OPTIONS["masks_agnostic"], OPTIONS["masks_cascade"]):
        states = []
        for cfg, builders in (
            (config(CASE), (rpn.build_rpn, roi_heads.build_roi_heads)),
            (config(CASE, d2_get_cfg()), (build_proposal_generator, build_roi_heads)),
        ):
            cfg.merge_from_list(pairs(options))
            torch.manual_seed(3)
            states.append([build(cfg, shapes).state_dict() for build in builders])
        for ours, theirs in zip(*states):
            assert list(ours) == list(theirs)
            assert all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN"])
@pytest.mark.parametrize("depth", [18, 50])
def test_training_with_bitmasks_follows_detectron2_for_every_norm(depth: int, norm: str) -> None:
    """Losses of a step, its gradient as a whole, running statistics, and the losses of the next step agree in float32.

    Both engines take the next step from Detectron2's weights: these differ from ours in the last digits, which may
    give another order to two proposals, and the sampler another box.
    """
    frozen = norm == "FrozenBN"
    options = OPTIONS["masks_bitmap"] | {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64 if depth == 18 else 256,
        "MODEL.RESNETS.NORM": norm,
        "MODEL.FPN.NORM": "" if frozen else norm,
        "MODEL.BACKBONE.FREEZE_AT": 2 if frozen else 0,
    }
    ours, theirs = pair(options)
    (losses, step), (d2_losses, d2_step) = take_step(ours, False), take_step(theirs, True)
    assert losses == pytest.approx(d2_losses, rel=1e-5)
    assert (step - d2_step).norm() < 5e-4 * d2_step.norm()
    for name, buffer in theirs.backbone.named_buffers():
        torch.testing.assert_close(ours.backbone.get_buffer(name), buffer, rtol=1e-5, atol=1e-6)
    ours.load_state_dict(theirs.state_dict())
    assert train(ours, False, bitmask=True)[0] == pytest.approx(train(theirs, True, bitmask=True)[0], rel=1e-5)
