"""What a pyramid's output map owes to coarser trunk maps, for any pyramid: attribution by its inputs.

For the output p_l of a pyramid F, the trunk's maps fall into two groups: the coarser ones, C_k with k > l, and the
others, k <= l. p_l(S) is the output when all maps outside S are zero. The two groups' contributions are

    coarse_l = 1/2 [p_l(all) - p_l(others)] + 1/2 [p_l(coarser) - p_l(none)]
    own_l    = 1/2 [p_l(all) - p_l(coarser)] + 1/2 [p_l(others) - p_l(none)]

the Shapley values of a game of two players (Shapley, "A value for n-person games", 1953): they add up to
p_l(all) - p_l(none) in every pyramid. p_l(none), what biases alone give, belongs to neither. Where F is affine (FPN,
SNI), both are exact: coarse_l is what the upsampled map adds, own_l what the lateral does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...pyramids import Pyramid

__all__ = ["Response", "respond"]


class Response(NamedTuple):
    """An output map (Tensor[N, W, H, W']), and its two contributions, of the same shape."""

    output: Tensor
    own: Tensor  # from trunk maps of its own and finer levels
    coarse: Tensor | None  # from coarser ones; None: the trunk has none


@torch.no_grad()
def respond(pyramid: Pyramid, features: Sequence[Tensor]) -> list[Response]:
    """The outputs of a pyramid on the trunk's levels, each with its contributions.

    Nothing is asked of the pyramid but `fuse`, so that every one is treated alike; it runs twice per level.

    Args:
        pyramid: in evaluation mode, so that its norms are fixed maps.
        features: the trunk's maps that it reads, fine to coarse, (N, C_l, H_l, W_l).

    Returns:
        A response per map of `features`; p6, which no trunk map stands beside, has none.
    """
    absent = [torch.zeros_like(x) for x in features]
    outputs = pyramid.fuse(list(features))
    at_rest = pyramid.fuse(list(absent))
    responses = []
    for i, (output, rest) in enumerate(zip(outputs[: len(features)], at_rest)):
        if i + 1 == len(features):
            responses.append(Response(output, output - rest, None))
            continue
        without_coarse = pyramid.fuse([*features[: i + 1], *absent[i + 1 :]])[i]
        coarse_alone = pyramid.fuse([*absent[: i + 1], *features[i + 1 :]])[i]
        coarse = (output - without_coarse + coarse_alone - rest) / 2
        own = (output - coarse_alone + without_coarse - rest) / 2
        responses.append(Response(output, own, coarse))
    return responses
