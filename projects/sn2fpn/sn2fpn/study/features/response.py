"""What an output map of any pyramid owes to coarser maps of the trunk.

For the output p_l, the trunk's maps fall into two groups: the coarser ones, C_k with k > l, and the others, k <= l. Let
p_l(S) be the output when all maps outside S are zero. The contributions of the two groups are

    coarse_l = 1/2 [p_l(all) - p_l(others)] + 1/2 [p_l(coarser) - p_l(none)]
    own_l    = 1/2 [p_l(all) - p_l(coarser)] + 1/2 [p_l(others) - p_l(none)]

They are the Shapley values of a game of two players (Shapley, "A value for n-person games", 1953) and add up to
p_l(all) - p_l(none) in every pyramid. The output p_l(none), which comes from biases alone, belongs to neither. If the
pyramid is affine (FPN, SNI), both are exact: coarse_l is what the upsampled map adds, own_l what the lateral map adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ...pyramids import Pyramid

__all__ = ["Response", "respond"]


class Response(NamedTuple):
    """An output map of a pyramid and its two contributions, all of the same shape (N, W, H, W')."""

    output: Tensor
    own: Tensor  # what the output owes to the trunk's maps of its own and finer levels
    coarse: Tensor | None  # what it owes to coarser maps of the trunk; None where there are none


@torch.no_grad()
def respond(pyramid: Pyramid, features: Mapping[str, Tensor]) -> list[Response]:
    """Return the outputs of a pyramid at the trunk's levels, each with its contributions.

    Only the pyramid's outputs for given maps are used, so that every pyramid is treated alike. The pyramid runs twice
    per level.

    Args:
        pyramid: A pyramid in evaluation mode, so that its norms are fixed maps. A trunk attached to it is not run.
        features: The trunk's maps by name, (N, C_l, H_l, W_l).

    Returns:
        A response for each map that the pyramid reads, from fine to coarse. The output p6 has no map of the trunk at
        its level, hence no response.
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
