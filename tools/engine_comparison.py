"""The differences between both engines for one configuration: inputs, parameters, detections, losses and gradients."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from detectron2 import structures as theirs_structures
from detectron2.config import CfgNode as TheirCfgNode
from detectron2.data import DatasetMapper
from detectron2.modeling import build_model as build_theirs
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from sn2fpn.checkpoint import Checkpointer
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data import build_mapper, load_coco_json
from sn2fpn.data.shapes import write_shapes
from sn2fpn.errors import UserError, argument_names
from sn2fpn.integrations.detectron2 import read_config, register_backbones
from sn2fpn.layers import Conv2d
from sn2fpn.modeling import build_model
from sn2fpn.modeling.rpn import RPNHead
from sn2fpn.structures import Instances

__all__ = [
    "Difference",
    "build_pair",
    "compare_detections",
    "compare_engines",
    "compare_inputs",
    "compare_training",
    "compute_exactly",
    "make_inputs",
    "read_both",
    "to_detectron2",
]

# Both engines use a CPU, small images and no random augmentation, so that their results can be equal.
_REDUCED: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "INPUT.MIN_SIZE_TRAIN": (192,),
    "INPUT.MAX_SIZE_TRAIN": 320,
    "INPUT.MIN_SIZE_TEST": 192,
    "INPUT.MAX_SIZE_TEST": 320,
    "INPUT.RANDOM_FLIP": "none",
    "INPUT.CROP.ENABLED": False,
}


class Difference(NamedTuple):
    """One row of the comparison."""

    what: str
    largest: float
    where: str = ""


def compare_engines(
    config_file: str,
    overrides: Sequence[Any] = (),
    weights: str = "",
    images: int = 2,
    seed: int = 0,
    exactly: bool = True,
) -> list[Difference]:
    """Build the detector of a configuration in both engines with the same weights, and compare their results.

    Args:
        config_file: a YAML config that the native engine supports.
        overrides: `["KEY", value, …]`.
        weights: a checkpoint for both detectors; "" takes random weights and calibrated norms.
        images: number of synthetic images.
        seed: seed of weights and images.
        exactly: see `compute_exactly`; False computes in float32, as in normal use.

    Raises:
        UserError: the configuration or the weights cannot be used.
    """
    cfg, their_cfg = read_both(config_file, overrides)
    inputs, their_inputs = make_inputs(cfg, their_cfg, images, seed)
    ours, theirs = build_pair(cfg, their_cfg, inputs, weights, seed)
    rows = compare_inputs(inputs, their_inputs)
    if exactly:
        compute_exactly(ours)
        compute_exactly(theirs)
    rows += [Difference("parameters", _largest_difference(ours.state_dict(), theirs.state_dict()))]
    rows += compare_detections(ours, theirs, inputs)
    rows += compare_training(ours, theirs, inputs, seed)
    return rows


def read_both(config_file: str, overrides: Sequence[Any] = ()) -> tuple[CfgNode, TheirCfgNode]:
    """Read a file as the native and as Detectron2's configuration, with small images and no random augmentation.

    Raises:
        UserError: see `sn2fpn.config.CfgNode.merge_from_file`.
    """
    register_backbones()  # again, since a pyramid may have been registered after the first time
    reduced = [x for pair in _REDUCED.items() for x in pair]
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list([*reduced, *overrides])
    return cfg, TheirCfgNode(read_config(config_file, [*reduced, *overrides]))


def make_inputs(
    cfg: CfgNode, their_cfg: TheirCfgNode, images: int = 2, seed: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make training inputs from synthetic images with the native mapper and with Detectron2's."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_shapes(root, {"compare": (images, seed)})
        records = load_coco_json(root / "annotations" / "instances_compare.json", root / "compare")
        for annotation in (a for r in records for a in r["annotations"]):
            annotation["category_id"] %= cfg.MODEL.ROI_HEADS.NUM_CLASSES
            annotation["bbox_mode"] = BoxMode(annotation["bbox_mode"])
        mapper, their_mapper = build_mapper(cfg, is_train=True), DatasetMapper(their_cfg, is_train=True)
        return [mapper(r, np.random.default_rng(0)) for r in records], [their_mapper(r) for r in records]


def to_detectron2(inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Convert model inputs to Detectron2's structures."""
    return [{k: _their_instances(v) if isinstance(v, Instances) else v for k, v in x.items()} for x in inputs]


