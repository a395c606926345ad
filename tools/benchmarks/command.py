"""The commands of the benchmark: measure one part or all of them, and show what was measured before."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from sn2fpn.atomic import atomic_write
from sn2fpn.command_line import CommandLineParser
from sn2fpn.errors import UserError, nearby_files

from .detector import CONFIGS
from .flags import add_output_flags, add_quick
from .machine import about
from .page import write_page
from .picture import draw

__all__ = ["add_arguments"]

PARTS = ("detector", "loading", "evaluation", "startup", "pyramids", "upsampling")
_FASTER, _MASK = CONFIGS

Run = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the flags of a command, and set its `main(args, argv)` as default of `command`."""
    if name in PARTS:
        module = import_module(f".{name}", __package__)
        parser.description = module.__doc__
        module.add_arguments(parser)
        parser.set_defaults(command=_measure_one)
    elif name == "all":
        add_quick(parser)
        parser.set_defaults(command=_measure_all)
    else:
        parser.add_argument("files", nargs="+", metavar="FILE", help="files that were written with --json")
        parser.set_defaults(command=_show)
    add_output_flags(parser)


def _all(quick: bool) -> list[list[str]]:
    """Return the command lines of all parts, which leave out what takes long and tells little."""
    reduced = ["bfloat16"] if "bf16" in about()["instructions"] else []
    lines = [
        ["detector", "--precision", "float32", *reduced, "--repeats", "3", "--config-file", _FASTER],
        ["detector", "--precision", "float32", *reduced, "--repeats", "2", "--no-memory", "--config-file", _MASK],
        ["detector", "--threads", "1", "--repeats", "2", "--no-memory", "--config-file", _FASTER],
        ["loading"],
        ["evaluation"],
        ["startup", "--repeats", "2"],
        ["pyramids", "--batch", "1", "--repeats", "2"],
        ["upsampling", "--repeats", "5"],
    ]
    return [[*line, *(["--quick"] if quick else [])] for line in lines]


def _measure_one(args: argparse.Namespace, argv: Sequence[str]) -> None:
    run = _measure(args, argv)
    if run is not None:
        _tell([run], args)


def _measure_all(args: argparse.Namespace, _: Sequence[str]) -> None:
    runs: list[Run] = []
    for line in _all(args.quick):
        print(f"python tools/benchmark.py {shlex.join(line)}", file=sys.stderr)
        parser = CommandLineParser()
        add_arguments(parser, line[0])
        runs.append(_measure(parser.parse_args(line[1:], argparse.Namespace(part=line[0])), line))
        if args.json:  # so that what was measured is kept if a later part fails
            _write_json(runs, args.json)
    _tell(runs, args)


def _measure(args: argparse.Namespace, argv: Sequence[str]) -> Run | None:
    """Return the results of a part, with what they depend on."""
    started, when = time.perf_counter(), datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    threads, machine = torch.get_num_threads(), about()
    try:
        results = import_module(f".{args.part}", __package__).run(args)
    finally:
        torch.set_num_threads(threads)  # for the next part, since a part may measure with other numbers of threads
    if results is None:
        return None
    command = f"python tools/benchmark.py {shlex.join(argv)}"
    seconds = round(time.perf_counter() - started, 1)
    return {
        "part": args.part,
        "command": command,
        "date": when,
        "took_s": seconds,
        "quick": args.quick,
        "about": machine,
        "results": results,
    }


def _show(args: argparse.Namespace, _: Sequence[str]) -> None:
    _tell([run for file in args.files for run in _read_json(Path(file))], args)


def _read_json(path: Path) -> list[Run]:
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        if all(run["part"] in PARTS and isinstance(run["results"], dict) for run in runs):
            return runs
    except FileNotFoundError:
        raise UserError(f"{path}: file does not exist{nearby_files(path, '*.json')}") from None
    except (KeyError, TypeError, ValueError, OSError):
        pass
    raise UserError(f"{path}: expected the results of a benchmark, which --json writes")


def _write_json(runs: list[Run], file: str) -> None:
    with atomic_write(file) as stream:
        json.dump({"runs": runs}, stream, indent=1)


def _tell(runs: list[Run], args: argparse.Namespace) -> None:
    """Print the tables, and write the files that the flags name."""
    if args.json:
        _write_json(runs, args.json)
    results = {part: [run["results"] for run in runs if run["part"] == part] for part in PARTS}
    parts = {part: import_module(f".{part}", __package__) for part, found in results.items() if found}
    tables = {part: list(module.tables(results[part])) for part, module in parts.items()}
    for table in (t for of_part in tables.values() for t in of_part):
        print(table.text(markdown=args.markdown is not None), end="\n\n")
    if args.picture:
        draw([panel for part, module in parts.items() for panel in module.bars(results[part])], Path(args.picture))
    if args.markdown:
        write_page(Path(args.markdown), runs, tables)
