"""The promises of a pyramid as checks, for the pyramids of this package and for those of its users."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import ArgumentError, UserError
from ..structures import ShapeSpec
from .base import Pyramid

__all__ = ["PROMISES", "TRUNK", "check_pyramid", "trunk_maps"]

TRUNK = {f"res{level}": ShapeSpec(channels=4 * level, stride=2**level) for level in (2, 3, 4, 5)}
"""The description of a small trunk's maps, on which pyramids are checked."""


def check_pyramid(build: Callable[[Mapping[str, ShapeSpec]], Pyramid], *, compiled: bool = True) -> None:
    """Check that a pyramid keeps what detectors and trainers rely on; return when it keeps all of it.

    - Outputs have the names, widths and sizes of `output_shape` for even and odd images, and the trunk's maps are
      left as they are.
    - The gradient reaches every parameter and every map that is used, and is finite and not all zero. Otherwise
      training in several processes stops. What is learned is a registered parameter, and not a tensor or a module in
      an attribute or a list, which would neither be trained nor saved.
    - Outputs under autocast to bfloat16 and to float16 stay close, and their gradients are finite.
    - Outputs in the memory format "channels last" are equal, and have that format.
    - Nothing is copied between the CPU and another device, for which a GPU would wait, and which no CUDA graph can
      hold.
    - `torch.compile` finds no graph break, and the compiled outputs agree.

    Args:
        build: makes the pyramid from a trunk's description, e.g. `lambda shape: MyPyramid(shape, 16)`. It is
            called once for each check.
        compiled: False leaves out the last check, which takes the longest.

    Raises:
        UserError (a ValueError): the first promise that is broken, or the error that building or calling the pyramid
            ended in.

    Example:
        >>> from sn2fpn.pyramids import FPN, check_pyramid
        >>> check_pyramid(lambda shape: FPN(shape, 16), compiled=False)
    """
    if isinstance(build, nn.Module) or not callable(build):
        raise ArgumentError(
            "build",
            "expected a function that makes the pyramid from the maps of a trunk, such as"
            f" `lambda shape: FPN(shape, 16)`; found a {type(build).__name__}",
        )
    for promise in PROMISES:
        if compiled or promise is not check_compilation:
            with _user_errors("build"):
                pyramid = build(TRUNK)
            if not isinstance(pyramid, nn.Module) or not hasattr(pyramid, "output_shape"):
                raise ArgumentError("build", f"expected it to make a Pyramid, found a {type(pyramid).__name__}")
            with _user_errors(f"{type(pyramid).__name__}, {promise.__name__}"):
                promise(pyramid)


