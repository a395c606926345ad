"""Measure the SNI top-down step, lateral + alpha * nearest(x), against interpolating, multiplying and adding.

Forms, timed in turn in one process (median of several; ratio to the first form of the same round):
    interpolate, * , +   lateral + alpha * interpolate(x)
    add with alpha       torch.add(lateral, interpolate(x), alpha=alpha)
    one broadcast        lateral seen as (N, C, h, 2, w, 2), x added by broadcasting
    soft_nearest_add     what the pyramids use
Peak memory is what forward, or forward and backward, allocate beyond the inputs at the highest moment.

Example:
    python tools/benchmark_sni.py --threads 2 --repeats 15
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own messages; read when torch is imported

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sn2fpn.layers import soft_nearest_add

ALPHA = 0.25
Form = Callable[[Tensor, Tensor], Tensor]


def interpolate_multiply_add(lateral: Tensor, x: Tensor) -> Tensor:
    return lateral + ALPHA * F.interpolate(x, size=lateral.shape[2:])


def add_with_alpha(lateral: Tensor, x: Tensor) -> Tensor:
    return torch.add(lateral, F.interpolate(x, size=lateral.shape[2:]), alpha=ALPHA)


def one_broadcast(lateral: Tensor, x: Tensor) -> Tensor:
    (h, w), pairs = x.shape[2:], lateral.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    out = torch.add(pairs, x.view(*x.shape[:2], h, 1, w, 1), alpha=ALPHA)
    return out.flatten(4, 5).flatten(2, 3)


FORMS: dict[str, Form] = {
    "interpolate, *, +": interpolate_multiply_add,
    "add with alpha": add_with_alpha,
    "one broadcast": one_broadcast,
    "soft_nearest_add": soft_nearest_add,
}


def main() -> None:
    """Print one table per map size, memory format and dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--image", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, median of {args.repeats}")
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            for level in (2, 3, 4):
                fine = tuple(side >> level for side in args.image)
                kind = f"{dtype}, {layout}".replace("torch.", "")
                print(f"\np{level}: {args.batch} x 256 x {fine[0]} x {fine[1]}, {kind}")
                rows = measure(args.batch, fine, dtype, layout, torch.device(args.device), args.repeats)
                head = ["form", "forward ms", "ratio", "backward ms", "ratio", "peak fwd MiB", "peak fwd+bwd MiB"]
                print(tabulate(rows, head, floatfmt=".2f"))


def measure(
    batch: int,
    fine: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
    device: torch.device,
    repeats: int,
) -> list[list[str | float]]:
    """Rows of the table: name, forward time, its ratio, backward time, its ratio, the two peaks."""
    sizes = (fine, tuple(side // 2 for side in fine))
    lateral, x, grad = (
        torch.randn(batch, 256, *size, device=device).to(dtype).contiguous(memory_format=layout)
        for size in (*sizes, fine)
    )
    forward: dict[str, list[float]] = {name: [] for name in FORMS}
    backward: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(repeats + 1):  # the first round warms up
        for name, form in FORMS.items():
            leaves = [t.detach().requires_grad_() for t in (lateral, x)]
            start = now(device)
            out = form(*leaves)
            middle = now(device)
            torch.autograd.grad(out, leaves, grad)
            forward[name].append(middle - start)
            backward[name].append(now(device) - middle)
    first = next(iter(FORMS))
    return [
        [
            name,
            statistics.median(forward[name][1:]) * 1e3,
            statistics.median(a / b for a, b in zip(forward[name][1:], forward[first][1:])),
            statistics.median(backward[name][1:]) * 1e3,
            statistics.median(a / b for a, b in zip(backward[name][1:], backward[first][1:])),
            peak_mib(lambda form=form: form(lateral, x), device),
            peak_mib(lambda form=form: forward_backward(form, lateral, x, grad), device),
        ]
        for name, form in FORMS.items()
    ]


def forward_backward(form: Form, lateral: Tensor, x: Tensor, grad: Tensor) -> None:
    leaves = [t.detach().requires_grad_() for t in (lateral, x)]
    torch.autograd.grad(form(*leaves), leaves, grad)


def now(device: torch.device) -> float:
    """Seconds, after all work handed to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_mib(call: Callable[[], object], device: torch.device) -> float:
    """The most memory that `call` holds at any moment beyond what was held before, in MiB."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = peak = 0
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


if __name__ == "__main__":
    main()
