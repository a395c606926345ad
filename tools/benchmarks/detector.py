"""Measure inference and training steps of detectors in the native engine, torchvision and Detectron2.

    python tools/benchmark.py detector --threads 1 2
    python tools/benchmark.py detector --precision float32 bfloat16 --config-file configs/faster_rcnn_R50_sni.yaml

All engines take turns in one process, in alternating order. They get the same weights and images, so that they do the
same work: the weights follow a fixed rule that keeps activations near 1 and makes 1,000 proposals and 100 detections
per image for FPN; the results hold the true numbers. Torchvision and Detectron2 are measured in float32 and, beside a
native engine in reduced precision, under autocast as well. Torchvision is left out where it has no detector with equal
parameters. A GFLOP is 10^9 operations, two for a multiply-add, of the convolutions and matrix products that an engine
really makes. Peak memory is that of a process that runs one engine alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sn2fpn.command_line import CommandLineParser
from sn2fpn.errors import UserError
from sn2fpn.imports import import_files
from sn2fpn.study.measure.timing import resident_mib, take_turns
from sn2fpn.study.measure.workload import make_images

from .contenders import Contender
from .detector_tables import bars, tables
from .engines import ENGINES, Engine, NoCounterpart, installed, read_detector
from .flags import add_device, add_number, add_quick, add_repeats, add_threads, check_device, read_size
from .machine import measure_peaks, watch_load

__all__ = ["add_arguments", "bars", "run", "tables"]

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [os.path.relpath(ROOT / "configs" / f"{name}_rcnn_R50_fpn.yaml") for name in ("faster", "mask")]
MODES = {"inference": 1, "training": 2}
"""The modes and their default numbers of images."""


class Setting(NamedTuple):
    """An engine and its precision."""

    engine: str
    precision: str


def add_arguments(parser: CommandLineParser) -> None:
    """Add the flags of this part."""
    add_threads(parser)
    add_repeats(parser, 5)
    add_quick(parser)
    parser.add_argument(
        "--config-file",
        nargs="+",
        default=CONFIGS,
        metavar="FILE",
        help="YAML configs (default: Faster and Mask R-CNN R50-FPN)",
    )
    parser.add_import()
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), help="default: all that are installed")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["float32"],
        choices=["float32", "bfloat16", "float16"],
        help="of the native engine; others than float32 are autocast (default: float32)",
    )
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES), help="default: both")
    add_number(parser, "--batch", None, "images per step (default: 1 in inference, 2 in training)")
    parser.add_argument(
        "--size", default="480x640", metavar="HxW", help="of the images in pixels (default: %(default)s)"
    )
    add_device(parser)
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # prints that of this process
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return "peaks" of the machine and "rows", one per config, mode, number of threads and contender.

    A row holds "config", "size", "batch", "threads", "mode", "engine", "precision", "seconds" (a median), "stages",
    "gflop", "gflop_stages", "proposals", "detections", "memory_mib" (None if it was not measured),
    "cores_used_by_others" and "reliable".
    """
    count = sum(1 for _ in takewhile(lambda file: file.endswith((".yaml", ".yml")), args.config_file))
    args.config_file, args.opts = args.config_file[:count], args.config_file[count:] + args.opts  # pairs may follow
    if not args.config_file:
        raise UserError(f"--config-file: expected a name that ends with .yaml, found {args.opts[0]!r}")
    check_device(args.device)
    import_files(args.imports)
    if args.memory_of:
        return _memory_of_this_process(args)
    size = read_size("96x128" if args.quick else args.size)
    peaks: list[dict[str, Any]] = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        measured = measure_peaks(list(dict.fromkeys(["float32", *args.precision])), args.device, args.quick)
        peaks += [{"threads": threads, **peak} for peak in measured]
    rows: list[dict[str, Any]] = []
    for file in args.config_file:
        rows += _measure_config(file, size, args)
    return {"device": _device_name(args.device), "peaks": peaks, "rows": rows}


def _memory_of_this_process(args: argparse.Namespace) -> None:
    """Print the peak memory in MiB of this process, in which the engine and the mode are the only ones."""
    torch.set_num_threads(args.threads[0])
    contender = Contender(
        ENGINES[args.memory_of](args.config_file[0], args.opts, args.device), args.precision[0], args.device
    )
    mode, cuda = args.modes[0], args.device.startswith("cuda")
    for _ in range(2):  # the optimizer's state appears with the first step
        contender.run(mode, _batch(mode, args, read_size(args.size)))
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_mib(peak=True)
    print(json.dumps({"peak_mib": peak}))


