"""The analysis of stored predictions, `python -m sn2fpn.evaluation.analysis`.

    python -m sn2fpn.evaluation.analysis output/my_run   # all data sets that the run was evaluated on
    python -m sn2fpn.evaluation.analysis --data-set coco_2017_val --predictions coco_instances_results.json

The exit code is 0 after an analysis and 2 for wrong usage or broken files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...command_line import CommandLineParser
from ...data import DatasetCatalog
from ...errors import UserError, counted, nearby_files
from ...imports import import_files
from ...program import run_program
from ..voc import PascalVOCEvaluator
from . import EXTREMES, PREDICTIONS, write_analysis
from .stored import evaluator_of, register_data_sets

__all__ = ["main", "parser"]

_NOT_OF_VOC = (
    "This AP50 is read at 101 recalls, as COCO's is, so that it differs from that of Pascal VOC in the results."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_program(lambda: _run(parser().parse_args(argv)))


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    parser = CommandLineParser(
        prog="python -m sn2fpn.evaluation.analysis",
        description="Show what a detector does right and wrong: kinds of errors, confusions, precision and pictures.",
    )
    parser.add_argument("run", nargs="?", type=Path, metavar="FOLDER", help="folder of a training or of an evaluation")
    parser.add_argument("--data-set", help="name of the data set; without it, all that the run was evaluated on")
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help=f"file of predictions, instead of a run's {PREDICTIONS}"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="folder to write to; by default that of the predictions"
    )
    parser.add_import()
    return parser


def _run(args: argparse.Namespace) -> int:
    if args.output and args.output.is_file():
        raise UserError(f"--output: expected a folder, found the file {args.output}")
    import_files(args.imports)
    for name, predictions in _predictions(args):
        DatasetCatalog.read(name, "--data-set" if args.data_set else str(args.run))
        folder = args.output / name if args.output else predictions.parent
        evaluator = evaluator_of(args.run, name)
        if (charts := write_analysis(evaluator, predictions, folder)) is None:
            raise UserError(f"data set {name!r} has no annotations, so that nothing is known to be right or wrong")
        summary = json.loads((folder / "analysis.json").read_text())
        print(_text(name, summary))
        if summary["detections"] and isinstance(evaluator, PascalVOCEvaluator):
            print(_NOT_OF_VOC)
        print(f"Charts: {charts}")
        if (pictures := folder / EXTREMES).is_file():
            print(f"Best and worst pictures: {pictures} (green: right, orange: wrong, red: missed)")
    return 0


def _predictions(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """Return the data sets and their files of predictions that the command line asks for."""
    if (args.run is None) == (args.predictions is None):
        raise UserError("expected either the folder of a run, or --data-set with --predictions")
    if args.predictions is not None:
        if args.data_set is None:
            raise UserError("--predictions: expected --data-set with it, the name of the data set of the predictions")
        return [(args.data_set, args.predictions)]
    if args.run.is_file():
        raise UserError(f"{args.run}: expected the folder of a run, found a file; --predictions takes files")
    if not args.run.is_dir():
        raise UserError(f"{args.run}: there is no such folder{nearby_files(args.run, '*/config.yaml')}")
    register_data_sets(args.run)
    found = sorted((args.run / "inference").glob(f"*/{PREDICTIONS}"))
    if not found:
        above = next(
            (f"; did you mean {p}?" for p in args.run.parents if any(p.glob(f"inference/*/{PREDICTIONS}"))), ""
        )
        raise UserError(f"{args.run}: expected inference/<data set>/{PREDICTIONS}, which an evaluation writes{above}")
    by_name = {path.parent.name: path for path in found}
    if args.data_set is None:
        return list(by_name.items())
    if args.data_set not in by_name:
        raise UserError(f"--data-set {args.data_set}: {args.run} has predictions for {', '.join(by_name)} only")
    return [(args.data_set, by_name[args.data_set])]


def _text(name: str, summary: dict[str, Any]) -> str:
    """Return the main numbers of an analysis in a few sentences."""
    objects, detections = counted(summary["objects"], "object"), counted(summary["detections"], "detection")
    if not summary["objects"]:
        return f"{name}: the data set has no objects, so there is no AP50 and no detection is right ({detections})."
    if not summary["detections"]:
        return f"{name}: nothing was detected. The data set has {objects}, all of which are missed, and AP50 is 0."
    errors = summary["errors"]
    lost = ", ".join(f"{kind} {points:.1f} ({errors[kind]:,})" for kind, points in summary["lost_AP50"].items())
    return (
        f"{name}: AP50 is {summary['AP50']:.1f}, with {detections} and {objects}. Points of AP50 that each kind of "
        f"error costs, and in brackets the number of errors: {lost}. The F1 score is best for detections that score "
        f"{summary['threshold']:.2f} or more."
    )


if __name__ == "__main__":
    sys.exit(main())
