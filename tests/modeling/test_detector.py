"""Test the whole detector: golden inference and training, preprocessing, options and mistakes."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from golden_detectron2 import CASES, FOLDER, NOTHING, config, filler, inputs, max_error, model, numbers, pairs
from sn2fpn.config import get_cfg
from sn2fpn.errors import UserError
from sn2fpn.modeling import GeneralizedRCNN, build_backbone, build_model, collect_metrics
from sn2fpn.precision import autocast
from sn2fpn.structures import BitMasks, Boxes, ImageList, Instances, PolygonMasks

INFERENCE = ["infer_faster_r18", "infer_faster_r50", "infer_mask_r50", "infer_cascade_r18"]
TRAINING = [("train_faster_r18", "boxes"), ("train_mask_r50", "polygon"), ("train_mask_r50", "bitmask")]
TRAINING += [("train_cascade_r18", "polygon"), ("train_cascade_r18", "bitmask")]


@pytest.mark.parametrize("name", INFERENCE)
def test_golden_inference(name: str) -> None:
    """Tolerances are 1e-4 of the standard deviation, 5e-3 pixels, 5e-5 in scores and 0.05 % of a mask or a pixel."""
    case, golden = CASES[name], numbers(name)
    detector, batch = model(case).eval(), inputs(case)
    with torch.no_grad():
        images = detector.preprocess_image(batch)
        features = detector.backbone(images.tensor)
        proposals, losses = detector.proposal_generator(images, features)
        boxes = [p.proposal_boxes.tensor for p in proposals]
        logits, deltas = detector.roi_heads.predict(features, boxes)
    assert losses == {}
    for p, feature in features.items():
        mean, std, low, high = golden[f"feat_{p}_stats"]
        assert feature.shape == tuple(golden[f"feat_{p}_shape"])
        assert max_error(feature[:, :4, :6, :6], golden[f"feat_{p}_slice"]) < 1e-4 * std
        assert max_error(feature.mean((2, 3)), golden[f"feat_{p}_channel_mean"]) < 1e-4 * std
        found = [feature.mean(), feature.std(), feature.min(), feature.max()]
        assert np.allclose(found, [mean, std, low, high], rtol=0, atol=1e-4 * std)
    sizes = [len(b) for b in boxes]
    for i, (p, logit, delta) in enumerate(zip(proposals, logits.split(sizes), deltas.split(sizes))):
        first = len(golden[f"prop{i}_boxes"])
        assert len(p) == golden[f"prop{i}_count"]
        assert max_error(p.proposal_boxes.tensor[:first], golden[f"prop{i}_boxes"]) < 5e-3
        for found, key in (
            (p.objectness_logits[:first], f"prop{i}_logits"),
            (logit[:20], f"head{i}_cls_logits"),
            (delta[:20].flatten(1), f"head{i}_box_deltas"),
        ):
            assert max_error(found, golden[key]) < 1e-4 * golden[key].std()
    for i, output in enumerate(detector(batch)):
        found = output["instances"]
        assert found.image_size == (batch[i]["height"], batch[i]["width"])
        assert found.pred_classes.tolist() == golden[f"det{i}_classes"].tolist()
        assert max_error(found.pred_boxes.tensor, golden[f"det{i}_boxes"]) < 5e-3
        assert max_error(found.scores, golden[f"det{i}_scores"]) < 5e-5
        if f"det{i}_masks_packed" in golden:
            shape = tuple(golden[f"det{i}_masks_shape"])
            masks = np.unpackbits(golden[f"det{i}_masks_packed"], axis=1)[:, : shape[1] * shape[2]].reshape(shape)
            assert found.pred_masks.dtype == torch.bool and found.pred_masks.shape == shape
            wrong, area = (found.pred_masks.numpy() != masks).sum((1, 2)), golden[f"det{i}_masks_area"]
            assert (wrong <= np.maximum(5e-4 * area, 1)).all() and wrong.sum() <= 5e-4 * area.sum()
    for i, found in enumerate(detector.inference(batch, do_postprocess=False)):
        if f"det{i}_mask_probs" in golden:
            assert max_error(found.pred_masks[:6], golden[f"det{i}_mask_probs"]) < 5e-5


@pytest.mark.parametrize("name, variant", TRAINING)
def test_golden_training(name: str, variant: str) -> None:
    """The relative tolerances are 1e-4 for losses, and 1e-3 for gradients and for losses after a step."""
    case, golden = CASES[name], numbers(name)
    expected = case["variants"][variant]
    detector, batch = model(case), inputs(case, variant)
    with collect_metrics() as metrics:
        losses = detector(batch)
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected["losses"], rel=1e-4)
    assert {k: float(v) for k, v in metrics.items()} == pytest.approx(expected["metrics"], rel=1e-6)
    sum(losses.values()).backward()
    grads = {n: p.grad for n, p in detector.named_parameters() if p.requires_grad}
    names = list(map(str, golden[f"{variant}_param_names"]))
    assert set(names) == {n for n in grads if grads[n] is not None}
    for name, norm, head in zip(names, golden[f"{variant}_param_grad_norm"], golden[f"{variant}_param_grad_head"]):
        assert grads[name].norm().item() == pytest.approx(norm, rel=1e-3), name
        start = grads[name].flatten()[:4]
        assert max_error(start, head[: len(start)]) < 1e-3 * norm, name
    groups = {
        "bottom_up": "backbone.bottom_up.",
        "fpn": "backbone.fpn_",
        "rpn": "proposal_generator.",
        "box_head": "roi_heads.box_head.",
        "box_predictor": "roi_heads.box_predictor.",
        "mask_head": "roi_heads.mask_head.",
        "total": "",
    }
    assert set(expected["grad_norms"]) <= set(groups)
    for group in expected["grad_norms"]:
        prefix = groups[group]
        norm = torch.stack([g.norm() for n, g in grads.items() if n.startswith(prefix)]).norm()
        assert norm.item() == pytest.approx(expected["grad_norms"][group], rel=1e-3)
    solver = config(case).SOLVER
    parameters = [p for p in detector.parameters() if p.requires_grad]
    torch.optim.SGD(parameters, solver.BASE_LR, solver.MOMENTUM, weight_decay=solver.WEIGHT_DECAY).step()
    after = {k: v.item() for k, v in detector(batch).items()}
    assert after == pytest.approx(expected["losses_after_one_step"], rel=1e-3)


STATE_DICTS = json.loads((FOLDER / "state_dicts.json").read_text())


@pytest.mark.parametrize("name", STATE_DICTS)
def test_golden_state_dict(name: str) -> None:
    spec = STATE_DICTS[name]
    cfg = config(CASES["infer_faster_r50"])
    cfg.merge_from_list(
        pairs(
            {
                "MODEL.FPN.OUT_CHANNELS": 256,
                "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
                "MODEL.ROI_HEADS.NUM_CLASSES": 80,
                "MODEL.RESNETS.DEPTH": int(name.split("_")[3]),
                "MODEL.DEVICE": "meta",
                "MODEL.MASK_ON": "mask" in name,
                "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
                **spec["overrides_on_base"],
            }
        )
    )
    with torch.device("meta"):
        detector = build_model(cfg)
    trainable = {n: p.requires_grad for n, p in detector.named_parameters()}
    kinds = {True: "param", False: "frozen param", None: "buffer"}
    found = {
        n: [str(t.dtype).removeprefix("torch."), list(t.shape), kinds[trainable.get(n)]]
        for n, t in detector.state_dict().items()
    }
    assert found == dict(spec["entries"])
    assert sum(p.numel() for p in detector.parameters() if p.requires_grad) == spec["trainable_parameters"]


def test_golden_preprocessing() -> None:
    spec = CASES["preprocessing"]["normalized_batch"]
    detector = tiny({"MODEL.PIXEL_MEAN": spec["pixel_mean"], "MODEL.PIXEL_STD": spec["pixel_std"]})
    images = [filler.make_image(i["seed"], i["h"], i["w"], rects=i["rects"]) for i in spec["images"]]
    with np.load(FOLDER / "preprocessing.npz") as golden:
        expected = golden["normalized_batch"]
    for batch in (
        [{"image": filler.to_tensor(i)} for i in images],
        [{"image": torch.from_numpy(i.transpose(2, 0, 1))} for i in images],
    ):
        found = detector.preprocess_image(batch)
        assert max_error(found.tensor, expected) < 1e-6
        assert found.image_sizes == [(i["h"], i["w"]) for i in spec["images"]]
    for row in CASES["preprocessing"]["image_list"]:
        padded = ImageList.from_tensors([torch.zeros(3, *s) for s in row["sizes"]], row["size_divisibility"])
        assert list(padded.tensor.shape) == row["batch_shape"]


def tiny(overrides: Mapping[str, Any] = NOTHING) -> GeneralizedRCNN:
    """Return a narrow detector with fresh weights."""
    return build_model(tiny_cfg(overrides))


def tiny_cfg(overrides: Mapping[str, Any] = NOTHING) -> Any:
    cfg = config(CASES["train_faster_r18"])
    cfg.merge_from_list(
        pairs(
            {
                "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
                "MODEL.FPN.OUT_CHANNELS": 16,
                "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
                "MODEL.RESNETS.NORM": "BN",
                "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32,
                "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
                **overrides,
            }
        )
    )
    torch.manual_seed(0)
    return cfg


def tiny_batch(*boxes: list[list[float]], size: tuple[int, int] = (64, 96)) -> list[dict[str, Any]]:
    batch = []
    for n, b in enumerate(boxes):
        target = Instances(size, gt_boxes=Boxes(torch.tensor(b).reshape(-1, 4)), gt_classes=torch.arange(len(b)))
        image = torch.from_numpy(filler.make_image(n, *size, rects=4).transpose(2, 0, 1).copy())
        batch.append({"image": image, "instances": target, "file_name": f"image_{n}.jpg"})
    return batch


BOX = [10.0, 12.0, 50.0, 44.0]


@pytest.mark.parametrize("backbone", ["build_sn2_fpn_backbone", "build_sn2_sni_backbone", "build_sn2_ihp_backbone"])
@pytest.mark.parametrize("boxes", [([BOX], []), ([], [])])
def test_every_pyramid_trains_and_detects(backbone: str, boxes: tuple) -> None:
    """Losses are finite and every trainable parameter gets a gradient, as DDP needs, also without ground truth."""
    detector = tiny({"MODEL.BACKBONE.NAME": backbone, "MODEL.BACKBONE.FREEZE_AT": 0})
    batch = tiny_batch(*boxes)
    losses = detector(batch)
    assert list(losses) == ["loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"]
    assert all(v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    missing = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    detector.eval().roi_heads.score_thresh = 0.0
    outputs = detector([{**batch[0], "height": 32, "width": 48}, {"image": batch[1]["image"][:, :50, :70]}])
    for output, (h, w) in zip(outputs, ((32, 48), (50, 70))):
        found = output["instances"]
        assert found.image_size == (h, w) and len(found) == 100
        assert (found.scores.diff() <= 0).all() and found.pred_boxes.nonempty().all()
        x1, y1, x2, y2 = found.pred_boxes.tensor.unbind(1)
        assert min(x1.min(), y1.min()) >= 0 and x2.max() <= w and y2.max() <= h
        assert not found.pred_boxes.tensor.requires_grad and not found.scores.requires_grad


def with_masks(batch: list[dict[str, Any]], bitmask: bool = False) -> list[dict[str, Any]]:
    """Add masks to a batch: the mask of each object is its box."""
    for x in batch:
        boxes = x["instances"].gt_boxes.tensor.numpy()
        masks = PolygonMasks([[b[[0, 1, 2, 1, 2, 3, 0, 3]]] for b in boxes])
        size = x["instances"].image_size
        x["instances"].gt_masks = BitMasks.from_polygon_masks(masks, *size) if bitmask else masks
    return batch


MASKS = {"MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.NUM_CONV": 1, "MODEL.ROI_MASK_HEAD.CONV_DIM": 16}


@pytest.mark.parametrize("bitmask", [False, True])
@pytest.mark.parametrize("boxes", [([BOX], []), ([], [])])
def test_masks_are_learnt_and_found(boxes: tuple, bitmask: bool) -> None:
    """All pyramids have the same channels and strides, so one is enough. An image without objects gives no mask."""
    detector = tiny({**MASKS, "MODEL.BACKBONE.NAME": "build_sn2_sni_backbone", "MODEL.BACKBONE.FREEZE_AT": 0})
    batch = with_masks(tiny_batch(*boxes), bitmask)
    losses = detector(batch)
    assert list(losses) == ["loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"]
    assert (losses["loss_mask"] > 0) == bool(boxes[0]) and all(v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None] == []
    detector.eval().roi_heads.score_thresh = 0.0
    small = detector([{**batch[0], "height": 32, "width": 48}])[0]["instances"]
    assert small.pred_masks.shape == (100, 32, 48) and small.pred_masks.dtype == torch.bool
    x1, y1, x2, y2 = small.pred_boxes.tensor.unbind(1)
    y, x = torch.arange(32)[None, :, None], torch.arange(48)[None, None, :]
    outside = (
        (x + 1 <= x1[:, None, None])
        | (x >= x2[:, None, None])
        | (y + 1 <= y1[:, None, None])
        | (y >= y2[:, None, None])
    )
    assert not (small.pred_masks & outside).any()
    detector.roi_heads.score_thresh = 1.0
    assert detector(batch[:1])[0]["instances"].pred_masks.shape == (0, 64, 96)


def test_masks_under_autocast_are_float32() -> None:
    detector = tiny({**MASKS, "MODEL.RESNETS.NORM": "GN"})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = detector(with_masks(tiny_batch([BOX], [BOX])))["loss_mask"]
        detector.eval().roi_heads.score_thresh = 0.0
        found = detector.inference(tiny_batch([BOX]), do_postprocess=False)[0]
    loss.backward()
    assert loss.dtype == found.pred_masks.dtype == torch.float32 and found.pred_masks.shape == (100, 1, 28, 28)


def test_ground_truth_masks_that_do_not_fit() -> None:
    detector = tiny(MASKS)
    with pytest.raises(
        UserError,
        match=r"image_0.jpg: the mask branch needs .*gt_masks, "
        r"found only \['gt_boxes', 'gt_classes'\]",
    ):
        detector(tiny_batch([BOX]))
    batch = with_masks(tiny_batch([BOX], [BOX]))
    batch[1]["instances"].gt_masks = BitMasks(torch.ones(1, 96, 64))
    with pytest.raises(UserError, match=r"image_1.jpg: gt_masks must have .* \(64, 96\), found \(96, 64\)"):
        detector(batch)
    detector(tiny_batch([]))  # No masks are needed where there is nothing to learn from.


def test_images_do_not_depend_on_their_batch() -> None:
    detector = tiny().eval()
    detector.roi_heads.score_thresh = 0.0
    batch = tiny_batch([BOX], [BOX])
    for together, alone in zip(detector(batch), (detector([x])[0] for x in batch)):
        torch.testing.assert_close(together["instances"].scores, alone["instances"].scores)
        boxes = [x["instances"].pred_boxes.tensor for x in (together, alone)]
        torch.testing.assert_close(*boxes, rtol=0, atol=1e-3)


def test_seed_decides_the_losses() -> None:
    detector, batch = tiny({"MODEL.RESNETS.NORM": "GN"}), tiny_batch([BOX], [BOX])
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append({k: v.item() for k, v in detector(batch).items()})
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("instructions", [True, False])
@pytest.mark.parametrize("convs", [1, 2])
def test_autocast_computes_losses_and_boxes_in_float32(
    convs: int, instructions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights have gradients, also those of the RPN, which computes proposals without gradients first.

    This holds with and without a CPU's instructions for bfloat16.
    """
    monkeypatch.setattr("sn2fpn.precision.has_bfloat16", lambda: instructions)
    keys = {"MODEL.RESNETS.NORM": "GN", "MODEL.RPN.CONV_DIMS": [-1] * convs}
    detector, batch = tiny(keys), tiny_batch([BOX], [BOX])
    torch.manual_seed(1)
    exact = detector(batch)
    with autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)
        losses = detector(batch)
        detections = detector.eval()(batch)[0]["instances"]
    assert all(v.dtype == torch.float32 for v in losses.values())
    assert {k: v.item() for k, v in losses.items()} == pytest.approx({k: v.item() for k, v in exact.items()}, rel=0.1)
    assert detections.pred_boxes.tensor.dtype == torch.float32
    sum(losses.values()).backward()
    trained = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []


