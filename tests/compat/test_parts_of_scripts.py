"""Tests of boxes, layers and parts of the detector with Detectron2's arguments, by known numbers and against it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch

from sn2fpn.compat import layers, modeling, solver, structures
from sn2fpn.compat.structures import Boxes, ShapeSpec
from sn2fpn.config import get_cfg
from sn2fpn.engine.solver import multi_step


def _boxes(count: int, seed: int) -> torch.Tensor:
    corners = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed)) * 50
    corners[:, 2:] += corners[:, :2] + 1
    return corners


def _results(structures: Any, layers: Any, modeling: Any, poolers: Any, boxes: Any) -> dict[str, Any]:
    """Call the same names of this package or of Detectron2 with the same values."""
    a, b = boxes(_boxes(6, 0)), boxes(_boxes(4, 1))
    maps = [torch.rand(2, 3, 32 // s, 32 // s, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    coder = modeling("box_regression", "Box2BoxTransform")((10.0, 10.0, 5.0, 5.0))
    deltas = torch.rand(6, 8, generator=torch.Generator().manual_seed(2)) - 0.5
    matcher = modeling("matcher", "Matcher")([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
    generator = modeling("anchor_generator", "DefaultAnchorGenerator")
    cfg = get_cfg()
    scores = torch.linspace(0, 1, 6)
    groups = torch.tensor([0, 0, 1, 1, 0, 1])
    probabilities = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    detected = structures.Instances((40, 50), pred_boxes=boxes(_boxes(4, 1)), pred_masks=probabilities)
    rescale = modeling("postprocessing", "detector_postprocess")
    return {
        "ioa": structures.pairwise_ioa(a, b),
        "intersection": structures.pairwise_intersection(a, b),
        "deltas": coder.get_deltas(a.tensor, a.tensor.flip(0)),
        "applied": coder.apply_deltas(deltas, a.tensor),
        "matches": matcher(structures.pairwise_iou(b, a)),
        "anchors": [x.tensor for x in generator(sizes=[[8, 16]], aspect_ratios=[[0.5, 1.0]], strides=[4, 8])(maps)],
        "anchors of a configuration": [x.tensor for x in generator(cfg, [ShapeSpec(stride=4)])([maps[0]])]
        if boxes is Boxes
        else None,
        "pooled": poolers(7, (1.0, 0.5), 2, "ROIAlignV2")(maps, [a, b]),
        "pooled by other sizes": poolers(7, (1.0, 0.5), 2, "ROIAlignV2", 6, 1)(maps, [a, b]),
        "no images": poolers(7, (1.0,), 0, "ROIAlign")([maps[0][:0]], []),
        "aligned": layers.ROIAlign(3, 0.5, 0)(maps[0], torch.cat([torch.zeros(6, 1), a.tensor], 1)),
        "suppressed": layers.batched_nms(a.tensor, scores, groups, 0.3),
        "pasted": layers.paste_masks_in_image(
            torch.rand(4, 28, 28, generator=torch.Generator().manual_seed(3)), b, (90, 95)
        ),
        "rescaled": rescale(detected, output_height=60, output_width=95, mask_threshold=0.3).pred_masks,
        "ciou": layers.ciou_loss(a.tensor, a.tensor.flip(0), reduction="sum"),
        "nonzero": layers.nonzero_tuple(groups),
        "cat": layers.cat([scores]),
    }


def _ours() -> dict[str, Any]:
    return _results(structures, layers, lambda _, name: getattr(modeling, name), modeling.ROIPooler, Boxes)


def test_parts_take_detectron2s_arguments() -> None:
    found = _ours()
    assert found["ioa"].shape == (6, 4) and float(found["ioa"].max()) <= 1
    contained = structures.pairwise_ioa(Boxes([[0, 0, 10, 10]]), Boxes([[2, 2, 4, 4], [5, 0, 15, 10], [3, 3, 3, 3]]))
    assert contained.tolist() == [[1.0, 0.5, 0.0]]
    assert found["applied"].shape == (6, 8) and found["anchors"][0].shape == (32 * 32 * 4, 4)
    assert found["anchors of a configuration"][0][0].tolist() == pytest.approx(
        [-22.627, -11.314, 22.627, 11.314], abs=1e-3
    )
    assert found["pooled"].shape == (10, 3, 7, 7) and found["no images"].shape == (0, 3, 7, 7)
    assert found["pasted"].shape == (4, 90, 95) and found["cat"].shape == (6,)
    with pytest.raises(ValueError, match="pooler_type: unknown value 'ROIAlignRotated'"):
        modeling.ROIPooler(7, (1.0,), 0, "ROIAlignRotated")


def test_convolutions_have_a_bias_beside_a_norm_and_any_padding() -> None:
    conv = layers.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", norm=layers.get_norm("BN", 4))
    assert conv.bias is not None and conv.padding_mode == "reflect"
    expected = torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    expected.load_state_dict({"weight": conv.weight, "bias": conv.bias})
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(conv.eval()(x), expected(x) / (1 + conv.norm.eps) ** 0.5)
    assert layers.Conv2d(3, 4, 1, bias=False).bias is None and layers.Conv2d(3, 4, 1, 1, 0, 1, 1, False).bias is None
    with pytest.raises(ValueError, match="threshold: expected a number of at least 0, found -1"):
        layers.paste_masks_in_image(torch.rand(1, 28, 28), torch.tensor([[0.0, 0, 5, 5]]), (9, 9), threshold=-1)


@pytest.mark.detectron2
def test_parts_give_detectron2s_numbers() -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")

    def of(module: str, name: str) -> Any:
        return getattr(importlib.import_module(f"detectron2.modeling.{module}"), name)

    their_structures = importlib.import_module("detectron2.structures")
    boxes_module = importlib.import_module("detectron2.structures.boxes")
    their_structures.pairwise_intersection = boxes_module.pairwise_intersection
    expected = _results(
        their_structures,
        importlib.import_module("detectron2.layers"),
        of,
        of("poolers", "ROIPooler"),
        their_structures.Boxes,
    )
    for name, ours in _ours().items():
        if expected[name] is None:
            continue
        for x, y in zip(*(v if isinstance(v, list | tuple) else [v] for v in (ours, expected[name])), strict=True):
            np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=2e-5, atol=2e-4, err_msg=name)


def test_a_warm_up_rises_to_its_schedule() -> None:
    schedule = solver.WarmupParamScheduler(multi_step([50], 100), 0.1, 0.2)
    assert [schedule(x / 100) for x in (0, 10, 20, 40, 60)] == pytest.approx([0.1, 0.55, 1, 1, 0.1])
    with pytest.raises(ValueError, match="warmup_method: unknown value 'lineer'"):
        solver.WarmupParamScheduler(multi_step([50], 100), 0.1, 0.2, "lineer")


def _step(scale: float = 0.0, **changes: Any) -> float:
    """Return the weight of 0 after a step with a gradient of 100 and a learning rate of 1."""
    cfg = get_cfg()
    for key, value in {"ENABLED": True, "CLIP_VALUE": 0.25, **changes}.items():
        cfg.SOLVER.CLIP_GRADIENTS[key] = value
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = 1.0, 0.0
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = solver.build_optimizer(cfg, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=bool(scale))
    scaler.scale(model(torch.full((1, 1), 100.0)).sum()).backward()
    scaler.step(optimizer)
    return model.weight.item()


def test_the_optimizer_of_a_loop_of_ones_own_clips() -> None:
    assert _step(ENABLED=False) == -100
    assert _step() == _step(CLIP_TYPE="norm") == -0.25
    assert _step(scale=1024.0) == -0.25  # the gradients that are clipped are those without the scale
    with pytest.raises(ValueError, match=r"SOLVER\.CLIP_GRADIENTS\.CLIP_VALUE: expected a number above 0, found 0"):
        _step(CLIP_VALUE=0.0)


def test_the_detector_is_built_from_parts_of_a_configuration() -> None:
    from sn2fpn.compat import model_zoo

    cfg = model_zoo.get_config("quick/faster_rcnn_R18_fpn_shapes.yaml")
    backbone = modeling.build_backbone(cfg, ShapeSpec(channels=3))
    model = modeling.GeneralizedRCNN(
        backbone,
        modeling.build_proposal_generator(cfg, backbone.output_shape()),
        modeling.build_roi_heads(cfg, backbone.output_shape()),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
    assert model.state_dict().keys() == modeling.build_model(cfg).state_dict().keys()
    (found,) = model.eval()([{"image": torch.zeros(3, 64, 64), "height": 32, "width": 32}])
    assert modeling.detector_postprocess(found["instances"], 64, 64).image_size == (64, 64)
