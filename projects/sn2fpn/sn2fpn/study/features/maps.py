"""The feature maps of one image before and after fusion, and what an output map owes to coarser maps of the trunk.

For the output p_l, the trunk's maps fall into two groups: the coarser ones, C_k with k > l, and the others, k <= l. Let
p_l(S) be the output when all maps outside S are zero. The contributions of the two groups are

    coarse_l = 1/2 [p_l(all) - p_l(others)] + 1/2 [p_l(coarser) - p_l(none)]
    own_l    = 1/2 [p_l(all) - p_l(coarser)] + 1/2 [p_l(others) - p_l(none)]

They are the Shapley values of a game of two players (Shapley, "A value for n-person games", 1953) and add up to
p_l(all) - p_l(none) in every pyramid. The output p_l(none), which comes from biases alone, belongs to neither. If the
pyramid is affine (FPN, SNI), both are exact: coarse_l is what the upsampled map adds, own_l what the lateral map adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...evaluation.evaluator import evaluation_mode
from ...modeling import GeneralizedRCNN
from ...pyramids import Pyramid
from .measures import Regions, agreement, coarse_share, localisation, regions

__all__ = ["LevelMaps", "Measures", "Response", "look", "measure", "respond"]


class Response(NamedTuple):
    """An output map of a pyramid and its two contributions, all of the same shape (N, W, H, W')."""

    output: Tensor
    own: Tensor  # what the output owes to the trunk's maps of its own and finer levels
    coarse: Tensor | None  # what it owes to coarser maps of the trunk; None where there are none


@torch.no_grad()
def respond(pyramid: Pyramid, features: Mapping[str, Tensor]) -> list[Response]:
    """Return the outputs of a pyramid at the trunk's levels, each with its contributions.

    Only the pyramid's outputs for given maps are used, so that every pyramid is treated alike. The pyramid runs twice
    per level. The output p6 has no map of the trunk at its level, hence no response.

    Args:
        pyramid: A pyramid in evaluation mode, so that its norms are fixed maps. A trunk attached to it is not run.
        features: The trunk's maps by name, (N, C_l, H_l, W_l), from fine to coarse.
    """
    names = pyramid.in_features

    def run(present: Sequence[str]) -> list[Tensor]:
        maps = {name: features[name] if name in present else torch.zeros_like(features[name]) for name in names}
        return list(pyramid(maps).values())[: len(names)]

    responses = []
    with _without_trunk(pyramid):
        for i, (output, rest) in enumerate(zip(run(names), run(()))):
            if i + 1 == len(names):
                responses.append(Response(output, output - rest, None))
                continue
            without_coarse, coarse_alone = run(names[: i + 1])[i], run(names[i + 1 :])[i]
            coarse = (output - without_coarse + coarse_alone - rest) / 2
            own = (output - coarse_alone + without_coarse - rest) / 2
            responses.append(Response(output, own, coarse))
    return responses


@contextmanager
def _without_trunk(pyramid: Pyramid) -> Iterator[None]:
    """Let the pyramid take maps instead of images inside this context."""
    trunk, pyramid.bottom_up = pyramid.bottom_up, None
    try:
        yield
    finally:
        pyramid.bottom_up = trunk


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
    box_levels = pooler.levels(boxes) + pooler.min_level
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