def test_copies_and_state_dict_are_complete() -> None:
    detector = tiny()
    twin = copy.deepcopy(detector).eval()
    assert not any("pixel" in k or "anchor_generator" in k for k in detector.state_dict())
    other = tiny({"SEED": 1}).eval()
    other.load_state_dict(detector.state_dict())
    batch = tiny_batch([BOX])
    for a, b in zip(twin.inference(batch, do_postprocess=False), other.inference(batch, do_postprocess=False)):
        assert torch.equal(a.scores, b.scores) and a.image_size == (64, 96)


@pytest.mark.parametrize("backbone", ["build_sn2_fpn_backbone", "build_sn2_sni_backbone"])
def test_maps_keep_the_layout_of_the_batch(backbone: str) -> None:
    """On a CPU maps are channels-last; the other layout would cost conversions in every later stage."""
    detector = tiny({"MODEL.BACKBONE.NAME": backbone}).eval()
    maps = detector.backbone(detector.preprocess_image(tiny_batch([])).tensor)
    assert {k: m.is_contiguous(memory_format=torch.channels_last) for k, m in maps.items()} == dict.fromkeys(maps, True)


@pytest.mark.parametrize("pyramid", ["fpn", "ihp"])
def test_only_training_in_float32_with_norms_that_compute_statistics_is_contiguous(pyramid: str) -> None:
    detector = tiny({"MODEL.BACKBONE.NAME": f"build_sn2_{pyramid}_backbone", "MODEL.RESNETS.NORM": "BN"}).train()
    for dtype in (None, torch.bfloat16):
        with autocast("cpu", dtype):
            maps = detector.backbone(detector.preprocess_image(tiny_batch([])).tensor)
        assert all(m.is_contiguous(memory_format=torch.channels_last) == (dtype is not None) for m in maps.values())


