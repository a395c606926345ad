"""Mixed precision: a context in which a model computes in half precision where that is safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

__all__ = ["autocast", "has_bfloat16", "is_float32_inside", "no_grad_between"]

# What autocast computes in half precision on a CPU, and a detector may use.
_PRODUCTS = {
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
    *(F.linear, F.scaled_dot_product_attention),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm),
}
_in_float32: ContextVar[bool] = ContextVar("_in_float32", default=False)


def autocast(device: str | torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return torch's autocast context for a device, or one that does nothing.

    On a CPU without instructions for bfloat16, convolutions and matrix products are computed in float32, from operands
    that have been rounded to bfloat16, and their results are rounded to bfloat16. Instructions for bfloat16 accumulate
    in float32 as well, so that each product is the same up to the order of its sum. One thing differs: the gradients of
    a weight that is used several times, such as the RPN's, are added in float32, and by torch's autocast in bfloat16.
    PyTorch's own kernels for such a CPU are many times slower than those for float32.

    Args:
        device: the model's device.
        dtype: `torch.float16`, `torch.bfloat16`, or None for single precision.
    """
    if dtype is None:
        return nullcontext()
    kind = torch.device(device).type
    if kind == "cpu" and dtype == torch.bfloat16 and not has_bfloat16():
        return _bfloat16_in_float32()
    return torch.autocast(kind, dtype)


@cache
def has_bfloat16() -> bool:
    """Return whether oneDNN, which computes PyTorch's convolutions on CPUs, has fast kernels for bfloat16 here."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_float32_inside(x: Tensor) -> bool:
    """Return whether a convolution computes in float32 with a map, whose dtype may be bfloat16 in `autocast`."""
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and _in_float32.get() and _casts_to_bfloat16())


@contextmanager
def _bfloat16_in_float32() -> Iterator[None]:
    token = _in_float32.set(True)
    try:
        with torch.autocast("cpu", torch.bfloat16), _ProductsInFloat32():
            yield
    finally:
        _in_float32.reset(token)


class _ProductsInFloat32(TorchFunctionMode):
    """Compute in float32 the convolutions and matrix products that autocast would compute in bfloat16."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _PRODUCTS or not _casts_to_bfloat16():
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, _rounded, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            result = func(*args, **kwargs)
        return result.to(torch.bfloat16) if result.dtype == torch.float32 else result


def _casts_to_bfloat16() -> bool:
    """Return whether autocast is on here; a nested context may have turned it off or chosen float16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _rounded(x: Tensor) -> Tensor:
    """Return float32 values that bfloat16 can hold; autocast leaves other dtypes, such as float64, as they are."""
    return x.to(torch.bfloat16).float() if x.dtype in (torch.float32, torch.float16, torch.bfloat16) else x


@contextmanager
def no_grad_between() -> Iterator[None]:
    """Compute without gradients inside of a step that needs gradients of the same weights later.

    autocast keeps the weights that it converts. In older versions of torch, such as 2.6, it also keeps those that it
    converts without gradients, and the later computation would then give these weights no gradients.
    """
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
