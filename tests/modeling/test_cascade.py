"""Test the heads of Cascade R-CNN: stages, scores, gradients, costs, mistakes, and boxes that are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from test_roi_heads import GT, SIZES, make_batch, make_heads
from torchvision.ops import box_iou

from golden_detectron2 import CASES, NOTHING, config, pairs
from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError
from sn2fpn.modeling import (
    BoxCoder,
    BoxHead,
    BoxPredictor,
    CascadeROIHeads,
    Matcher,
    ROIPooler,
    build_model,
    cascade_stages,
    loss_names,
)
from sn2fpn.modeling.analysis import analyze
from sn2fpn.modeling.roi_heads.postprocess import select_detections
from sn2fpn.structures import Boxes
from sn2fpn.study.measure.workload import fill_weights, fix_work, make_images, model_inputs

CASCADE = {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}
GROUP = "MODEL.ROI_BOX_CASCADE_HEAD"
QUICK = Path(__file__).parents[2] / "configs/quick/cascade_rcnn_R18_sni_shapes.yaml"


def cascade(overrides: Mapping[str, Any] = NOTHING) -> CascadeROIHeads:
    heads = make_heads(CASCADE | {"MODEL.ROI_HEADS.POSITIVE_FRACTION": 1.0} | dict(overrides))
    assert isinstance(heads, CascadeROIHeads)
    return heads


def small_model(overrides: Mapping[str, Any] = NOTHING) -> Any:
    cfg = get_cfg()
    cfg.merge_from_file(str(QUICK))
    sizes = {"MODEL.FPN.OUT_CHANNELS": 16, "MODEL.FPN.NORM": "", "MODEL.ROI_BOX_HEAD.FC_DIM": 16}
    cfg.merge_from_list(pairs(sizes | dict(overrides)))
    return build_model(cfg)


def test_each_stage_starts_from_the_boxes_of_the_one_before_with_stricter_labels() -> None:
    heads = cascade()
    _, features, proposals, targets = make_batch(GT, GT[1:])
    sampled = heads.label_and_sample(proposals, targets)
    losses = heads.box_branch_losses(features, sampled, targets)
    assert set(losses) | {"loss_rpn_cls", "loss_rpn_loc"} == set(loss_names(False, stages=3))
    boxes = [s.proposal_boxes.tensor for s in sampled]
    for n, iou in enumerate((0.5, 0.6, 0.7)):
        current = []
        for box, proposal, target in zip(boxes, sampled, targets):
            index, labels = Matcher([iou], [0, 1])(box_iou(target.gt_boxes.tensor, box).nan_to_num())
            classes = torch.where(labels == 1, target.gt_classes[index], 3)
            current.append(
                type(proposal)(
                    proposal.image_size, proposal_boxes=Boxes(box), gt_classes=classes, gt_boxes=target.gt_boxes[index]
                )
            )
        logits, deltas = heads.predict(features, boxes, n)
        for name, value in heads.losses(logits, deltas, current, n).items():
            assert losses[f"{name}_stage{n}"].item() == pytest.approx(value.item(), rel=1e-5)
        coder = BoxCoder([(10.0, 10, 5, 5), (20.0, 20, 10, 10), (30.0, 30, 15, 15)][n])
        moved = coder.decode(deltas[:, 0].detach(), torch.cat(boxes)).split([len(b) for b in boxes])
        clipped = [torch.minimum(b.clamp(min=0), b.new_tensor([w, h, w, h])) for b, (h, w) in zip(moved, SIZES)]
        boxes = [b[(b[:, 2:] > b[:, :2]).all(1)] for b in clipped]


def test_maps_get_the_mean_gradient_of_the_stages_and_layers_the_whole() -> None:
    heads = cascade()
    _, features, proposals, targets = make_batch(GT, GT)
    sampled = heads.label_and_sample(proposals, targets)
    maps = {name: x.requires_grad_() for name, x in features.items()}
    losses = heads.box_branch_losses(maps, sampled, targets)
    first = losses["loss_cls_stage0"] + losses["loss_box_reg_stage0"]
    layer = heads.box_head[0].fc1.weight
    grads = torch.autograd.grad(first, [maps["p2"], layer])
    logits, deltas = heads.predict(maps, [s.proposal_boxes.tensor for s in sampled])
    plain = torch.autograd.grad(sum(heads.losses(logits, deltas, sampled).values()), [maps["p2"], layer])
    torch.testing.assert_close(grads[0] * 3, plain[0])
    torch.testing.assert_close(grads[1], plain[1])


def test_scores_are_means_and_boxes_are_those_of_the_last_stage() -> None:
    heads = cascade({"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.3}).eval()
    images, features, proposals, _ = make_batch(GT, GT)
    boxes = [p.proposal_boxes.tensor for p in proposals]
    scores = []
    for n, stage in enumerate(heads.stages):
        start = boxes
        logits, deltas = heads.predict(features, boxes, n)
        scores.append(logits.softmax(1))
        moved = stage.coder.decode(deltas[:, 0], torch.cat(boxes)).split([len(b) for b in boxes])
        boxes = [torch.minimum(b.clamp(min=0), b.new_tensor([w, h, w, h])) for b, (h, w) in zip(moved, SIZES)]
    options = {"score_thresh": 0.3, "nms_thresh": 0.5, "max_detections": 100}
    expected = select_detections(torch.stack(scores).mean(0), deltas, start, SIZES, heads.stages[-1].coder, **options)
    for found, wanted in zip(heads(images, features, proposals)[0], expected):
        assert len(found) == len(wanted) > 0
        torch.testing.assert_close(found.scores, wanted.scores)
        torch.testing.assert_close(found.pred_boxes.tensor, wanted.pred_boxes.tensor)


@pytest.mark.parametrize("no_proposals", [False, True])
def test_images_without_boxes(no_proposals: bool) -> None:
    heads = cascade()
    images, features, proposals, targets = make_batch([], [])
    if no_proposals:
        proposals = [p[:0] for p in proposals]
    losses = heads(images, features, proposals, targets)[1]
    assert all(v.isfinite() for v in losses.values()) and losses["loss_box_reg_stage2"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    detections = heads.eval()(images, features, proposals)[0]
    assert len(detections) == 2 and all(d.pred_boxes.tensor.isfinite().all() for d in detections)


def test_boxes_to_ignore_are_left_out_of_every_stage() -> None:
    heads = cascade()
    _, features, proposals, targets = make_batch(GT, GT[1:])
    sampled = heads.label_and_sample(proposals, targets)
    _, deltas = heads.predict(features, [s.proposal_boxes.tensor for s in sampled])
    all_boxes = heads._label_next(0, deltas, sampled, targets)
    heads.matcher[1] = Matcher([0.05, 0.95], [0, -1, 1])
    for found, every, target in zip(heads._label_next(0, deltas, sampled, targets), all_boxes, targets):
        iou = box_iou(target.gt_boxes.tensor, every.proposal_boxes.tensor).amax(0)
        ignored = (iou >= 0.05) & (iou < 0.95)
        assert ignored.any() and torch.equal(found.proposal_boxes.tensor, every.proposal_boxes.tensor[~ignored])
        assert len(found.gt_classes) == len(found.gt_boxes) == len(found.proposal_boxes)
    assert all(v.isfinite() for v in heads.box_branch_losses(features, sampled, targets).values())


def test_boxes_that_are_not_finite() -> None:
    heads = cascade()
    images, features, proposals, targets = make_batch(GT, GT)
    with torch.no_grad():
        heads.box_predictor[0].bbox_pred.bias[0] = math.nan
    with pytest.raises(FloatingPointError, match="the boxes of stage 0 of the cascade are not finite"):
        heads(images, features, proposals, targets)
    for detections in heads.eval()(images, features, proposals)[0]:
        assert len(detections) and detections.pred_boxes.tensor.isfinite().all()


def test_it_trains_in_mixed_precision_with_masks_and_all_stages_cost() -> None:
    model = small_model({"MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.CONV_DIM": 8})
    inputs = model_inputs(make_images(2, 64, 96), 6)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(inputs)
    assert set(losses) == set(loss_names(True, 3))
    sum(losses.values()).backward()
    grads = [p.grad for n, p in model.named_parameters() if n.startswith("roi_heads") and "mask" not in n]
    assert all(g is not None and g.isfinite().all() for g in grads)
    one = small_model({"MODEL.ROI_HEADS.NAME": "StandardROIHeads"})
    costs = [analyze(m, (64, 96)) for m in (model, one)]
    for counts in ("parameters", "flops", "activations"):
        found, single = (getattr(c, counts)["box head"] for c in costs)
        assert found == 3 * single > 0
    model.load_state_dict(fill_weights(model.state_dict()))
    fix_work(model, inputs[0])
    assert len(model(inputs[:1])[0]["instances"]) == model.roi_heads.max_detections


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({f"{GROUP}.IOUS": (0.5, 0.6)}, f"{GROUP}.IOUS", r"an IoU for each of the 3 stages .* found \[0.5, 0.6\]"),
    ({f"{GROUP}.IOUS": (), f"{GROUP}.BBOX_REG_WEIGHTS": ()}, f"{GROUP}.IOUS", "found"),
    ({f"{GROUP}.IOUS": (0.4, 0.6, 0.7)}, "MODEL.ROI_HEADS.IOU_THRESHOLDS", r"expected \[0.4\] like .* found \[0.5\]"),
    ({f"{GROUP}.IOUS": (0.5, 0.6, 7.0)}, f"{GROUP}.IOUS", "found 7.0"),
    (
        {f"{GROUP}.BBOX_REG_WEIGHTS": ((1.0, 1.0, 1.0, 1.0), (1.0,) * 4, (1.0,) * 3)},
        f"{GROUP}.BBOX_REG_WEIGHTS",
        "expected 4 numbers",
    ),
    (
        {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False},
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG",
        "CascadeROIHeads needs True",
    ),
]


@pytest.mark.parametrize(("keys", "key", "words"), MISTAKES)
def test_keys_that_do_not_fit_each_other(keys: dict[str, Any], key: str, words: str) -> None:
    cfg = config(CASES["train_faster_r18"])
    cfg.merge_from_list(pairs(CASCADE | keys))
    with torch.device("meta"), pytest.raises(ArgumentError, match=words) as caught:
        build_model(cfg)
    assert caught.value.argument.partition("[")[0] == key


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matchers": [Matcher([0.5], [0, 1])]}, "matchers: expected 2, as many as box_heads, found 1"),
        ({"box_heads": []}, "box_heads: expected one for each stage, found none"),
        (
            {"box_predictors": [BoxPredictor(16, 3, True), BoxPredictor(16, 3)]},
            r"box_predictors\[1\].class_agnostic: expected True",
        ),
        (
            {"box_predictors": [BoxPredictor(16, 3, True), BoxPredictor(8, 3, True)]},
            r"box_predictors\[1\].in_features: expected 16 like box_heads\[1\].out_features, found 8",
        ),
        (
            {"box_heads": [BoxHead(8, 7, fc_dims=[16]), BoxHead(8, 6, fc_dims=[16])]},
            r"box_heads\[1\].resolution: expected 7 like box_pooler.output_size, found 6",
        ),
    ],
)
def test_parts_that_do_not_fit_each_other(changes: dict[str, Any], words: str) -> None:
    parts: dict[str, Any] = {
        "box_heads": [BoxHead(8, 7, fc_dims=[16]) for _ in range(2)],
        "box_predictors": [BoxPredictor(16, 3, True) for _ in range(2)],
        "box_coders": [BoxCoder(), BoxCoder((2, 2, 1, 1))],
        "matchers": [Matcher([0.5], [0, 1]), Matcher([0.6], [0, 1])],
    }
    rest = {"num_classes": 3, "in_features": ["p2"], "box_pooler": ROIPooler(7, [4])}
    assert len(CascadeROIHeads(**parts, **rest).stages) == 2
    with pytest.raises(ArgumentError, match=f"^{words}"):
        CascadeROIHeads(**parts | changes, **rest)


def test_the_number_of_stages_of_a_configuration() -> None:
    cfg = config(CASES["train_faster_r18"])
    assert cascade_stages(cfg) == 0 and loss_names(True) == [*loss_names(False), "loss_mask"]
    cfg.merge_from_list(pairs(CASCADE))
    assert cascade_stages(cfg) == 3
