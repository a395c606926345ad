"""The feature maps of one image in one model: each level before and after fusion, and what fusion made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...evaluation.evaluator import evaluation_mode
from ...modeling import GeneralizedRCNN
from ...modeling.roi_heads.pooler import assign_levels
from .measures import Regions, agreement, coarse_share, localisation, regions
from .response import respond

__all__ = ["LevelMaps", "Measures", "look", "measure"]

Measures = dict[str, float | None]


@dataclass(frozen=True)
class LevelMaps:
    """The maps of one image at one level, without the batch axis."""

    name: str  # of the pyramid's output, for example "p3"
    stride: int  # image pixels per map pixel
    before: Tensor  # (C_l, H, W), the map that the pyramid receives from the trunk
    after: Tensor  # (W, H, W'), the pyramid's output
    own: Tensor  # what the output owes to its own and finer levels (`respond`)
    coarse: Tensor | None  # what it owes to coarser levels; None at the coarsest level
    boxes: Tensor  # (K, 4) in pixels of the model's input, of the objects that the RoI pooler assigns to the level
    where: Regions  # the areas of the maps' pixels inside and outside of these boxes


@torch.no_grad()
def look(model: GeneralizedRCNN, x: Mapping[str, Any]) -> list[LevelMaps]:
    """Return the maps of an image, from fine to coarse, at all levels that the trunk and the pyramid share.

    Args:
        model: A detector with any pyramid. It keeps its mode.
        x: A model input (see `GeneralizedRCNN.forward`), with `instances` that have `gt_boxes` if there are objects.
    """
    with evaluation_mode(model):
        images = model.preprocess_image([x])
        pyramid = model.backbone
        features = pyramid.bottom_up(images.tensor)
        responses = respond(pyramid, features)
    boxes = x["instances"].gt_boxes.tensor if "instances" in x else torch.empty(0, 4)
    pooler = model.roi_heads.box_pooler
    box_levels = assign_levels(boxes, pooler.min_level, pooler.max_level) + pooler.min_level
    levels = []
    for source, (name, shape), response in zip(pyramid.in_features, pyramid.output_shape().items(), responses):
        after, own, coarse = (None if m is None else m[0] for m in response)
        mine = boxes[box_levels == math.log2(shape.stride)]
        where = regions(mine, images.image_sizes[0], tuple(after.shape[1:]), shape.stride)
        levels.append(LevelMaps(name, shape.stride, features[source][0], after, own, coarse, mine, where))
    return levels


def measure(maps: LevelMaps) -> Measures:
    """Return all measures of one level on one image, None where a measure is not defined.

    Returns:
        {"localisation" (of the output), "localisation_before" (of the trunk's map), "coarse_share", "agreement"
        (over the whole image), "agreement_inside" and "agreement_outside" (of the level's boxes), "boxes" (how many)}.
    """
    where = maps.where
    values: Measures = {
        "localisation": localisation(maps.after, where),
        "localisation_before": localisation(maps.before, where),
        "coarse_share": None,
        "agreement": None,
        "agreement_inside": None,
        "agreement_outside": None,
        "boxes": len(maps.boxes),
    }
    if maps.coarse is not None:
        values["coarse_share"] = coarse_share(maps.own, maps.coarse, where)
        for key, area in (("", where.whole), ("_inside", where.inside), ("_outside", where.outside)):
            values[f"agreement{key}"] = agreement(maps.own, maps.coarse, area)
    return values
