"""The libraries that only the export needs, which are an extra of the package."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from ..errors import UserError

__all__ = ["check_torch", "require"]

_TORCH = (2, 9)  # before, PyTorch's exporter does not know RoIAlign, NMS and numbers that depend on the data


def require(name: str, purpose: str) -> ModuleType:
    """Return a module of the extra `onnx`.

    Args:
        name: name of the module, such as "onnxruntime".
        purpose: what needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"{purpose} needs the package {package}; run: pip install 'sn2fpn[onnx]'") from None


def check_torch() -> None:
    """Raise UserError if this PyTorch is too old for the export."""
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < _TORCH:
        raise UserError(f"the export needs torch {'.'.join(map(str, _TORCH))} or newer, found {torch.__version__}")
