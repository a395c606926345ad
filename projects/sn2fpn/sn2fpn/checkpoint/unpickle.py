"""Read pickled weights, bare or in torch's archives, without executing anything that the file asks for.

A pickle is a program that names functions and calls them. Here it may only use the names that numpy arrays and plain
containers need, and each name stands for code in this module, never for the function of that name. The result
therefore consists of plain types and tensors, whatever the file holds.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .limits import DEEPEST, allowance, check_archive, check_pickle

__all__ = ["RefusedGlobal", "safe_torch_load", "safe_unpickle"]

_LEGACY_PICKLES = 5
"""A file of an older version of torch holds a number, a version, the system, the content and the storages' names."""


class RefusedGlobal(Exception):
    """A pickle names something that arrays and containers do not need; `str(error)` is that name."""


def safe_unpickle(path: Path) -> Any:
    """Return the pickled value in a file with numpy arrays as tensors. Strings of Python 2 are read as Latin-1.

    Raises:
        RefusedGlobal: the pickle names a function or class that weights do not need.
        Exception: the pickle is damaged or asks for too much (see `limits`); the type of the error varies.
    """
    content = path.read_bytes()
    check_pickle(io.BytesIO(content), len(content))
    return _Finisher(len(content)).finish(_SafeUnpickler(io.BytesIO(content), encoding="latin1").load())


def safe_torch_load(path: Path, legacy: bool = False) -> Any:
    """Return what `torch.save` wrote, with all tensors on the CPU and numpy arrays as tensors.

    torch's own safe reader does the work, with the same substitutes for numpy. Errors are those of `safe_unpickle`.

    Args:
        path: the file.
        legacy: whether it has the format of older versions of torch, and is no archive.
    """
    if legacy:
        content = io.BytesIO(path.read_bytes())
        for _ in range(_LEGACY_PICKLES):
            check_pickle(content, len(content.getbuffer()))
    else:
        check_archive(path)
    known: list[Any] = [(kind, f"{__name__}.{kind.__name__}") for kind in (_Array, _DType)]
    for (module, name), stand in _ALLOWED.items():
        if module.startswith("numpy"):
            modules = {module, module.replace("numpy.core", "numpy._core")}
            known += [(stand, f"{spelling}.{name}") for spelling in modules]
    try:
        with torch.serialization.safe_globals(known):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        if refused:
            raise RefusedGlobal(refused.group(1)) from error
        cause = re.search(r"WeightsUnpickler error: (.*)", str(error))
        raise ValueError(cause.group(1) if cause else str(error)) from error
    return _Finisher(path.stat().st_size).finish(loaded)


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if allowed is None:
            raise RefusedGlobal(f"{module}.{name}")
        return allowed


class _Substitute:
    """A substitute for a callable that a pickle names; the pickle cannot change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("the pickle tries to change what it may only call")


class _DType:
    """The substitute for `numpy.dtype` in a pickle. It accepts numbers only."""

    def __init__(self, name: Any) -> None:
        if not isinstance(name, str):
            raise ValueError(f"expected the name of a dtype, found a {type(name).__name__}")
        self.dtype = np.dtype(name)
        if self.dtype.kind not in "biuf":
            raise ValueError(f"expected arrays of numbers, found dtype {name!r}")

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """The substitute for `numpy.ndarray` in a pickle. `__setstate__` fills it."""

    tensor: torch.Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran_order, raw = state
        self.tensor = _tensor(raw, dtype, shape, "F" if fortran_order else "C")


def _bytes(raw: Any) -> bytes:
    return raw.encode("latin1") if isinstance(raw, str) else bytes(memoryview(raw))


def _tensor(raw: Any, dtype: Any, shape: Any, order: str) -> torch.Tensor:
    if not isinstance(dtype, _DType):
        raise ValueError("an array has no dtype")
    data, shape = _bytes(raw), tuple(int(n) for n in shape)
    if min(shape, default=0) < 0 or len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise ValueError(f"{len(data)} bytes do not fill an array of shape {shape} and type {dtype.dtype}")
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    return torch.from_numpy(array.astype(dtype.dtype.newbyteorder("="), order="C"))


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: str, *_axes: Any) -> _Array:
    array = _Array()
    array.tensor = _tensor(raw, dtype, shape, order if order in ("C", "F") else "C")
    return array


def _scalar(dtype: Any, raw: Any) -> float | int | bool:
    return _tensor(raw, dtype, (), "C").item()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Substitute(_Array),
    ("numpy", "dtype"): _Substitute(lambda name, *_: _DType(name)),
    ("numpy.core.multiarray", "_reconstruct"): _Substitute(lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _Substitute(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Substitute(_frombuffer),
    ("_codecs", "encode"): _Substitute(lambda text, *_: text.encode("latin1")),
    ("collections", "OrderedDict"): _Substitute(lambda *items: OrderedDict(*items)),
}


class _Finisher:
    """Replaces substitutes by what they stand for, and checks tensors.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self._left = allowance(size)
        self._size = size
        self._seen: dict[int, Any] = {}  # keeps shared containers from being walked twice

    def finish(self, value: Any, depth: int = 0) -> Any:
        """Return a value with tensors in place of arrays.

        Raises:
            ValueError: values are nested too deeply, an array has no data, a tensor is of an unusual kind, or the
                tensors claim more bytes than a file of this size can hold.
        """
        if depth > DEEPEST:
            raise ValueError(f"its containers are nested more than {DEEPEST} deep")
        if isinstance(value, _Array):
            if value.tensor is None:
                raise ValueError("an array has no data")
            return value.tensor
        if isinstance(value, _DType | _Substitute):
            raise ValueError("one of the values is a type")
        if isinstance(value, Tensor | dict | list | tuple | set | frozenset) and id(value) not in self._seen:
            self._seen[id(value)] = self._finish_new(value, depth + 1)
        return self._seen.get(id(value), value)

    def _finish_new(self, value: Any, depth: int) -> Any:
        if isinstance(value, Tensor):
            return self._checked(value)
        if isinstance(value, dict):
            return {k: self.finish(v, depth) for k, v in value.items()}
        return type(value)(self.finish(v, depth) for v in value)

    def _checked(self, tensor: Tensor) -> Tensor:
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            kind = "quantized" if tensor.is_quantized else f"{tensor.layout} on {tensor.device.type}"
            raise ValueError(f"expected plain dense tensors, found one that is {kind}")
        self._left -= tensor.numel() * tensor.element_size()  # A view may repeat a few bytes without end.
        if self._left < 0:
            raise ValueError(f"its tensors claim many times more than the {self._size} bytes of the file")
        return tensor