def _measure_config(file: str, size: tuple[int, int], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of one config, after a line on the console for each engine that is left out."""
    read_detector(file, args.opts, args.device)  # a mistake in it is reported before any work
    engines = _build(file, args)
    contenders = {s: Contender(engines[s.engine], s.precision, args.device) for s in _settings(engines, args.precision)}
    rows = []
    for mode in args.modes:
        batch = _batch(mode, args, size)
        torch.set_num_threads(args.threads[0])
        usable = _count(contenders, mode, batch)
        memory = {} if args.no_memory else {s: _peak_memory(s, mode, file, size, args) for s in usable if _alone(s)}
        for threads in args.threads:
            warm_up = int(threads != torch.get_num_threads())  # otherwise, the counting has warmed up
            torch.set_num_threads(threads)
            about = {"config": Path(file).stem, "changes": args.opts, "size": size, "batch": len(batch)}
            about |= {"threads": threads, "mode": mode}
            timed: list[dict[str, Any]] = []
            with watch_load(timed):
                seconds = _time(usable, mode, batch, args.repeats, warm_up)
                timed += [_row(about, s, usable[s], seconds[s], memory.get(s)) for s in usable]
            rows += timed
    return rows


def _build(file: str, args: argparse.Namespace) -> dict[str, Engine]:
    engines = {}
    for name in args.engines or installed():
        if name not in installed():
            raise UserError(f"--engines: {name} is not installed; expected some of {', '.join(installed())}")
        try:
            engines[name] = ENGINES[name](file, args.opts, args.device)
        except NoCounterpart as e:
            print(f"{Path(file).stem}: {name} is left out: {e}", file=sys.stderr)
    return engines


def _settings(engines: dict[str, Engine], precisions: list[str]) -> list[Setting]:
    """Return the contenders: the native engine in each precision, and the others in float32 too."""
    reference = list(dict.fromkeys(["float32", *precisions]))
    return [Setting(name, p) for name in engines for p in (precisions if name == "native" else reference)]


def _count(contenders: dict[Setting, Contender], mode: str, batch: list[dict[str, Any]]) -> dict[Setting, Contender]:
    """Count operations, which warms up, and return the contenders that can compute in their precision."""
    usable = {}
    for setting, contender in contenders.items():
        try:
            contender.count(mode, batch)
            usable[setting] = contender
        except RuntimeError as e:
            if setting.engine == "native":
                raise
            print(f"{' '.join(setting)} is left out of {mode}: {str(e).splitlines()[0]}", file=sys.stderr)
    return usable


def _time(
    contenders: dict[Setting, Contender], mode: str, batch: list[dict[str, Any]], repeats: int, warm_up: int
) -> dict[Setting, dict[str, float]]:
    """Let the contenders take turns, and return the median seconds of their stages."""
    for contender in contenders.values():
        contender.clear()
    turns = {str(s): lambda c=c: c.run(mode, batch) for s, c in contenders.items()}
    take_turns(turns, repeats, warm_up)
    return {s: c.medians(mode, warm_up) for s, c in contenders.items()}


def _row(
    about: dict[str, Any], setting: Setting, contender: Contender, seconds: dict[str, float], memory: float | None
) -> dict[str, Any]:
    gflop = contender.gflop[about["mode"]]
    return {
        **about,
        **setting._asdict(),
        "seconds": seconds.pop("total"),
        "stages": seconds,
        "gflop": gflop["total"],
        "gflop_stages": {name: gflop[name] for name in seconds},
        "proposals": contender.work.get("proposals"),
        "detections": contender.work.get("detections"),
        "memory_mib": memory,
    }


def _alone(setting: Setting) -> bool:
    """Tell whether the memory of a contender is measured: not that of other engines under autocast, to save time."""
    return setting.engine == "native" or setting.precision == "float32"


def _peak_memory(
    setting: Setting, mode: str, file: str, size: tuple[int, int], args: argparse.Namespace
) -> float | None:
    """Return the peak memory in MiB of a process that does nothing else, or None if it fails."""
    command = [sys.executable, str(ROOT / "tools" / "benchmark.py"), "detector", "--memory-of", setting.engine]
    command += ["--config-file", file, "--precision", setting.precision, "--size", "x".join(map(str, size))]
    command += [word for name in args.imports for word in ("--import", name)]
    command += ["--modes", mode, "--threads", str(args.threads[-1])]
    command += ["--batch", str(args.batch)] if args.batch else []
    command += ["--device", args.device]  # A flag with one value comes last, because configuration keys follow.
    done = subprocess.run([*command, *args.opts], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"the memory of {' '.join(setting)} was not measured: {_last_line(done.stderr)}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])["peak_mib"]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["its process died"])[-1]


def _batch(mode: str, args: argparse.Namespace, size: tuple[int, int]) -> list[dict[str, Any]]:
    return make_images(args.batch or MODES[mode], *size)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
