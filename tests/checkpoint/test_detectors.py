"""Test that detectors of torchvision and mmdetection compute the same here, and the warnings of other preprocessing."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from golden_detectron2 import NOTHING, filler, pairs
from sn2fpn.checkpoint import Checkpointer, load_file
from sn2fpn.checkpoint.names import to_detectron2_names, without_unused_coco_ids
from sn2fpn.checkpoint.preprocessing import preprocessing_warning
from sn2fpn.checkpoint.reading import Checkpoint
from sn2fpn.config import get_cfg
from sn2fpn.modeling import GeneralizedRCNN, build_model

BASE = Path(__file__).parents[2] / "configs/Base-RCNN-FPN.yaml"
TORCHVISION = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
}
HEIGHT, WIDTH = 128, 192  # multiples of 64, because torchvision rounds the stride of p6 otherwise


def ours(depth: int, masks: bool, changes: Mapping[str, Any] = NOTHING) -> GeneralizedRCNN:
    cfg = get_cfg()
    cfg.merge_from_file(str(BASE))
    small = {"MODEL.DEVICE": "cpu", "MODEL.RESNETS.DEPTH": depth, "MODEL.MASK_ON": masks}
    small |= {"MODEL.RESNETS.RES2_OUT_CHANNELS": 64} if depth < 50 else {}
    cfg.merge_from_list(pairs(small | {"MODEL.ROI_HEADS.NUM_CLASSES": 7} | dict(changes)))
    return build_model(cfg)


def fill(model: nn.Module) -> None:
    """Give a detector of torchvision weights that keep activations near 1 and lead to many detections."""
    gains = {r"layer\d\.\d+\.conv[23]": 0.4, "fpn": 0.35, "cls_logits": 1.4, "rpn.head.bbox_pred": 0.19}
    gains |= {"cls_score": 1.2, "box_predictor.bbox_pred": 0.6, "mask_fcn_logits": 3.0, r"body\.conv1": 1.0}
    state = {}
    for name, old in model.state_dict().items():
        norm = re.search(r"\.bn\d|downsample\.1", name) is not None
        value = filler.tensor_values(name.replace(".bn", ".norm.").replace("downsample.1", "norm"), old.shape)
        if value is None:
            continue
        if norm:
            value = abs(value) if name.endswith(("weight", "var")) else 0.05 * value
        for pattern, gain in gains.items():
            value = value * gain if value.ndim > 1 and re.search(pattern, name) else value
        state[name] = torch.as_tensor(value)
    model.load_state_dict(state, strict=False)


def theirs(depth: int, masks: bool) -> nn.Module:
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    model = (MaskRCNN if masks else FasterRCNN)(backbone, num_classes=8, min_size=HEIGHT, max_size=WIDTH)
    fill(model)
    return model.eval()


@torch.no_grad()
def balance(model: nn.Module, image: torch.Tensor) -> None:
    """Let all classes be about equally likely among the proposals of an image."""
    seen: list[torch.Tensor] = []
    hook = model.roi_heads.box_predictor.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    model([image])
    hook.remove()
    layer, scale = model.roi_heads.box_predictor.cls_score, 2 / seen[0].std(0).mean()
    layer.weight.mul_(scale)
    layer.bias.sub_(seen[0].mean(0)).mul_(scale)


def round_anchors(model: GeneralizedRCNN) -> None:
    """Round the anchors to whole pixels, as torchvision does."""
    for anchors in model.proposal_generator.anchor_generator.buffers():
        anchors.copy_(anchors.round())


@pytest.mark.parametrize(("depth", "masks"), [(18, False), (18, True), (50, False)])
def test_torchvisions_detectors_detect_the_same(depth: int, masks: bool, tmp_path: Path) -> None:
    model = theirs(depth, masks)
    image = torch.from_numpy(filler.make_image(3, HEIGHT, WIDTH)).permute(2, 0, 1)
    balance(model, image.float() / 255)
    torch.save(model.state_dict(), tmp_path / "detector.pth")
    detector = ours(depth, masks, TORCHVISION).eval()
    checkpointer = Checkpointer(detector)
    checkpointer.load(tmp_path / "detector.pth", complete=True)
    assert checkpointer.report is not None and not checkpointer.report.unused
    round_anchors(detector)
    logits: list[torch.Tensor] = []
    if masks:
        model.roi_heads.mask_predictor.register_forward_hook(lambda _, __, output: logits.append(output))
    with torch.no_grad():
        (expected,) = model([image.float() / 255])
        (found,) = detector.inference([{"image": image}], do_postprocess=False)
    assert len(found) == len(expected["boxes"]) > 5
    assert len(set(found.pred_classes.tolist())) > 1
    assert torch.equal(found.pred_classes + 1, expected["labels"])
    torch.testing.assert_close(found.scores, expected["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.pred_boxes.tensor, expected["boxes"], rtol=0, atol=2e-2)
    if masks:
        own = logits[0][torch.arange(len(found)), expected["labels"]].sigmoid()
        assert own.std() > 0.1
        torch.testing.assert_close(found.pred_masks[:, 0], own, rtol=0, atol=1e-3)


def old_torchvision_name(name: str) -> str:
    """Return the name in files that versions before 0.14 wrote, as the published ones."""
    name = re.sub(r"(inner|layer)_blocks\.(\d)\.0\.", r"\1_blocks.\2.", name)
    name = re.sub(r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", name)
    return re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)


def test_published_files_have_the_older_names() -> None:
    state = theirs(18, masks=True).state_dict()
    old = {old_torchvision_name(name): tensor for name, tensor in state.items()}
    assert len(old.keys() - state.keys()) == 2 * (8 + 1 + 4)
    new_names, old_names = (to_detectron2_names(s, "torchvision")[0] for s in (state, old))
    assert new_names.keys() == old_names.keys()


def test_cocos_ids_become_its_80_classes() -> None:
    categories = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    kept = [i for i, name in enumerate(categories) if name not in ("__background__", "N/A")]
    assert len(kept) == 80
    scores = torch.arange(91.0)[:, None]
    boxes = torch.arange(364.0)[:, None]
    names = {"roi_heads.box_predictor.cls_score.weight": scores, "roi_heads.box_predictor.bbox_pred.weight": boxes}
    model, _ = to_detectron2_names(names, "torchvision")
    found = [without_unused_coco_ids(n, t, 81 if "cls" in n else 320).flatten().tolist() for n, t in model.items()]
    assert found[0] == [*kept, 0] and found[1] == [4 * i + j for i in kept for j in range(4)]
    for name, tensor in model.items():  # a model of 90 classes, and one of other classes
        assert without_unused_coco_ids(name, tensor, len(tensor)) is tensor
        assert len(without_unused_coco_ids(name, tensor[:8], 81)) == 8


MMDETECTION = (  # patterns of our names, and of mmdetection's names of the same tensors
    (r"^backbone\.bottom_up\.stem\.conv1\.norm", "backbone.bn1"),
    (r"^backbone\.bottom_up\.stem\.conv1", "backbone.conv1"),
    (r"^backbone\.bottom_up\.res(\d)\.", lambda m: f"backbone.layer{int(m[1]) - 1}."),
    (r"shortcut\.norm", "downsample.1"),
    (r"shortcut", "downsample.0"),
    (r"conv(\d)\.norm", r"bn\1"),
    (r"^backbone\.fpn_lateral(\d)", lambda m: f"neck.lateral_convs.{int(m[1]) - 2}.conv"),
    (r"^backbone\.fpn_output(\d)", lambda m: f"neck.fpn_convs.{int(m[1]) - 2}.conv"),
    (r"^proposal_generator\.rpn_head\.conv", "rpn_head.rpn_conv"),
    (r"^proposal_generator\.rpn_head\.objectness_logits", "rpn_head.rpn_cls"),
    (r"^proposal_generator\.rpn_head\.anchor_deltas", "rpn_head.rpn_reg"),
    (r"^roi_heads\.box_head\.((?:\d\.)?)fc(\d)", lambda m: f"roi_head.bbox_head.{m[1]}shared_fcs.{int(m[2]) - 1}"),
    (r"^roi_heads\.box_predictor\.((?:\d\.)?)cls_score", r"roi_head.bbox_head.\1fc_cls"),
    (r"^roi_heads\.box_predictor\.((?:\d\.)?)bbox_pred", r"roi_head.bbox_head.\1fc_reg"),
    (r"^roi_heads\.mask_head\.mask_fcn(\d)", lambda m: f"roi_head.mask_head.convs.{int(m[1]) - 1}.conv"),
    (r"^roi_heads\.mask_head\.deconv", "roi_head.mask_head.upsample"),
    (r"^roi_heads\.mask_head\.predictor", "roi_head.mask_head.conv_logits"),
)
CASCADE = {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}


def mmdetection_name(name: str) -> str:
    for pattern, replacement in MMDETECTION:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.mark.parametrize("changes", [{}, CASCADE], ids=["mask_rcnn", "cascade"])
def test_mmdetections_files(changes: dict[str, Any], tmp_path: Path) -> None:
    """Backgrounds come last and offsets, anchors and inputs have the same order there, so that only names differ."""
    small = {"MODEL.FPN.OUT_CHANNELS": 8, "MODEL.ROI_BOX_HEAD.FC_DIM": 8, "MODEL.ROI_MASK_HEAD.CONV_DIM": 8}
    torch.manual_seed(0)
    source, target = (ours(18, True, small | changes) for _ in range(2))
    state = {mmdetection_name(name): tensor for name, tensor in source.state_dict().items()}
    assert {name.split(".")[0] for name in state} == {"backbone", "neck", "rpn_head", "roi_head"}
    file = tmp_path / "mmdetection.pth"
    torch.save({"meta": {"epoch": 12, "CLASSES": ("a", "b")}, "state_dict": state}, file)
    assert load_file(file).format == "mmdetection"
    Checkpointer(target).load(file, complete=True)
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_other_preprocessing_is_a_warning_with_the_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(theirs(18, False).state_dict(), tmp_path / "detector.pth")
    torch.save(torchvision.models.resnet50(num_classes=2).state_dict(), tmp_path / "resnet.pth")
    tiny = {"MODEL.FPN.OUT_CHANNELS": 8, "MODEL.ROI_BOX_HEAD.FC_DIM": 8}
    for file, depth, keys in (
        ("detector.pth", 18, {k: v for k, v in TORCHVISION.items() if "MASK" not in k and "1X1" not in k}),
        ("resnet.pth", 50, {k: v for k, v in TORCHVISION.items() if "POOLER" not in k}),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "sn2fpn"):
            Checkpointer(ours(depth, False, tiny)).load(tmp_path / file)
        (line,) = [r.getMessage() for r in caplog.records if " Set " in r.getMessage()]
        named = re.findall(r'([A-Z0-9_.]+) ("[^"]*"|\S+)', line.partition(" Set ")[2])
        assert {key for key, _ in named} == keys.keys()
        caplog.clear()
        given = {key: value.strip('"') for key, value in named}  # what the warning says is what helps
        with caplog.at_level(logging.WARNING, "sn2fpn"):
            Checkpointer(ours(depth, False, tiny | given)).load(tmp_path / file)
        assert not [r for r in caplog.records if " Set " in r.getMessage()]


def test_detectors_and_trunks_of_ones_own_have_no_preprocessing_to_check(tmp_path: Path) -> None:
    """A dense detector has no RoI heads, and the stages of a trunk need not be sequences of blocks."""

    class Detector(nn.Module):
        def __init__(self, stage: nn.Module) -> None:
            super().__init__()
            self.pixel_mean, self.pixel_std, self.input_format = torch.zeros(3), torch.ones(3), "BGR"
            self.backbone = nn.ModuleDict({"bottom_up": nn.ModuleDict({"res2": stage, "res3": stage})})

    for stage in (nn.Conv2d(3, 4, 1), nn.Sequential(), nn.Sequential(nn.ModuleDict({"conv1": nn.Sequential()}))):
        model = Detector(stage)
        for style in ("detectron2", "torchvision"):
            found = Checkpoint(tmp_path / "m.pth", style, {}, {})
            warning = preprocessing_warning(model, found)
            assert (warning is None) == (style == "detectron2")
    plain = nn.Linear(2, 2)
    plain.pixel_mean, plain.pixel_std, plain.input_format = torch.zeros(3), torch.ones(3), "BGR"
    assert preprocessing_warning(plain, Checkpoint(tmp_path / "m.pth", "detectron2", {}, {})) is None


def test_a_trunk_that_is_narrower_than_torchvisions_is_not_theirs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The half-width ResNet-50 of the studies on photographs has torchvision's names, but other preprocessing."""
    torch.save(torchvision.models.resnet50(num_classes=2, width_per_group=32).state_dict(), tmp_path / "half.pth")
    narrow = {"MODEL.FPN.OUT_CHANNELS": 8, "MODEL.ROI_BOX_HEAD.FC_DIM": 8, "MODEL.RESNETS.WIDTH_PER_GROUP": 32}
    with caplog.at_level(logging.WARNING, "sn2fpn"):
        Checkpointer(ours(50, False, narrow)).load(tmp_path / "half.pth")
    assert "loaded" in caplog.text and " Set " not in caplog.text
