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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
def respond(pyramid: Pyramid, features: Mapping[str, Tensor]) -> list[Response]:
    """The outputs of a pyramid on the trunk's levels, each with its contributions.

    Nothing is asked of the pyramid but its outputs for given maps, so that every one is treated alike; it runs twice
    per level.

    Args:
        pyramid: in evaluation mode, so that its norms are fixed maps; a trunk attached to it is passed over.
        features: the trunk's maps by name, (N, C_l, H_l, W_l).

    Returns:
        A response per map that the pyramid reads, fine to coarse; p6, which no trunk map stands beside, has none.
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
    """The pyramid takes maps instead of images."""
    trunk, pyramid.bottom_up = pyramid.bottom_up, None
    try:
        yield
    finally:
        pyramid.bottom_up = trunk
