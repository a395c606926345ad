"""Measure the start of fresh processes: imports, building Faster R-CNN R50-FPN and its first training step, and --help.

    python tools/benchmark.py startup --size 480x640

The native engine and Detectron2, where it is installed, take turns. The first step trains on one image on the CPU. The
help is that of `train_net.py` and, for Detectron2, that of its `default_argument_parser`, as in its own tools. The
times of the first step and of the help are those of whole processes, so that the parts of the former do not quite add
up to it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from sn2fpn.study.measure.timing import take_turns

from .flags import add_quick, add_repeats, read_size
from .machine import watch_load
from .picture import Bars
from .table import Table, mark

__all__ = ["add_arguments", "bars", "run", "tables"]

ROOT = Path(__file__).resolve().parents[2]
_CONFIG = ROOT / "configs" / "faster_rcnn_R50_fpn.yaml"
_THEIR_HELP = "from detectron2.engine import default_argument_parser as p; p().parse_args(['--help'])"
WHOLE, HELP = "import, build and first step", "--help"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this part."""
    parser.add_argument(
        "--size", default="480x640", metavar="HxW", help="of the image of the first step (default: %(default)s)"
    )
    add_repeats(parser, 3)
    add_quick(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return "size" and "rows" with "engine", "work", "seconds" (a median), "cores_used_by_others" and "reliable"."""
    size = (64, 96) if args.quick else read_size(args.size)
    engines = ["native", *(["detectron2"] if importlib.util.find_spec("detectron2") else [])]
    parts: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    actions: dict[str, Callable[[], None]] = {}
    for engine in engines:
        actions[f"{engine}: {WHOLE}"] = lambda e=engine: parts[e].append(_first_step(e, size))
        actions[f"{engine}: {HELP}"] = lambda e=engine: _help(e)
    rows: list[dict[str, Any]] = []
    with watch_load(rows):
        seconds = take_turns(actions, args.repeats, warm_up=1)
        for engine in engines:
            counted = parts[engine][1:]
            found = {WHOLE: median(seconds[f"{engine}: {WHOLE}"])}
            found |= {name: median(p[name] for p in counted) for name in counted[0]}
            found[HELP] = median(seconds[f"{engine}: {HELP}"])
            rows += [{"engine": engine, "work": work, "seconds": value} for work, value in found.items()]
    return {"size": size, "rows": rows}


def _first_step(engine: str, size: tuple[int, int]) -> dict[str, float]:
    program = Path(__file__).with_name("first_step.py")
    return json.loads(_output([str(program), engine, str(_CONFIG), *map(str, size)]).splitlines()[-1])


def _help(engine: str) -> None:
    _output([str(ROOT / "train_net.py"), "--help"] if engine == "native" else ["-c", _THEIR_HELP])


def _output(command: list[str]) -> str:
    """Run Python and return what it prints."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def _by_work(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in (row for result in results for row in result["rows"]):
        found.setdefault(row["work"], {})[row["engine"]] = row
    return found


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the table of seconds."""
    cells = []
    for work, rows in _by_work(results).items():
        ours, theirs = rows["native"], rows.get("detectron2")
        cells.append([work, mark(f"{ours['seconds']:.2f} s", ours)])
        if theirs:
            cells[-1] += [mark(f"{theirs['seconds']:.2f} s", theirs), f"{ours['seconds'] / theirs['seconds']:.2f}x"]
    title = f"The start of a process, with an image of {'x'.join(map(str, results[-1]['size']))}"
    return [Table(title, ["work", "native", "detectron2", "native / detectron2"], cells)]


def bars(results: Sequence[dict[str, Any]]) -> list[Bars]:
    """Return the panel of the start-up, with its phases as segments."""
    values: dict[str, dict[str, float]] = {}
    for work, rows in _by_work(results).items():
        for engine, row in rows.items():
            if work != WHOLE:
                label = f"{engine}: --help" if work == HELP else engine
                values.setdefault(label, {})[work] = row["seconds"]
    return [Bars("Start of a process", "seconds", values)]
