"""Read pickled weights, bare or in torch's archives, without executing anything that the file asks for.

A pickle is a program: it names functions and calls them. Here the only names it may use are those of numpy
arrays and plain containers, and each stands for code of this file, never for the function it names. So the
result is plain types and tensors, whatever the file holds.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

__all__ = ["RefusedGlobal", "safe_torch_load", "safe_unpickle"]


class RefusedGlobal(Exception):
    """The pickle names something other than arrays and containers; `str(error)` is that name."""


def safe_unpickle(file: IO[bytes]) -> Any:
    """The pickled value with numpy arrays as tensors; strings of Python 2 are read as Latin-1.

    Raises:
        RefusedGlobal: the pickle names a function or class that weights do not need.
        Exception: of many types, when the pickle is damaged.
    """
    return _finished(_SafeUnpickler(file, encoding="latin1").load(), {})


def safe_torch_load(path: Path) -> Any:
    """What `torch.save` wrote, tensors on the CPU, numpy arrays as tensors. Raises as `safe_unpickle`.

    torch's own safe reader does the work; it too gets stand-ins for numpy.
    """
    known: list[Any] = [(kind, f"{__name__}.{kind.__name__}") for kind in (_Array, _DType)]
    for (module, name), stand in _ALLOWED.items():
        if module.startswith("numpy"):
            modules = {module, module.replace("numpy.core", "numpy._core")}
            known += [(stand, f"{spelling}.{name}") for spelling in modules]
    try:
        with torch.serialization.safe_globals(known):
            return _finished(torch.load(path, map_location="cpu", weights_only=True), {})
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        if refused:
            raise RefusedGlobal(refused.group(1)) from error
        cause = re.search(r"WeightsUnpickler error: (.*)", str(error))
        raise ValueError(cause.group(1) if cause else str(error)) from error


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if allowed is None:
            raise RefusedGlobal(f"{module}.{name}")
        return allowed


class _Stand:
    """Stands for a callable that a pickle names; a pickle cannot change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("a pickle tried to change what it may only call")


class _DType:
    """`numpy.dtype` in a pickle: numbers only."""

    def __init__(self, name: Any) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biuf":
            raise ValueError(f"arrays of numbers expected, found dtype {name!r}")

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """`numpy.ndarray` in a pickle: filled by `__setstate__`."""

    tensor: torch.Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran_order, raw = state
        self.tensor = _tensor(raw, dtype, shape, "F" if fortran_order else "C")


def _bytes(raw: Any) -> bytes:
    return raw.encode("latin1") if isinstance(raw, str) else bytes(memoryview(raw))


def _tensor(raw: Any, dtype: Any, shape: Any, order: str) -> torch.Tensor:
    if not isinstance(dtype, _DType):
        raise ValueError("an array without a dtype")
    data, shape = _bytes(raw), tuple(int(n) for n in shape)
    if min(shape, default=0) < 0 or len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise ValueError(f"{len(data)} bytes do not fill an array of {shape} {dtype.dtype}")
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    return torch.from_numpy(array.astype(dtype.dtype.newbyteorder("="), order="C"))


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: str, *_axes: Any) -> _Array:
    array = _Array()
    array.tensor = _tensor(raw, dtype, shape, order if order in ("C", "F") else "C")
    return array


def _scalar(dtype: Any, raw: Any) -> float | int | bool:
    return _tensor(raw, dtype, (), "C").item()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Stand(_Array),
    ("numpy", "dtype"): _Stand(lambda name, *_: _DType(name)),
    ("numpy.core.multiarray", "_reconstruct"): _Stand(lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _Stand(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Stand(_frombuffer),
    ("_codecs", "encode"): _Stand(lambda text, *_: text.encode("latin1")),
    ("collections", "OrderedDict"): _Stand(lambda *items: OrderedDict(*items)),
}


def _finished(value: Any, seen: dict[int, Any]) -> Any:
    """`value` with stand-ins replaced; `seen` keeps shared containers from being walked twice."""
    if isinstance(value, _Array):
        if value.tensor is None:
            raise ValueError("an array without data")
        return value.tensor
    if isinstance(value, _DType | _Stand):
        raise ValueError("a bare type among the values")
    if isinstance(value, dict | list | tuple | set | frozenset):
        if id(value) not in seen:
            if isinstance(value, dict):
                seen[id(value)] = {k: _finished(v, seen) for k, v in value.items()}
            else:
                seen[id(value)] = type(value)(_finished(v, seen) for v in value)
        return seen[id(value)]
    return value
