"""Measure one top-down step, fine map + upsampled coarse map, for every kind of upsampling.

The kinds are timed in turn, and each time is the median of several rounds. A ratio compares with the first kind in
the same round. "interpolate, *, +" is the SNI step without its fused addition, for comparison. The peak is the most
memory that forward, or forward and backward, allocate beyond the inputs at any moment. GFLOPs are multiply-adds, as
tools/analyze_model.py counts them.

Example:
    python tools/benchmark_upsampling.py --threads 2 --repeats 15 --kinds nearest sni carafe
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler; it reads the variable on import

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sn2fpn.command_line import CommandLineParser
from sn2fpn.errors import argument_names
from sn2fpn.layers import get_upsample
from sn2fpn.program import run_program

KINDS = ("nearest", "sni", "sni:learned", "bilinear", "bilinear_corners", "deconv", "carafe", "dysample")
COLUMNS = ("kind", "forward ms", "ratio", "backward ms", "ratio", "fwd MiB", "fwd+bwd MiB", "parameters", "GFLOPs")
DTYPES = ("float32", "bfloat16")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Step(nn.Module):
    """One top-down step with an upsampling of the given kind."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.upsample = get_upsample(kind, channels)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the sum of the fine and the upsampled coarse map."""
        return self.upsample.add(fine, coarse)


class PlainSNI(nn.Module):
    """The SNI step as three operators."""

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the sum of the fine and the upsampled coarse map."""
        alpha = coarse.shape[2] * coarse.shape[3] / (fine.shape[2] * fine.shape[3])
        return fine + alpha * F.interpolate(coarse, size=fine.shape[2:])


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table per level, dtype and memory layout."""
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=KINDS, metavar="KIND", help="kinds of `get_upsample`")
    parser.add_argument("--device", default="cpu", help="device of the maps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="number of CPU threads")
    parser.add_argument("--repeats", type=int, default=15, help="number of rounds")
    parser.add_argument("--batch", type=int, default=2, help="number of images")
    parser.add_argument("--channels", type=int, default=256, help="number of channels")
    parser.add_argument("--image", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help="in pixels")
    parser.add_argument("--levels", type=int, nargs="+", default=(2, 3, 4), help="levels of the fine map")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES, help="dtypes of maps and weights")
    args = parser.parse_args(argv)
    return run_program(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    with argument_names({"upsample": "--kinds"}):
        steps: dict[str, nn.Module] = {kind: Step(kind, args.channels) for kind in args.kinds}
    if "sni" in steps:
        steps["interpolate, *, +"] = PlainSNI()
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, median of {args.repeats}")
    for dtype in args.dtypes:
        for layout in LAYOUTS:
            for level in args.levels:
                size = (args.batch, args.channels, *(side >> level for side in args.image))
                print(f"\np{level}: {' x '.join(map(str, size))}, {dtype}, {layout}")
                like = torch.empty(0, dtype=getattr(torch, dtype), device=args.device)
                rows = measure(steps, size, like, LAYOUTS[layout], args.repeats)
                print(tabulate(rows, COLUMNS, floatfmt=".2f", intfmt=","))


def measure(
    steps: dict[str, nn.Module], size: tuple[int, ...], like: Tensor, layout: torch.memory_format, repeats: int
) -> list[list[str | float]]:
    """Return the rows of one table.

    Args:
        steps: the steps by name.
        size: shape (N, C, H, W) of the fine map; the coarse one has half the height and width, rounded up.
        like: a tensor with the dtype and device of the maps.
        layout: memory layout of the maps.
        repeats: number of rounds.
    """
    half = (*size[:2], *((side + 1) // 2 for side in size[2:]))
    *leaves, grad = (torch.randn(s).to(like).contiguous(memory_format=layout) for s in (size, half, size))
    for leaf in leaves:
        leaf.requires_grad_()
    steps = {name: step.to(like) for name, step in steps.items()}
    times = time_in_turn(steps, leaves, grad, repeats)
    first = next(iter(times.values()))
    rows: list[list[str | float]] = []
    for name, step in steps.items():
        row: list[str | float] = [name]
        for own, base in zip(zip(*times[name]), zip(*first)):  # forward, then backward
            row += [statistics.median(own) * 1e3, statistics.median(a / b for a, b in zip(own, base))]
        with torch.no_grad():
            row.append(peak_mib(lambda step=step: step(*leaves), like.device))
        inputs = [*leaves, *step.parameters()]
        row.append(peak_mib(lambda step=step, x=inputs: torch.autograd.grad(step(*leaves), x, grad), like.device))
        rows.append([*row, sum(p.numel() for p in step.parameters()), gflops(step, *leaves)])
    return rows


def time_in_turn(
    steps: dict[str, nn.Module], leaves: list[Tensor], grad: Tensor, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of forward and backward in each round; a round before them warms up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            start = now(grad.device)
            out = step(*leaves)
            middle = now(grad.device)
            torch.autograd.grad(out, [*leaves, *step.parameters()], grad)
            times[name].append((middle - start, now(grad.device) - middle))
    return {name: rounds[1:] for name, rounds in times.items()}


def now(device: torch.device) -> float:
    """Return a time in seconds, after all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_mib(call: Callable[[], object], device: torch.device) -> float:
    """Return the most memory in MiB that `call` allocates at any moment beyond what was allocated before."""
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


def gflops(step: nn.Module, fine: Tensor, coarse: Tensor) -> float:
    """Return the multiply-adds of a step in 10^9."""
    from fvcore.nn import FlopCountAnalysis  # warns when it is imported before sn2fpn

    counter = FlopCountAnalysis(step, (fine.detach(), coarse.detach()))
    return counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total() / 1e9


if __name__ == "__main__":
    sys.exit(main())
