"""Measure one top-down step, fine map + upsampled coarse map, for every kind of upsampling.

    python tools/benchmark.py upsampling --threads 2 --repeats 15 --kinds nearest sni carafe

The kinds are timed in turn, and each time is the median of several rounds. A ratio compares with the first kind in
the same round. "interpolate, *, +" is the SNI step without its fused addition, for comparison. The peak is the most
memory that forward, or forward and backward, allocate beyond the inputs at any moment. GFLOPs are multiply-adds, as
tools/analyze_model.py counts them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sn2fpn.errors import argument_names, counted
from sn2fpn.layers import get_upsample
from sn2fpn.modeling.analysis import multiply_adds
from sn2fpn.study.measure.timing import now

from .flags import add_device, add_number, add_quick, add_repeats, add_threads, check_device
from .machine import LAYOUTS, watch_load
from .picture import Bars
from .table import Table, groups, mark

__all__ = ["add_arguments", "bars", "run", "tables"]

KINDS = ("nearest", "sni", "sni:learned", "bilinear", "bilinear_corners", "deconv", "carafe", "dysample")
DTYPES = ("float32", "bfloat16")
_WAYS = ("forward", "backward")
_PLAIN_SNI = "interpolate, *, +"


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this part."""
    parser.add_argument("--kinds", nargs="+", default=KINDS, metavar="KIND", help="kinds of `get_upsample`")
    add_device(parser)
    add_number(parser, "--batch", 2, "images (default: %(default)s)")
    add_number(parser, "--channels", 256, "default: %(default)s")
    parser.add_argument("--image", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help="in pixels")
    parser.add_argument("--levels", type=int, nargs="+", default=(2, 3, 4), help="levels of the fine map")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES, help="dtypes of maps and weights")
    add_threads(parser)
    add_repeats(parser, 9)
    add_quick(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return "rows", one per kind, number of threads, dtype, layout and level.

    A row holds "kind", "threads", "dtype", "layout", "level", "size" (N, C, H, W), "forward_s", "backward_s" (medians),
    "forward_ratio", "backward_ratio" (medians of the ratios to the first kind), "forward_mib", "both_mib",
    "parameters", "gflop", "cores_used_by_others" and "reliable".
    """
    check_device(args.device)
    channels, image = (8, (36, 40)) if args.quick else (args.channels, args.image)
    with argument_names({"upsample": "--kinds"}):
        steps: dict[str, nn.Module] = {kind: Step(kind, channels) for kind in args.kinds}
    if "sni" in steps:
        steps[_PLAIN_SNI] = PlainSNI()
    rows: list[dict[str, Any]] = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        for dtype in args.dtypes:
            like = torch.empty(0, dtype=getattr(torch, dtype), device=args.device)
            for layout in LAYOUTS:
                for level in args.levels:
                    size = (args.batch, channels, *(side >> level for side in image))
                    about = {"threads": threads, "dtype": dtype, "layout": layout, "level": level, "size": size}
                    timed: list[dict[str, Any]] = []
                    with watch_load(timed):
                        timed += [about | row for row in _measure(steps, size, like, LAYOUTS[layout], args.repeats)]
                    rows += timed
    return {"device": args.device, "rows": rows}


def _measure(
    steps: dict[str, nn.Module], size: tuple[int, ...], like: Tensor, layout: torch.memory_format, repeats: int
) -> list[dict[str, Any]]:
    """Measure all kinds on maps of one size.

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
    rows = []
    for name, step in steps.items():
        row: dict[str, Any] = {"kind": name}
        for way, own, base in zip(_WAYS, zip(*times[name]), zip(*first)):
            row |= {f"{way}_s": median(own), f"{way}_ratio": median(a / b for a, b in zip(own, base))}
        with torch.no_grad():
            row["forward_mib"] = peak_mib(lambda step=step: step(*leaves), like.device)
        inputs = [*leaves, *step.parameters()]
        both = peak_mib(lambda step=step, x=inputs: torch.autograd.grad(step(*leaves), x, grad), like.device)
        parameters = sum(p.numel() for p in step.parameters())
        rows.append(row | {"both_mib": both, "parameters": parameters, "gflop": multiply_adds(step, *leaves) / 1e9})
    return rows


def time_in_turn(
    steps: dict[str, nn.Module], leaves: list[Tensor], grad: Tensor, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of forward and backward in each round; a round before them warms up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for i in range(repeats + 1):
        for name in steps if i % 2 == 0 else reversed(steps):
            step = steps[name]
            start = now()
            out = step(*leaves)
            middle = now()
            torch.autograd.grad(out, [*leaves, *step.parameters()], grad)
            times[name].append((middle - start, now() - middle))
    return {name: rounds[1:] for name, rounds in times.items()}


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


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """Return a table per number of threads, dtype and layout, with lines for the kinds and columns for the levels."""
    found = []
    for result in results:
        for rows in groups(result["rows"], "threads", "dtype", "layout"):
            finest = rows[0]
            title = (
                f"One top-down step, p{finest['level']} has {' x '.join(map(str, finest['size']))}, {finest['dtype']}, "
                f"{finest['layout']}, {result['device']}, {counted(finest['threads'], 'thread')}"
            )
            columns = [f"p{row['level']} {way}" for row in groups(rows, "kind")[0] for way in _WAYS]
            headers = ["kind", *columns, "fwd MiB", "fwd+bwd MiB", "parameters", "GFLOPs"]
            notes = [f"Ratios are those to {finest['kind']}. Memory and GFLOPs are those of p{finest['level']}."]
            found.append(Table(title, headers, [_cells(of_kind) for of_kind in groups(rows, "kind")], notes))
    return found


def _cells(levels: Sequence[dict[str, Any]]) -> list[str]:
    """Return the cells of a kind, whose rows are those of the levels."""
    times = [mark(f"{1e3 * r[f'{w}_s']:.2f} ms ({r[f'{w}_ratio']:.2f}x)", r) for r in levels for w in _WAYS]
    r = levels[0]
    costs = [f"{r['forward_mib']:.2f}", f"{r['both_mib']:.2f}", f"{r['parameters']:,}", f"{r['gflop']:.2f}"]
    return [r["kind"], *times, *costs]


def bars(results: Sequence[dict[str, Any]]) -> list[Bars]:
    """Return a panel for the finest level in float32 and channels-last maps, the layout of the native engine."""
    panels = []
    for result in results:
        for rows in groups(result["rows"], "threads", "dtype", "layout"):
            if (rows[0]["dtype"], rows[0]["layout"]) == ("float32", "channels-last"):
                finest = [row for row in rows if row["level"] == rows[0]["level"]]
                values = {r["kind"]: {w: 1e3 * r[f"{w}_s"] for w in _WAYS} for r in finest}
                panels.append(Bars(f"One top-down step, p{rows[0]['level']}", "milliseconds", values))
    return panels