def test_backbone_is_public() -> None:
    backbone = build_backbone(tiny_cfg())
    assert backbone.size_divisibility == 32
    assert {k: v.stride for k, v in backbone.output_shape().items()} == {f"p{i}": 2**i for i in range(2, 7)}


def spoil(change: str) -> list[dict[str, Any]]:
    batch = tiny_batch([BOX], [BOX])
    x = batch[1]
    if change == "missing":
        del x["instances"]
    elif change == "no_classes":
        x["instances"].remove("gt_classes")
    elif change == "class_id":
        x["instances"].gt_classes = torch.tensor([7])
    elif change == "empty_box":
        x["instances"].gt_boxes = Boxes(torch.tensor([[10.0, 20.0, 10.0, 40.0]]))
    elif change == "nan_box":
        x["instances"].gt_boxes = Boxes(torch.tensor([[10.0, float("nan"), 20.0, 40.0]]))
    elif change == "gray":
        x["image"] = x["image"][0]
    return batch


@pytest.mark.parametrize(
    "change, words",
    [
        ("missing", r"image_1.jpg: training needs `instances` with gt_boxes and gt_classes"),
        ("no_classes", r"image_1.jpg: `instances` lacks gt_classes; it has \['gt_boxes'\]"),
        ("class_id", r"image_1.jpg: gt_classes must be ids from 0 to 6 \(the model.s 7 classes\), found \[7\]"),
        ("empty_box", r"image_1.jpg: gt_boxes must be .* x1 < x2 and y1 < y2, found \[10.0, 20.0, 10.0, 40.0\]"),
        ("nan_box", r"image_1.jpg: gt_boxes must be finite with x1 < x2"),
        ("gray", r"image_1.jpg: `image` must have the shape \(3, height, width\), found \(64, 96\)"),
    ],
)
def test_unusable_inputs(change: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiny()(spoil(change))


def test_divergence_is_named() -> None:
    detector = tiny()
    detector.proposal_generator.rpn_head.anchor_deltas.bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="diverged"):
        detector(tiny_batch([BOX]))


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("MODEL.META_ARCHITECTURE", "RetinaNet", "serves 'GeneralizedRCNN', found 'RetinaNet'"),
        ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads", "'StandardROIHeads' or 'CascadeROIHeads', found 'Res5ROIHeads'"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator", "serves 'DefaultAnchorGenerator'"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "serves 'RPN', found 'RRPN'"),
        ("MODEL.RPN.BBOX_REG_LOSS_TYPE", "gioU", "unknown value 'gioU'; did you mean 'giou'?"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool", "serves 'ROIAlignV2' or 'ROIAlign', found 'ROIPool'"),
        ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads", "found 'Res5ROIHeads'; a model without a pyramid (C4)"),
        ("MODEL.ROI_HEADS.NAME", "CascadeROIHead", "did you mean 'CascadeROIHeads'?"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbone", "(C4, DC5) is served by Detectron2 only"),
        ("MODEL.KEYPOINT_ON", True, "serves False, found True"),
        ("MODEL.LOAD_PROPOSALS", True, "serves False, found True"),
        ("INPUT.FORMAT", "BRG", "unknown value 'BRG'; did you mean"),
        ("INPUT.MASK_FORMAT", "polygons", "found 'polygons'; did you mean 'polygon'?"),
        (
            "MODEL.ROI_MASK_HEAD.NAME",
            "PointRendMaskHead",
            "serves 'MaskRCNNConvUpsampleHead', found 'PointRendMaskHead'",
        ),
        ("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIPool", "serves 'ROIAlignV2' or 'ROIAlign', found 'ROIPool'"),
        ("MODEL.DEVICE", "cudda", "there is no device 'cudda'; did you mean 'cuda'?"),
        ("MODEL.DEVICE", "GPU:0", "there is no device 'GPU:0'; did you mean 'cuda'?"),
        ("MODEL.DEVICE", "mps", "expected 'cpu' or 'cuda', found 'mps'"),
        ("MODEL.DEVICE", "cuda:99", "found 'cuda:99', but"),
        ("MODEL.PIXEL_STD", [1.0], "expected 3 numbers, one for each mean, found 1"),
        ("MODEL.ROI_BOX_HEAD.NORM", "BM", "unknown value 'BM'; choose from: '', BN"),
    ],
)
def test_values_that_are_not_served(key: str, value: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        tiny({"MODEL.MASK_ON": "MASK" in key, key: value})
    assert words in str(error.value) and key in str(error.value)


def test_plain_defaults_name_the_first_obstacle() -> None:
    with pytest.raises(UserError, match=r"MODEL.ROI_HEADS.NAME: the native engine serves 'StandardROIHeads'"):
        build_model(get_cfg())
