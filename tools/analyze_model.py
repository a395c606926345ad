#!/usr/bin/env python3
"""Print the parameters, multiply-adds and activations of the parts of a detector, for one or several configs.

    python tools/analyze_model.py --config-file configs/faster_rcnn_R50_fpn.yaml
    python tools/analyze_model.py --config-file configs/faster_rcnn_R50_{fpn,sni,ihp}.yaml --size 800x1333

Operators are counted by the shapes of their tensors, and nothing is computed. One GFLOP is 10^9 multiply-adds.
`sn2fpn.modeling.analysis` explains which operations count, and for how many boxes the heads are counted. Operations
that are not counted are listed below the table.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from sn2fpn.command_line import CommandLineParser
from sn2fpn.config import LazyConfig, get_cfg, instantiate
from sn2fpn.engine.lazy_checks import COUNTERPARTS
from sn2fpn.errors import UserError
from sn2fpn.imports import import_files
from sn2fpn.modeling import build_model
from sn2fpn.modeling.analysis import PARTS, Analysis, analyze
from sn2fpn.predict.loading import evaluation_resize
from sn2fpn.program import run_program

SUFFIXES = (".yaml", ".yml", ".py")


def table(analyses: dict[str, Analysis]) -> str:
    """Format the counts, with parts in rows and configurations in columns."""
    rows: list[list[Any]] = [["input, padded", "", *(f"{a.size[0]}x{a.size[1]}" for a in analyses.values())]]
    for title, field, unit in (
        ("parameters, millions", "parameters", 1e6),
        ("GFLOPs", "flops", 1e9),
        ("activations, millions", "activations", 1e6),
    ):
        counts = [getattr(a, field) for a in analyses.values()]
        for i, part in enumerate(PARTS):
            if any(c[part] for c in counts):
                rows.append([title if i == 0 else "", part, *(f"{c[part] / unit:.2f}" for c in counts)])
        rows.append(["", "total", *(f"{sum(c.values()) / unit:.2f}" for c in counts)])
    align = ("left", "left", *("right" for _ in analyses))
    return tabulate(rows, ["", "", *analyses], tablefmt="github", disable_numparse=True, colalign=align)


def main(argv: list[str] | None = None) -> int:
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", nargs="+", required=True, metavar="FILE", help="one or several configs")
    parser.add_import()
    parser.add_argument(
        "--size",
        metavar="HxW",
        help="height and width of the input in pixels, which is padded as in training "
        "(default: short x long edge of the config in evaluation)",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys to change in all configs; key=value for Python configs",
    )
    args = parser.parse_args(argv)
    return run_program(lambda: _analyze(args))


def _analyze(args: argparse.Namespace) -> None:
    count = sum(1 for _ in itertools.takewhile(lambda f: Path(f).suffix in SUFFIXES, args.config_file))
    files, opts = args.config_file[:count], args.config_file[count:] + args.opts  # pairs may follow the files
    if not files:
        raise UserError(f"--config-file: expected a name that ends with {' or '.join(SUFFIXES)}, found {opts[0]!r}")
    size = _size(args.size)
    import_files(args.imports)
    analyses = {name: _analyze_config(file, opts, size) for name, file in zip(_short_names(files), files)}
    print(table(analyses))
    print(
        "\nNot counted: anchors, the selection of proposals and detections (NMS), RoI pooling, the pasting of masks, "
        "and these operators, for which there is no rule:"
    )
    for name, a in analyses.items():
        print(f"  {name}: " + ", ".join(f"{op.partition('::')[2]} x{n}" for op, n in a.uncounted.most_common()))


def _analyze_config(file: str, opts: list[str], size: tuple[int, int] | None) -> Analysis:
    if file.endswith(".py"):
        config = LazyConfig.apply_overrides(LazyConfig.load(file), opts, COUNTERPARTS)
        resize = evaluation_resize(config)
        size = size or ((resize.short_edges[0], resize.max_size) if resize else None)
        return analyze(instantiate(config.model), _given(size, file))
    cfg = get_cfg()
    cfg.merge_from_file(file)
    cfg.merge_from_list(opts)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu"])
    return analyze(build_model(cfg), _given(size or (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST), file))


def _given(size: tuple[int, int] | None, file: str) -> tuple[int, int]:
    if size is None or min(size) < 1:
        raise UserError(f"--size HxW is needed, because {file} does not resize images")
    return size


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise UserError(f"--size {text}: expected HEIGHTxWIDTH in pixels, e.g. --size 800x1333")
    return int(sides[0]), int(sides[1])


def _short_names(files: list[str]) -> list[str]:
    stems = [Path(f).stem for f in files]
    return stems if len(set(stems)) == len(stems) else files


if __name__ == "__main__":
    sys.exit(main())
