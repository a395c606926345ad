"""Measure every pyramid alone, without trunk and heads, beside FPN.

    python tools/benchmark.py pyramids --precision float32 bfloat16 --threads 1 2

The inputs are random maps C2 to C5 of a ResNet-50. As in the native engine on a CPU, they are channels-last, but
contiguous in training with norms that compute statistics. "forward" is inference; "training" is a forward and a
backward pass in training mode. A GFLOP is 10^9 operations of convolutions and matrix products, two for a multiply-add.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from sn2fpn.config import get_cfg
from sn2fpn.errors import counted
from sn2fpn.precision import autocast
from sn2fpn.pyramids import PYRAMIDS, Pyramid, pyramid_from_backbone_name
from sn2fpn.structures import ShapeSpec
from sn2fpn.study.measure.timing import take_turns

from .contenders import precision_dtype
from .flags import add_device, add_number, add_quick, add_repeats, add_threads, check_device, read_size
from .flops import count_flops
from .machine import watch_load
from .picture import Bars
from .table import Table, groups, mark

__all__ = ["add_arguments", "bars", "run", "tables"]

_R50 = {f"res{i}": ShapeSpec(channels=64 * 2**i, stride=2**i) for i in (2, 3, 4, 5)}
_BASE = "fpn"
MODES = ("forward", "training")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this part."""
    parser.add_argument("--pyramids", nargs="+", choices=sorted(PYRAMIDS), default=sorted(PYRAMIDS), help="besides FPN")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["float32"],
        choices=["float32", "bfloat16", "float16"],
        help="default: float32",
    )
    parser.add_argument(
        "--size", default="480x640", metavar="HxW", help="of the images in pixels (default: %(default)s)"
    )
    add_number(parser, "--batch", 2, "images (default: %(default)s)")
    add_device(parser)
    add_threads(parser)
    add_repeats(parser, 3)
    add_quick(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return "size", "batch", "device" and "rows".

    A row holds "pyramid", "mode", "precision", "threads", "seconds" (a median), "gflop", "cores_used_by_others" and
    "reliable".
    """
    check_device(args.device)
    size = (64, 96) if args.quick else read_size(args.size)
    names = [_BASE, *(name for name in args.pyramids if name != _BASE)]
    cfg = get_cfg()
    pyramids = {n: pyramid_from_backbone_name(f"build_sn2_{n}_backbone")(cfg, _R50).to(args.device) for n in names}
    rows: list[dict[str, Any]] = []
    for mode in MODES:
        for precision in args.precision:
            calls = {name: _call(p, mode, precision, size, args) for name, p in pyramids.items()}
            torch.set_num_threads(args.threads[0])
            gflop = {name: count_flops(call) for name, call in calls.items()}
            for threads in args.threads:
                warm_up = int(threads != torch.get_num_threads())  # otherwise, the counting has warmed up
                torch.set_num_threads(threads)
                timed: list[dict[str, Any]] = []
                about = {"mode": mode, "precision": precision, "threads": threads}
                with watch_load(timed):
                    seconds = take_turns(calls, args.repeats, warm_up)
                    for name, s in seconds.items():
                        timed.append({"pyramid": name, **about, "seconds": median(s), "gflop": gflop[name]})
                rows += timed
    return {"size": size, "batch": args.batch, "device": args.device, "rows": rows}


def _call(
    pyramid: Pyramid, mode: str, precision: str, size: tuple[int, int], args: argparse.Namespace
) -> Callable[[], None]:
    """Return a function that computes the maps, and in training the gradients of parameters and inputs."""
    training = mode == "training"
    layout = torch.channels_last if args.device == "cpu" and not (training and _has_statistics(pyramid)) else None
    maps = {name: _map(shape, args.batch, size, args.device, layout) for name, shape in _R50.items()}
    dtype = precision_dtype(precision)

    def call() -> None:
        pyramid.train(training)
        with torch.set_grad_enabled(training), autocast(args.device, dtype):
            out = pyramid({name: x.detach().requires_grad_(training) for name, x in maps.items()})
        if training:
            torch.autograd.backward(list(out.values()), [torch.ones_like(x) for x in out.values()])
            pyramid.zero_grad(set_to_none=True)

    return call


def _map(shape: ShapeSpec, batch: int, size: tuple[int, int], device: str, layout: Any) -> Tensor:
    x = torch.randn(batch, shape.channels, *(-(-side // 32) * 32 // shape.stride for side in size)).relu().to(device)
    return x.contiguous(memory_format=layout) if layout else x


def _has_statistics(module: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm | nn.GroupNorm) for m in module.modules())


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """Return a table per precision and number of threads."""
    return [_table(result, group) for result in results for group in groups(result["rows"], "precision", "threads")]


def _table(result: dict[str, Any], group: Sequence[dict[str, Any]]) -> Table:
    base = {row["mode"]: row for row in group if row["pyramid"] == _BASE}
    cells = []
    for rows in groups(group, "pyramid"):
        cells.append([rows[0]["pyramid"]])
        for row in rows:
            ratio, rate = row["seconds"] / base[row["mode"]]["seconds"], _rate(row)
            slower = _rate(base[row["mode"]]) / rate if rate else float("nan")
            cells[-1] += [mark(f"{1e3 * row['seconds']:.0f} ms ({ratio:.2f}x)", row), f"{rate:.0f}", f"{slower:.2f}x"]
    columns = [(mode, f"{mode} GFLOP/s", "FPN's / its rate") for mode in MODES]
    size = "x".join(map(str, result["size"]))
    where = f"{counted(group[0]['threads'], 'thread')}, {result['device']}"
    title = f"Pyramids alone, {result['batch']} x {size}, {group[0]['precision']}, {where}"
    return Table(title, ["pyramid", *(name for names in columns for name in names)], cells)


def _rate(row: dict[str, Any]) -> float:
    return row["gflop"] / row["seconds"]


def bars(results: Sequence[dict[str, Any]]) -> list[Bars]:
    """Return a panel per mode, precision and number of threads."""
    panels = []
    for result in results:
        for group in groups(result["rows"], "mode", "precision", "threads"):
            title = f"Pyramids, {group[0]['mode']}, {group[0]['precision']}, {counted(group[0]['threads'], 'thread')}"
            panels.append(Bars(title, "seconds", {row["pyramid"]: {"": row["seconds"]} for row in group}))
    return panels
