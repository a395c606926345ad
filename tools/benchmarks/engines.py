"""The same detector in the native engine, torchvision and Detectron2, with equal weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sn2fpn import structures
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.precision import autocast
from sn2fpn.study.measure.workload import fill_weights

from .torchvision_names import to_torchvision

__all__ = ["ENGINES", "STAGES", "Engine", "NoCounterpart", "installed", "read_detector"]

STAGES = ("trunk + pyramid", "RPN", "RoI heads")

# Steps of this learning rate move no weight. The other keys are those of torchvision's ResNets.
_KEYS = {
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.PIXEL_STD": [57.375, 57.12, 58.395],
    "SOLVER.BASE_LR": 1e-9,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
}
_THEIR_FPN = "build_resnet_fpn_backbone"  # With this name Detectron2 takes its own FPN instead of ours.


class NoCounterpart(Exception):
    """An engine has no detector with the parameters of the native one."""


def _autocast_of_torch(device: str, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype)


@dataclass
class Engine:
    """A detector of one engine.

    Attributes:
        model: the detector.
        stages: the modules of `STAGES`.
        feed: calls the model with a batch of `sn2fpn.study.measure.workload.make_images`.
        optimizer: the optimizer of a training step.
        autocast: returns the context of mixed precision on a device. The native engine has one of its own.
    """

    model: nn.Module
    stages: dict[str, nn.Module]
    feed: Callable[[nn.Module, list[dict[str, Any]]], Any]
    optimizer: torch.optim.Optimizer
    autocast: Callable[[str, torch.dtype | None], AbstractContextManager[object]] = _autocast_of_torch


def read_detector(file: str, overrides: Sequence[Any], device: str) -> CfgNode:
    """Read a YAML config of the native engine, with the keys that make detectors comparable.

    Raises:
        UserError: the file or the overrides are wrong.
    """
    cfg = get_cfg()
    cfg.merge_from_file(file)
    cfg.merge_from_list(_changes(overrides, device))
    return cfg


def _changes(overrides: Sequence[Any], device: str) -> list[Any]:
    return [*(item for pair in _KEYS.items() for item in pair), "MODEL.DEVICE", device, *overrides]


def installed() -> list[str]:
    """Return the names of the engines that are installed."""
    return [name for name in ENGINES if name == "native" or importlib.util.find_spec(name)]


def _native(file: str, overrides: Sequence[Any], device: str) -> Engine:
    from sn2fpn.engine import build_optimizer
    from sn2fpn.modeling import build_model

    cfg = read_detector(file, overrides, device)
    return replace(_detectron2_style(cfg, build_model, build_optimizer, structures), autocast=autocast)


def _detectron2(file: str, overrides: Sequence[Any], device: str) -> Engine:
    import detectron2.structures
    from detectron2.config import CfgNode as TheirCfgNode
    from detectron2.modeling import build_model
    from detectron2.solver import build_optimizer
    from detectron2.utils.events import EventStorage

    from sn2fpn.integrations.detectron2 import backbones  # noqa: F401 - registers the pyramids
    from sn2fpn.integrations.detectron2.config import read_config

    cfg = TheirCfgNode(read_config(file, _changes(overrides, device)))
    if cfg.MODEL.BACKBONE.NAME == "build_sn2_fpn_backbone":
        cfg.MODEL.BACKBONE.NAME = _THEIR_FPN
    EventStorage(0).__enter__()  # Detectron2's modules write scalars to the current storage.
    return _detectron2_style(cfg, build_model, build_optimizer, detectron2.structures)


def _detectron2_style(cfg: Any, build_model: Any, build_optimizer: Any, kinds: Any) -> Engine:
    """Build a detector with Detectron2's interface.

    Args:
        cfg: the configuration.
        build_model, build_optimizer: the functions of the engine.
        kinds: the module with the engine's `Instances`, `Boxes` and `PolygonMasks`.
    """
    model = build_model(cfg)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("pixel_")}
    model.load_state_dict(fill_weights(state), strict=False)

    def feed(model: nn.Module, batch: list[dict[str, Any]]) -> Any:
        inputs = []
        for x in batch:
            target = kinds.Instances(tuple(x["image"].shape[1:]))
            target.gt_boxes, target.gt_classes = kinds.Boxes(x["boxes"]), x["classes"] % cfg.MODEL.ROI_HEADS.NUM_CLASSES
            target.gt_masks = kinds.PolygonMasks([[_ring(box)] for box in x["boxes"].tolist()])
            inputs.append({"image": x["image"], "height": x["height"], "width": x["width"], "instances": target})
        return model(inputs)

    stages = dict(zip(STAGES, (model.backbone, model.proposal_generator, model.roi_heads)))
    return Engine(model, stages, feed, build_optimizer(cfg, model))


def _ring(box: list[float]) -> Any:
    x1, y1, x2, y2 = box
    return torch.tensor([x1, y1, x2, y1, x2, y2, x1, y2], dtype=torch.float64).numpy()


def _torchvision(file: str, overrides: Sequence[Any], device: str) -> Engine:
    from sn2fpn.modeling import build_model

    cfg = read_detector(file, overrides, device)
    model = _torchvision_model(cfg).to(device)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in build_model(_on(cfg, "meta")).state_dict().items()}
    state = to_torchvision(model.state_dict(), {k: s for k, s in shapes.items() if not k.startswith("pixel_")})
    if state is None:
        raise NoCounterpart("it has no detector with the parameters of this configuration")
    model.load_state_dict(state)

    def feed(model: nn.Module, batch: list[dict[str, Any]]) -> Any:
        images = [x["image"].to(device) for x in batch]
        sides = batch[0]["image"].shape[1:]
        model.transform.min_size, model.transform.max_size = (min(sides),), max(sides)  # so that nothing is resized
        return model(images, [_target(x, cfg, device) for x in batch] if model.training else None)

    stages = dict(zip(STAGES, (model.backbone, model.rpn, model.roi_heads)))
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=1e-9, momentum=0.9, weight_decay=1e-4, foreach=True)
    return Engine(model, stages, feed, optimizer)


def _on(cfg: CfgNode, device: str) -> CfgNode:
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = device
    return cfg


def _torchvision_model(cfg: CfgNode) -> nn.Module:
    from torchvision.models import resnet
    from torchvision.models.detection import FasterRCNN, MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops import FrozenBatchNorm2d

    m = cfg.MODEL
    sizes = tuple(map(tuple, m.ANCHOR_GENERATOR.SIZES))
    anchors = AnchorGenerator(sizes, (tuple(m.ANCHOR_GENERATOR.ASPECT_RATIOS[0]),) * len(sizes))
    trunk = getattr(resnet, f"resnet{m.RESNETS.DEPTH}")(norm_layer=FrozenBatchNorm2d)
    return (MaskRCNN if m.MASK_ON else FasterRCNN)(
        _resnet_fpn_extractor(trunk, 5 - m.BACKBONE.FREEZE_AT),  # the number of trainable stages
        m.ROI_HEADS.NUM_CLASSES + 1,
        image_mean=m.PIXEL_MEAN,
        image_std=m.PIXEL_STD,
        rpn_anchor_generator=anchors,
        rpn_batch_size_per_image=m.RPN.BATCH_SIZE_PER_IMAGE,
        rpn_pre_nms_top_n_train=m.RPN.PRE_NMS_TOPK_TRAIN,
        rpn_pre_nms_top_n_test=m.RPN.PRE_NMS_TOPK_TEST,
        rpn_post_nms_top_n_train=m.RPN.POST_NMS_TOPK_TRAIN,
        rpn_post_nms_top_n_test=m.RPN.POST_NMS_TOPK_TEST,
        box_batch_size_per_image=m.ROI_HEADS.BATCH_SIZE_PER_IMAGE,
        box_detections_per_img=cfg.TEST.DETECTIONS_PER_IMAGE,
    )


def _target(x: dict[str, Any], cfg: CfgNode, device: str) -> dict[str, Tensor]:
    """Return the ground truth of an image in torchvision's form, whose background class is the first."""
    target = {"boxes": x["boxes"].to(device), "labels": (x["classes"] % cfg.MODEL.ROI_HEADS.NUM_CLASSES).to(device) + 1}
    if cfg.MODEL.MASK_ON:
        masks = torch.zeros(len(x["boxes"]), *x["image"].shape[1:], dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, x["boxes"].round().int().tolist()):
            mask[y1:y2, x1:x2] = 1
        target["masks"] = masks.to(device)
    return target


ENGINES: dict[str, Callable[[str, Sequence[Any], str], Engine]] = {
    "native": _native,
    "torchvision": _torchvision,
    "detectron2": _detectron2,
}
"""The engines by name: functions of a YAML config, a list of overrides and a device.

They raise `NoCounterpart` if the engine has no such detector.
"""