@contextmanager
def _user_errors(where: str) -> Iterator[None]:
    """Turn any error of a user's pyramid into a UserError that says where it arose."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{where}: {type(e).__name__}: {e}") from e


def check_shapes(pyramid: Pyramid) -> None:
    """Check names, widths and sizes of the outputs for several image sizes, and that the inputs are not changed."""
    name = type(pyramid).__name__
    for size in ((128, 192), (131, 93), (33, 64)):
        maps = trunk_maps(size)
        kept = {key: x.clone() for key, x in maps.items()}
        outputs, described = pyramid(maps), pyramid.output_shape()
        if not isinstance(outputs, Mapping):
            raise UserError(f"{name}: expected a dict of maps, found a {type(outputs).__name__}")
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


def check_gradients(pyramid: Pyramid) -> None:
    """Check that every parameter and every map that is used receives a gradient."""
    name = type(pyramid).__name__
    _check_registration(pyramid)
    for parameter in pyramid.parameters():
        if not parameter.any():  # What starts at zero, such as offsets, would hide what lies before it.
            nn.init.normal_(parameter, std=0.1)
    maps = {key: x.requires_grad_() for key, x in trunk_maps((96, 64)).items()}
    sum((p * torch.randn_like(p)).sum() for p in pyramid(maps).values()).backward()
    used = {key: x for key, x in maps.items() if key in pyramid.in_features}
    for key, tensor in [*pyramid.named_parameters(), *used.items()]:
        if tensor.requires_grad and (tensor.grad is None or not tensor.grad.any()):
            raise UserError(f"{name}: no gradient reaches {key}; leave out what takes no part")
        if tensor.grad is not None and not tensor.grad.isfinite().all():
            raise UserError(f"{name}: the gradient of {key} is not finite")


def _check_registration(pyramid: Pyramid) -> None:
    """Check that no module keeps a tensor to be learned that `parameters()` does not give to the optimizer."""
    known = set(map(id, pyramid.parameters()))
    for prefix, module in pyramid.named_modules():
        for attribute, value in {**module._buffers, **vars(module)}.items():
            for kept in tree_leaves(value):
                tensors = kept.parameters() if isinstance(kept, nn.Module) else [kept]
                if any(isinstance(t, Tensor) and t.requires_grad and t.is_leaf and id(t) not in known for t in tensors):
                    where = f"{prefix}.{attribute}".lstrip(".")
                    raise UserError(
                        f"{type(pyramid).__name__} keeps a {type(kept).__name__} in `{where}` that is no parameter of "
                        "it, so that it is neither trained nor saved; wrap a tensor in nn.Parameter, and a list in "
                        "nn.ParameterList or nn.ModuleList"
                    )


def check_mixed_precision(pyramid: Pyramid) -> None:
    """Check outputs and gradients under autocast against those in full precision."""
    name, maps = type(pyramid).__name__, trunk_maps((96, 65))
    for module in pyramid.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()  # What it drops would differ from call to call.
    expected = pyramid(maps)
    for dtype, share in ((torch.bfloat16, 0.03), (torch.float16, 0.004)):
        pyramid.zero_grad()
        with torch.autocast("cpu", dtype):
            found = pyramid(maps)
            loss = sum(p.float().square().mean() for p in found.values())
        _check_close(found, expected, share, f"{name} under autocast to {dtype}")
        loss.backward()
        for key, parameter in pyramid.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise UserError(f"{name} under autocast to {dtype}: the gradient of {key} is not finite")


def check_memory_formats(pyramid: Pyramid) -> None:
    """Check that maps in the memory format "channels last" give equal outputs of that format."""
    name, maps = type(pyramid).__name__, trunk_maps((96, 65))
    expected = pyramid.eval()(maps)
    maps = {key: x.contiguous(memory_format=torch.channels_last) for key, x in maps.items()}
    found = pyramid.to(memory_format=torch.channels_last)(maps)
    _check_close(found, expected, 1e-4, f"{name} in the memory format channels_last")
    for key, x in found.items():
        if not x.is_contiguous(memory_format=torch.channels_last):
            raise UserError(f"{name}: {key} loses the memory format channels_last, so the heads would convert it")


def check_single_device(pyramid: Pyramid) -> None:
    """Check on torch's "meta" device that the forward pass uses no tensor of the CPU, except for single numbers."""
    name = type(pyramid).__name__
    maps = {key: x.to("meta") for key, x in trunk_maps((96, 65)).items()}
    pyramid = pyramid.to("meta")
    with _Devices() as devices:
        pyramid(maps)
    if devices.mixed:
        raise UserError(
            f"{name}: {devices.mixed} reads a tensor of the CPU, for which a GPU waits; make it on the device of the "
            "maps, as in torch.arange(n, device=x.device)"
        )


class _Devices(TorchDispatchMode):
    """Remembers the first operation that makes a tensor on "meta" from a tensor on the CPU that is no single number."""

    mixed = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        of_cpu = [x for x in tensors if x.device.type == "cpu" and x.dim()]
        if of_cpu and isinstance(found, Tensor) and found.device.type == "meta":
            self.mixed = self.mixed or str(func)
        return found


def check_compilation(pyramid: Pyramid) -> None:
    """Check that the pyramid compiles as one graph, forward and backward."""
    name, maps = type(pyramid.eval()).__name__, trunk_maps((64, 65))
    torch.compiler.reset()
    try:
        found = torch.compile(pyramid, fullgraph=True, backend="aot_eager")(maps)
    except torch._dynamo.exc.TorchDynamoException as e:
        raise UserError(f"{name} does not compile in one graph: {str(e).strip().splitlines()[0]}") from e
    _check_close(found, pyramid(maps), 1e-4, f"{name}, compiled")
    sum(p.sum() for p in found.values()).backward()


PROMISES = (
    *(check_shapes, check_gradients, check_mixed_precision, check_memory_formats, check_single_device),
    check_compilation,
)
"""The checks of `check_pyramid`; each takes a fresh pyramid on `TRUNK`."""


def trunk_maps(size: tuple[int, int], batch: int = 2) -> dict[str, Tensor]:
    """Return random maps as the trunk makes them from images of (height, width), where each halving rounds up."""
    return {
        name: torch.randn(batch, spec.channels, *(math.ceil(side / spec.stride) for side in size))
        for name, spec in TRUNK.items()
    }


def _check_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], share: float, what: str) -> None:
    for key, x in expected.items():
        difference = float((found[key].float() - x).norm().detach() / x.norm().clamp(min=1e-12).detach())
        if not difference <= share:
            raise UserError(f"{what}: {key} differs by {difference:.2%}, expected at most {share:.2%}")