def _their_instances(instances: Instances) -> Any:
    moved = {}
    for name, value in instances.get_fields().items():
        kind = getattr(theirs_structures, type(value).__name__, None)
        content = value.polygons if hasattr(value, "polygons") else getattr(value, "tensor", None)
        moved[name] = kind(content) if kind is not None else value
    return theirs_structures.Instances(instances.image_size, **moved)


# ---------------------------------------------------------------- the pair


def build_pair(
    cfg: CfgNode, their_cfg: TheirCfgNode, inputs: Sequence[dict[str, Any]], weights: str = "", seed: int = 0
) -> tuple[nn.Module, nn.Module]:
    """Build the detector in both engines with the same weights.

    Random weights are adapted to `inputs`: norms get their statistics, and the weights of the predictors are enlarged,
    so that there are many different detections.

    Raises:
        UserError: the names or shapes of the parameters differ, or the weights cannot be used.
    """
    torch.manual_seed(seed)
    ours = build_model(cfg)
    if weights:
        with argument_names({"path": "--weights"}):
            Checkpointer(ours).load(weights)
    else:
        _calibrate(ours, inputs)
    theirs = build_theirs(their_cfg)
    try:
        theirs.load_state_dict(ours.state_dict(), strict=True)
    except RuntimeError as e:
        raise UserError(f"the engines' detectors have different parameters: {e}") from None
    return ours, theirs


def compute_exactly(model: nn.Module) -> None:
    """Let the networks compute in float64, and round their results to float32 for the rest of the detector.

    Detectors sort, threshold and sample, so that a difference in the last digit of float32 may select another proposal,
    after which all numbers differ. In float64, such differences hardly occur.
    """
    rpn_head, roi_heads = model.proposal_generator.rpn_head, model.roi_heads
    parts = [model.backbone, rpn_head, *_stages(roi_heads.box_head), *_stages(roi_heads.box_predictor)]
    if getattr(roi_heads, "mask_head", None) is not None:
        parts += roi_heads.mask_head.children()
    for part in parts:
        part.double()
        part.register_forward_pre_hook(lambda _, inputs: _cast(inputs, torch.float64))
        part.register_forward_hook(lambda _, inputs, output: _cast(output, torch.float32))
    if isinstance(rpn_head, RPNHead):  # its methods compute only the best or the sampled anchors
        for name in ("best", "at"):
            setattr(rpn_head, name, _in_double(getattr(rpn_head, name)))


