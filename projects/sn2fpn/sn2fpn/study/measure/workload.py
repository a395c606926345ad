"""Equal work for models that are timed side by side: their weights, images, proposals and detections."""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...modeling import GeneralizedRCNN
from ...structures import Boxes, Instances, PolygonMasks

__all__ = ["fill_weights", "fix_work", "make_images", "model_inputs"]

# These factors keep activations near 1, spread the boxes, and make some class of each proposal likely.
_GAINS = [
    (r"bottom_up\.stem\.conv1\.weight$", 1.0),
    (r"\.res\d\.\d+\.conv3\.weight$", 0.35),
    (r"\.fpn_(lateral|output)\d\.weight$", 0.35),
    (r"rpn_head\.conv\.weight$", 0.7),
    (r"rpn_head\.objectness_logits\.weight$", 0.9),
    (r"rpn_head\.anchor_deltas\.weight$", 0.25),
    (r"box_head\.(\d\.)?fc\d\.weight$", 0.9),
    (r"box_predictor\.(\d\.)?cls_score\.weight$", 2.0),
    (r"box_predictor\.(\d\.)?bbox_pred\.weight$", 1.0),
]


def fill_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return made-up values for a state dict in Detectron2's names: normal and scaled by the fan-in.

    They depend on the names alone and keep activations near 1. In an untrained deep network activations may fade to
    denormal numbers, with which CPUs are slow.
    """
    out = {}
    for name, old in state.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        value = np.asarray(rng.standard_normal(tuple(old.shape)), dtype=np.float32)
        if ".norm." in name:
            value = (1 if name.endswith(("weight", "running_var")) else 0) + 0.05 * np.abs(value)
        elif value.ndim > 1:
            value *= np.sqrt(2 / np.prod(value.shape[1:]))
            for pattern, gain in _GAINS:
                value *= gain if re.search(pattern, name) else 1
        else:
            value *= 0.01
        out[name] = torch.from_numpy(np.asarray(value, dtype=np.float32)).to(old.dtype)
    return out


def make_images(count: int, height: int, width: int) -> list[dict[str, Any]]:
    """Return images of smooth colour patches with noise and with eight boxes each.

    Returns:
        For each image `image` (float Tensor[3, height, width] in 0..255), `height`, `width`, `boxes` (Tensor[8, 4])
        and `classes` (Tensor[8], values below 64).
    """
    batch = []
    for i in range(count):
        rng = np.random.default_rng(i)
        patches = (max(1, height // 32), max(1, width // 32))
        coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, *patches)).astype(np.float32))
        image = nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        image += torch.from_numpy(rng.normal(0, 12, (3, height, width)).astype(np.float32))
        corner = rng.uniform(0, 0.6, (8, 2))
        size = rng.uniform(0.05, 0.4, (8, 2))
        boxes = np.concatenate([corner, corner + size], 1) * [width, height, width, height]
        batch.append(
            {
                "image": image.clamp(0, 255),
                "height": height,
                "width": width,
                "boxes": torch.tensor(boxes, dtype=torch.float32),
                "classes": torch.arange(8) * 9,
            }
        )
    return batch


def model_inputs(images: list[dict[str, Any]], num_classes: int) -> list[dict[str, Any]]:
    """Return what `make_images` made as inputs of a detector, with `instances` for training whose masks are boxes."""
    inputs = []
    for x in images:
        rings = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in x["boxes"].tolist()]
        target = Instances(
            tuple(x["image"].shape[1:]),
            gt_boxes=Boxes(x["boxes"]),
            gt_masks=PolygonMasks(rings),
            gt_classes=x["classes"] % num_classes,
        )
        inputs.append({"image": x["image"], "height": x["height"], "width": x["width"], "instances": target})
    return inputs


def fix_work(model: GeneralizedRCNN, image: dict[str, Any]) -> None:
    """Make a detector do the same work whatever its weights are. Its predictions mean nothing afterwards.

    The NMS of the proposals removes nothing, and its result is replaced by fixed boxes, so that all detectors' heads
    see equally many boxes of the same sizes. The score threshold is chosen on `image` so that twice as many scores pass
    as there may be detections, and the NMS of the detections removes nothing either.

    Args:
        model: The detector, which is left in evaluation mode.
        image: A model input.
    """
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.nms_thresh, rpn.min_box_size, heads.nms_thresh = 1.0, -1.0, 1.0

    def replace_proposals(_: nn.Module, inputs: tuple[Any, ...], output: tuple[list[Instances], Any]) -> Any:
        count = rpn.post_nms_topk[0 if rpn.training else 1]
        return [_proposals(count, size, model.device) for size in inputs[0].image_sizes], output[1]

    stages: list[Tensor] = []
    rpn.register_forward_hook(replace_proposals)
    hooks = [
        stage.predictor.register_forward_hook(lambda _, __, output: stages.append(heads.class_scores(output[0])))
        for stage in heads.stages
    ]
    model.eval()
    with torch.no_grad():
        model([image])
    for hook in hooks:
        hook.remove()
    scores = torch.stack(stages).mean(0)[:, :-1].flatten()
    wanted = 2 * heads.max_detections if heads.max_detections > 0 else 200
    best = scores.topk(min(wanted + 1, len(scores))).values
    heads.score_thresh = float(best[-1]) if len(best) > wanted else -1.0


def _proposals(count: int, size: tuple[int, int], device: torch.device) -> Instances:
    """Return boxes within the image, of all sizes from 16 pixels to the image's short edge."""
    rng = np.random.default_rng(count)
    sides = np.exp(rng.uniform(np.log(min(16, *size)), np.log(min(size)), (count, 2)))
    corners = rng.uniform(0, 1, (count, 2)) * (np.array([size[1], size[0]]) - sides)
    boxes = torch.from_numpy(np.concatenate([corners, corners + sides], axis=1).astype(np.float32)).to(device)
    return Instances(size, proposal_boxes=Boxes(boxes), objectness_logits=torch.linspace(5, -5, count, device=device))
