"""The machine: what it is, how fast it computes at best, and whether other processes disturb a measurement."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sn2fpn.engine import environment
from sn2fpn.precision import autocast
from sn2fpn.study.measure.timing import Neighbours, now

__all__ = ["about", "measure_peaks", "watch_load"]

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
_FLAGS = re.compile(r"\b(avx2|avx512f|avx512_bf16|avx512_vnni|avx_vnni|amx_tile|amx_bf16|amx_fp16|asimd|bf16|sve)\b")
# (side of the matrices, images, channels, side of the maps): a tenth of a second on two cores, or a hundredth on a GPU
_SIZES = {"cpu": (2048, 1, 256, 96), "cuda": (8192, 16, 512, 128)}


def about() -> dict[str, Any]:
    """Return versions, the commit, the processor with the instructions that matter, and the memory in GiB."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = re.findall(r"^(?:model name|Processor)\s*: (.*)$", cpu, re.MULTILINE)
    flags = next(iter(re.findall(r"^(?:flags|Features)\s*: (.*)$", cpu, re.MULTILINE)), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return environment() | {
        "processor": names[0] if names else "unknown",
        "instructions": " ".join(dict.fromkeys(_FLAGS.findall(flags))),
        "memory": f"{memory:.0f} GiB",
    }


@contextmanager
def watch_load(*results: dict[str, Any] | list[dict[str, Any]]) -> Iterator[None]:
    """Add "cores_used_by_others" and "reliable" to results, for the time inside this context.

    Args:
        results: dicts, or lists of dicts which may be filled inside the context.
    """
    neighbours = Neighbours()
    yield
    logger = logging.getLogger(Neighbours.__module__)
    level = logger.level
    logger.setLevel(logging.ERROR)  # the tables mark what it warns of
    load = neighbours.stop()
    logger.setLevel(level)
    for result in results:
        for row in result if isinstance(result, list) else [result]:
            row |= {name: load[name] for name in ("cores_used_by_others", "reliable")}


def measure_peaks(precisions: list[str], device: str, quick: bool = False) -> list[dict[str, Any]]:
    """Return the best GFLOP/s of a matrix product and of a 3x3 convolution, in each precision and memory layout.

    Args:
        precisions: names of dtypes.
        device: the device.
        quick: measure small sizes, whose rates mean nothing.
    """
    side, images, channels, width = (64, 1, 8, 16) if quick else _SIZES[torch.device(device).type]
    rows: list[dict[str, Any]] = []
    for precision in precisions:
        like = torch.empty(0, dtype=getattr(torch, precision), device=device)
        with autocast(device, None if precision == "float32" else like.dtype):  # as the native engine computes
            rows += [{"precision": precision, **rate} for rate in _rates(like, side, (images, channels, width, width))]
    return rows


def _rates(like: torch.Tensor, side: int, shape: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yield the rate of a product of square matrices, and those of a convolution of maps in each memory layout."""
    a, b = (torch.randn(side, side).to(like) for _ in range(2))
    rate = _best_rate(lambda: a @ b, 2 * side**3)
    yield {"work": "matrix product", "layout": "contiguous", "gflop_s": rate}
    for layout, format in LAYOUTS.items():
        x = torch.randn(shape).to(like).contiguous(memory_format=format)
        weight = torch.randn(shape[1], shape[1], 3, 3).to(like).contiguous(memory_format=format)
        rate = _best_rate(lambda x=x, w=weight: F.conv2d(x, w, padding=1), 2 * x.numel() * shape[1] * 9)
        yield {"work": "3x3 convolution", "layout": layout, "gflop_s": rate}


@torch.no_grad()
def _best_rate(call: Callable[[], Any], operations: int, repeats: int = 7) -> float:
    """Return the highest of several rates in 10^9 operations per second; a slow kernel runs fewer times."""
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < 2:
        started = now()
        call()
        seconds.append(now() - started)
    return operations / min(seconds) / 1e9
