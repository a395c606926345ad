"""Test that files of Caffe2 and torchvision are loaded under Detectron2's names and compute the same."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from sn2fpn.checkpoint import Checkpointer, load_file
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.errors import UserError
from sn2fpn.modeling.trunk import ResNet, build_trunk


def _cfg(depth: int = 18, norm: str = "FrozenBN") -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    return cfg


def _randomise(model: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5 * name.endswith("running_var"))


def caffe2_name(name: str) -> str:
    """Return Caffe2's name of a trunk's tensor: "res_conv1_bn_gamma" for "stem.conv1.norm.weight"."""
    kinds = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
    branch = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    parts = name.split(".")
    norm = "norm" in parts
    if parts[0] == "stem":
        return f"res_conv1_bn_{kinds[parts[-1]]}" if norm else "conv1_w"
    return f"{parts[0]}_{parts[1]}_{branch[parts[2]]}_" + (f"bn_{kinds[parts[-1]]}" if norm else "w")


def affine_name(name: str) -> str:
    """Return the name in older files, where batch norm consists of weight and bias only."""
    return re.sub("gamma$", "s", re.sub("beta$", "b", name))


def _caffe2_file(path: Path, trunk: ResNet, affine: bool, author: str = "Caffe2") -> Path:
    weights = {caffe2_name(k): v.numpy() for k, v in trunk.state_dict().items() if not k.endswith("tracked")}
    if affine:
        weights = {affine_name(k): v for k, v in weights.items() if "running" not in k}
    weights["fc1000_w"] = np.zeros((1000, 512), np.float32)
    weights["conv1_w_momentum"] = np.zeros(3, np.float32)
    data = {"model": weights, "__author__": author, "matching_heuristics": True} if author else weights
    path.write_bytes(pickle.dumps(data, protocol=2))
    return path


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_resnet_computes_the_same(tmp_path: Path, depth: int) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    _randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    ours = build_trunk(_cfg(depth)).eval()
    checkpointer = Checkpointer(ours)
    checkpointer.load(tmp_path / "resnet.pth")
    report = checkpointer.report
    assert report.complete and report.format == "torchvision"
    assert report.unused == {"fc.weight": "the image classifier", "fc.bias": "the image classifier"}
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = ours(x)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for i in range(1, 5):
            x = getattr(theirs, f"layer{i}")(x)
            ours_i = maps[f"res{i + 1}"]
            assert (ours_i - x).abs().max() <= 1e-5 * x.abs().max()


@pytest.mark.parametrize(
    ("depth", "affine", "author"), [(50, False, "Caffe2"), (50, True, "Caffe2"), (18, True, ""), (18, False, "")]
)
def test_caffe2_trunk(tmp_path: Path, depth: int, affine: bool, author: str) -> None:
    source, target = build_trunk(_cfg(depth)), build_trunk(_cfg(depth))
    _randomise(source)
    file = _caffe2_file(tmp_path / "R.pkl", source, affine, author)
    checkpointer = Checkpointer(target)
    checkpointer.load(file)
    expected = source.state_dict()
    if affine:  # the pair already holds the statistics
        expected |= {k: torch.zeros_like(v) for k, v in expected.items() if k.endswith("running_mean")}
        expected |= {k: torch.ones_like(v) for k, v in expected.items() if k.endswith("running_var")}
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
    report = checkpointer.report
    assert report.complete and set(report.unused) == {"fc1000_w"}
    assert bool(report.assumed) == affine


def test_caffe2_detector_names_and_class_order(tmp_path: Path) -> None:
    scores = np.arange(4 * 2, dtype=np.float32).reshape(4, 2)  # background, then 3 classes
    boxes = np.arange(16 * 2, dtype=np.float32).reshape(16, 2)
    masks = np.arange(4 * 2, dtype=np.float32).reshape(4, 2, 1, 1)
    names = {
        "fpn_inner_res5_2_sum_w": "fpn_lateral5.weight",
        "fpn_inner_res2_2_sum_lateral_b": "fpn_lateral2.bias",
        "fpn_inner_res2_2_sum_lateral_gn_s": "fpn_lateral2.norm.weight",
        "fpn_res3_3_sum_w": "fpn_output3.weight",
        "conv_rpn_fpn2_w": "proposal_generator.rpn_head.conv.weight",
        "rpn_bbox_pred_fpn2_b": "proposal_generator.rpn_head.anchor_deltas.bias",
        "rpn_cls_logits_w": "proposal_generator.rpn_head.objectness_logits.weight",
        "fc6_w": "box_head.fc1.weight",
        "fc7_b": "box_head.fc2.bias",
        "head_conv2_gn_b": "box_head.conv2.norm.bias",
        "_[mask]_fcn1_w": "mask_head.mask_fcn1.weight",
        "_[mask]_fcn4_gn_s": "mask_head.mask_fcn4.norm.weight",
        "conv5_mask_b": "mask_head.deconv.bias",
        "conv1_gn_s": "stem.conv1.norm.weight",
        "res5_0_branch2b_gn_b": "res5.0.conv2.norm.bias",
    }
    blobs = {name: np.zeros(1, np.float32) for name in names} | {
        "cls_score_w": scores,
        "bbox_pred_w": boxes,
        "mask_fcn_logits_w": masks,
    }
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"blobs": blobs, "cfg": "yaml text"}))
    checkpoint = load_file(tmp_path / "m.pkl")
    assert checkpoint.format == "caffe2"
    reordered = {
        "box_predictor.cls_score.weight": scores[[1, 2, 3, 0]],
        "box_predictor.bbox_pred.weight": boxes[4:],
        "mask_head.predictor.weight": masks[1:],
    }
    assert set(checkpoint.model) == {*names.values(), *reordered}
    for name, expected in reordered.items():
        assert checkpoint.model[name].tolist() == expected.tolist()


def test_a_part_of_a_backbone_may_be_called_fpn(tmp_path: Path) -> None:
    """The names are Detectron2's although torchvision's pyramid is `backbone.fpn`, too, so no class is moved."""
    names = ("backbone.fpn.fpn_lateral2.weight", "backbone.bottom_up.layer1.0.conv1.weight")
    model = {name: torch.zeros(2) for name in (*names, "proposal_generator.rpn_head.conv.weight")}
    model["roi_heads.box_predictor.cls_score.weight"] = torch.arange(4.0)
    torch.save({"model": model, "iteration": 3}, tmp_path / "model_0000003.pth")
    found = load_file(tmp_path / "model_0000003.pth")
    assert found.format == "detectron2" and found.rest == {"iteration": 3} and found.model.keys() == model.keys()
    assert found.model["roi_heads.box_predictor.cls_score.weight"].tolist() == [0, 1, 2, 3]


def test_two_names_for_one_place(tmp_path: Path) -> None:
    one = np.zeros(1, np.float32)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"conv1_w": one, "res_conv1_bn_s": one, "res_conv1_bn_gamma": one}))
    with pytest.raises(UserError, match=r"res_conv1_bn_s.*res_conv1_bn_gamma"):
        load_file(tmp_path / "m.pkl")


# ------------------------------------------------------------------ against Detectron2 itself


def _detectron2_model(cfg: CfgNode, names: str):
    from detectron2.config import get_cfg as get_d2_cfg
    from detectron2.modeling import build_backbone

    theirs = get_d2_cfg()
    theirs.MODEL.DEVICE = "cpu"
    for key in ("DEPTH", "RES2_OUT_CHANNELS", "STRIDE_IN_1X1", "NORM", "OUT_FEATURES"):
        theirs.MODEL.RESNETS[key] = cfg.MODEL.RESNETS[key]
    theirs.MODEL.BACKBONE.NAME = names
    return build_backbone(theirs)


@pytest.mark.detectron2
@pytest.mark.parametrize("affine", [False, True], ids=["statistics", "affine"])
def test_caffe2_trunk_as_detectron2_loads_it(tmp_path: Path, affine: bool) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.checkpoint import DetectionCheckpointer

    source = build_trunk(_cfg(50))
    _randomise(source)
    file = _caffe2_file(tmp_path / "R-50.pkl", source, affine)
    theirs, ours = _detectron2_model(_cfg(50), "build_resnet_backbone"), build_trunk(_cfg(50))
    DetectionCheckpointer(theirs).load(str(file))
    Checkpointer(ours).load(file)
    expected, found = theirs.state_dict(), ours.state_dict()
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
