"""What a run's numbers may depend on besides its configuration: versions, the commit and the devices."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata

import torch
from tabulate import tabulate

from .. import __version__
from ..errors import counted
from ..precision import has_bfloat16
from ..shipped import checkout

__all__ = ["environment", "environment_summary"]


def environment() -> dict[str, str]:
    """Return versions and devices by name."""
    found = {
        "sn2fpn": __version__,
        "commit": _commit(),
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in ("torch", "torchvision", "pycocotools", "numpy", "pillow", "detectron2"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    if torch.cuda.is_available():
        found |= {f"GPU {i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        found["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    cores, threads = counted(os.cpu_count() or 1, "core"), counted(torch.get_num_threads(), "torch thread")
    bfloat16 = "with" if has_bfloat16() else "without"
    found["CPU"] = f"{cores}, {threads}, {torch.backends.cpu.get_cpu_capability()}, {bfloat16} bfloat16"
    return found


def environment_summary() -> str:
    """Return `environment` as a table of two columns."""
    return tabulate([(name, found) for name, found in environment().items() if found], tablefmt="plain")


def _commit() -> str:
    """Return the commit of this package's checkout, "abc1234" or "abc1234-dirty", or "" outside of a checkout."""
    if (root := checkout()) is None:  # the environment may lie in a repository of the user's
        return ""
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
