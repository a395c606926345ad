"""One picture in one model: the maps of each level before and after fusion, and what fusion made them of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...evaluation.evaluator import evaluation_mode
from ...modeling import GeneralizedRCNN
from ...modeling.roi_heads.pooler import assign_levels
from .measures import Regions, agreement, coarse_share, localisation, regions
from .response import Response, respond

__all__ = ["LevelMaps", "Measures", "look", "measure"]

Measures = dict[str, float | None]


@dataclass(frozen=True)
class LevelMaps:
    """The maps of one picture at the level of stride 2^l, without the batch axis.

    Attributes:
        name: of the pyramid's output, e.g. "p3".
        stride: picture pixels per map pixel.
        before: (C_l, H, W), the trunk's map that the pyramid receives.
        after: (W, H, W), the pyramid's output.
        own, coarse: (W, H, W), its contributions (`respond`); `coarse` is None at the coarsest level.
        boxes: (K, 4) in pixels of the model's input: the objects whose size belongs to the level (RoI pooler's rule).
        where: their areas in the maps' cells.
    """

    name: str
    stride: int
    before: Tensor
    after: Tensor
    own: Tensor
    coarse: Tensor | None
    boxes: Tensor
    where: Regions


@torch.no_grad()
def look(model: GeneralizedRCNN, x: Mapping[str, Any]) -> list[LevelMaps]:
    """The maps of a picture, fine to coarse, at all levels that the trunk and the pyramid have in common.

    Args:
        model: a detector with any pyramid; it keeps its mode.
        x: a model input, with `instances` (`gt_boxes`) for objects, see `GeneralizedRCNN.forward`.
    """
    with evaluation_mode(model):
        images = model.preprocess_image([x])
        pyramid = model.backbone
        features = pyramid.bottom_up(images.tensor)
        responses = respond(pyramid, features)
    boxes = x["instances"].gt_boxes.tensor if "instances" in x else torch.empty(0, 4)
    pooler = model.roi_heads.box_pooler
    box_levels = assign_levels(boxes, pooler.min_level, pooler.max_level) + pooler.min_level
    return [
        _level(level, features[name], response, boxes[box_levels == level], images.image_sizes[0])
        for level, name, response in zip(pyramid.levels, pyramid.in_features, responses)
    ]


def _level(level: int, before: Tensor, response: Response, boxes: Tensor, image_size: tuple[int, int]) -> LevelMaps:
    after, own, coarse = (None if m is None else m[0] for m in response)
    where = regions(boxes, image_size, tuple(after.shape[1:]), 2**level)
    return LevelMaps(f"p{level}", 2**level, before[0], after, own, coarse, boxes, where)


def measure(maps: LevelMaps) -> Measures:
    """All measures of one level on one picture; None where one is not defined.

    Returns:
        {"localisation" (of the output), "localisation_before" (of the trunk's map), "coarse_share", "agreement"
        (whole picture), "agreement_inside", "agreement_outside" (of the level's boxes), "boxes" (their number)}.
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