def _stages(part: nn.Module) -> list[nn.Module]:
    """Return the modules of the stages of a cascade, or the only module."""
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _in_double(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: _cast(method(*_cast(args, torch.float64)), torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, dict):
        return {k: _cast(v, dtype) for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [_cast(v, dtype) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # a NamedTuple or a plain tuple
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


@torch.no_grad()
def _calibrate(model: nn.Module, inputs: Sequence[dict[str, Any]]) -> None:
    def measure(conv: Conv2d, x: tuple[Tensor, ...]) -> None:
        y = F.conv2d(x[0], conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        conv.norm.running_mean.copy_(y.mean((0, 2, 3)))
        conv.norm.running_var.copy_(y.var((0, 2, 3)) + 1e-3)

    convs = [m for m in model.modules() if isinstance(m, Conv2d) and hasattr(m.norm, "running_var")]
    hooks = [conv.register_forward_pre_hook(measure) for conv in convs]
    model.eval()
    model.backbone(model.preprocess_image(inputs).tensor)
    for hook in hooks:
        hook.remove()
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("cls_score", "bbox_pred", "objectness_logits", "anchor_deltas")):
            parameter *= 10
        if "mask_head.predictor" in name:
            parameter *= 1000


# ---------------------------------------------------------------- what differs


def compare_inputs(inputs: Sequence[dict[str, Any]], their_inputs: Sequence[dict[str, Any]]) -> list[Difference]:
    """Compare the images (in grey levels), boxes (in pixels), classes and masks of training inputs."""
    largest: dict[str, float] = {}
    for ours, theirs in zip(to_detectron2(inputs), their_inputs, strict=True):
        values = {"image": (ours["image"], theirs["image"])}
        fields = theirs["instances"].get_fields()
        values |= {name: (ours["instances"].get(name), theirs["instances"].get(name)) for name in fields}
        for name, (a, b) in values.items():
            largest[name] = max(largest.get(name, 0.0), _input_difference(a, b))
    return [Difference(f"training inputs: {name}", value) for name, value in largest.items()]


def _input_difference(a: Any, b: Any) -> float:
    if len(a) != len(b):
        return float("inf")
    if hasattr(a, "polygons"):
        pairs = [(p, q) for ps, qs in zip(a.polygons, b.polygons, strict=True) for p, q in zip(ps, qs, strict=True)]
        return max((float(np.abs(p - q).max()) for p, q in pairs), default=0.0)
    return _difference(getattr(a, "tensor", a), getattr(b, "tensor", b))


def compare_training(
    ours: nn.Module, theirs: nn.Module, inputs: Sequence[dict[str, Any]], seed: int = 0
) -> list[Difference]:
    """Compare the losses and gradients of one step by their relative differences; gradients are compared by norms."""
    losses, gradients = _train_step(ours, inputs, seed)
    their_losses, their_gradients = _train_step(theirs, to_detectron2(inputs), seed)
    rows = [
        Difference(name, abs(losses[name] - value) / max(abs(value), 1e-12), f"{value:.6g}")
        for name, value in their_losses.items()
    ]
    errors = {
        name: float((gradients[name] - g).norm() / g.norm().clamp(min=1e-8)) for name, g in their_gradients.items()
    }
    worst = max(errors, key=errors.__getitem__)
    return [*rows, Difference("gradients", errors[worst], worst)]


def _train_step(model: nn.Module, inputs: Sequence[dict[str, Any]], seed: int) -> tuple[dict, dict]:
    model.train()
    model.zero_grad()
    torch.manual_seed(seed)  # both engines sample in the same way
    with EventStorage():
        losses = model(inputs)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.item() for name, value in losses.items()}, gradients


@torch.no_grad()
def compare_detections(ours: nn.Module, theirs: nn.Module, inputs: Sequence[dict[str, Any]]) -> list[Difference]:
    """Compare the nearest detections of the same class: their number, boxes (in pixels), scores and mask pixels."""
    ours.eval()
    theirs.eval()
    largest = {"number": 0.0, "boxes": 0.0, "scores": 0.0}
    count = 0
    for mine, other in zip(ours(inputs), theirs(to_detectron2(inputs)), strict=True):
        mine, other = mine["instances"], other["instances"]
        count += len(other)
        largest["number"] = max(largest["number"], abs(len(mine) - len(other)))
        if not len(mine) or not len(other):
            continue
        distance = (other.pred_boxes.tensor[:, None] - mine.pred_boxes.tensor[None]).abs().amax(2)
        distance += (other.scores[:, None] - mine.scores[None]).abs()  # distinguishes equal boxes
        distance[other.pred_classes[:, None] != mine.pred_classes[None]] = float("inf")
        mine = mine[distance.argmin(1)]
        found = {
            "boxes": _difference(mine.pred_boxes.tensor, other.pred_boxes.tensor),
            "scores": _difference(mine.scores, other.scores),
        }
        if other.has("pred_masks"):
            found["mask pixels (share)"] = float((mine.pred_masks != other.pred_masks).float().mean())
        largest |= {name: max(largest.get(name, 0.0), value) for name, value in found.items()}
    return [
        Difference(f"detections: {name}", value, f"{count} detections" if name == "number" else "")
        for name, value in largest.items()
    ]


def _largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(_difference(a[name], b[name]) for name in b)


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
