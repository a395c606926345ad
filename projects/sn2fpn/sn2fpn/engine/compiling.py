"""Compilation of a model's trunk and pyramid by torch.compile."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from torch import nn

from ..errors import UserError
from .options import RunOptions

__all__ = ["compile_backbone"]

_NEEDED = "torch.compile needs"
_OLDEST_GPU = 7  # the major number of the compute capability from which on Triton works


def compile_backbone(model: nn.Module, options: RunOptions) -> None:
    """Let torch compile the trunk and the pyramid at their first use, if the options of a run ask for it.

    The model and the names in its state dict stay the same. Images of a second size are compiled for once more, and
    after that images of any size are taken.

    Args:
        model: a detector with a `backbone`.
        options: the options of the run.

    Raises:
        UserError: the model has no `backbone`, or this machine has no compiler.
    """
    if not options.compile:
        return
    backbone = getattr(model, "backbone", None)
    missing = _missing(options.device)
    if not isinstance(backbone, nn.Module):
        missing = f"expected a model with a `backbone`, found {type(model).__name__}"
    if missing:
        raise UserError(f"{options.key('compile')}: {missing}; set it to False")
    backbone.compile()


def _missing(device: str) -> str:
    """Return what torch.compile lacks on this machine for a device, or "" if it has all that it needs."""
    compiler = os.environ.get("CXX", "g++")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if shutil.which(compiler) is None:
        return f"{_NEEDED} a compiler of C++, but {compiler!r} is not found; the environment variable CXX names another"
    if not header.is_file():
        return f"{_NEEDED} the header files of Python, and {header} does not exist"
    if device.startswith("cuda"):
        if importlib.util.find_spec("triton") is None:
            return f"{_NEEDED} the package triton on a GPU, which is not installed"
        if torch.cuda.get_device_capability()[0] < _OLDEST_GPU:
            return f"{_NEEDED} a GPU of compute capability {_OLDEST_GPU}.0 or newer"
    return ""
