"""The promises of a pyramid, as a check to run on one of your own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import UserError
from ..structures import ShapeSpec
from .base import Pyramid

__all__ = ["check_pyramid"]

_TRUNK = {f"res{level}": ShapeSpec(channels=4 * level, stride=2**level) for level in (2, 3, 4, 5)}


def check_pyramid(build: Callable[[Mapping[str, ShapeSpec]], Pyramid], *, compiled: bool = True) -> None:
    """Hold a pyramid to what detectors and trainers rely on; returns when all of it is kept.

    Outputs have the names, widths and sizes that `output_shape` says, for even and odd images; trunk maps are left
    as they are; the gradient reaches every parameter and every map that is used, finite and not all zero (else
    training in several processes stops); outputs under bfloat16 autocast stay close; `torch.compile` finds no
    graph break, and the compiled outputs agree.

    Args:
        build: makes the pyramid from a trunk's description, e.g. `lambda shape: MyPyramid(shape, 16)`.
        compiled: False leaves out the last point, which takes the longest.

    Raises:
        UserError (a ValueError): the first promise that is broken.

    Example:
        >>> from sn2fpn.pyramids import FPN
        >>> from sn2fpn.pyramids.checks import check_pyramid
        >>> check_pyramid(lambda shape: FPN(shape, 16), compiled=False)
    """
    pyramid = build(_TRUNK)
    name = type(pyramid).__name__
    for size in ((128, 96), (131, 93)):
        _check_shapes(pyramid, name, size)
    _check_gradients(pyramid, name)
    maps = _maps((96, 65))
    expected = pyramid(maps)
    with torch.autocast("cpu", torch.bfloat16):
        found = pyramid(maps)
    _check_close(found, expected, 0.05, f"{name} under bfloat16 autocast")
    if compiled:
        pyramid.eval()
        try:
            found = torch.compile(pyramid, fullgraph=True, backend="aot_eager")(maps)
        except torch._dynamo.exc.TorchDynamoException as e:
            raise UserError(f"{name} does not compile in one graph: {str(e).strip().splitlines()[0]}") from e
        _check_close(found, pyramid(maps), 1e-3, f"{name}, compiled")


def _maps(size: tuple[int, int]) -> dict[str, Tensor]:
    """As a trunk makes them from two images of (height, width): each halving rounds up."""
    return {n: torch.randn(2, s.channels, *(math.ceil(side / s.stride) for side in size)) for n, s in _TRUNK.items()}


def _check_shapes(pyramid: Pyramid, name: str, size: tuple[int, int]) -> None:
    maps = _maps(size)
    kept = {key: x.clone() for key, x in maps.items()}
    outputs, described = pyramid(maps), pyramid.output_shape()
    if list(outputs) != list(described):
        raise UserError(f"{name}: output_shape names {list(described)}, found {list(outputs)}")
    for key, spec in described.items():
        expected = (2, spec.channels, *(math.ceil(side / spec.stride) for side in size))
        if tuple(outputs[key].shape) != expected:
            raise UserError(
                f"{name}: {key} of a {size[0]}x{size[1]} image should be {expected}, found"
                f" {tuple(outputs[key].shape)} (upsample to the size of the receiving map)"
            )
    for key, x in maps.items():
        if not torch.equal(x, kept[key]):
            raise UserError(f"{name} changes the trunk's map {key} in place; add with `a + b`, not `a += b`")


def _check_gradients(pyramid: Pyramid, name: str) -> None:
    maps = {key: x.requires_grad_() for key, x in _maps((128, 96)).items()}
    sum((p * torch.randn_like(p)).sum() for p in pyramid(maps).values()).backward()
    used = {key: x for key, x in maps.items() if key in pyramid.in_features}
    for key, tensor in [*pyramid.named_parameters(), *used.items()]:
        if tensor.requires_grad and (tensor.grad is None or not tensor.grad.any()):
            raise UserError(f"{name}: no gradient reaches {key}; leave out what takes no part")
        if tensor.grad is not None and not tensor.grad.isfinite().all():
            raise UserError(f"{name}: the gradient of {key} is not finite")


def _check_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], share: float, what: str) -> None:
    for key, x in expected.items():
        difference = float((found[key].float() - x).norm().detach() / x.norm().clamp(min=1e-12).detach())
        if not difference <= share:
            raise UserError(f"{what}: {key} differs by {difference:.1%}, expected at most {share:.1%}")
