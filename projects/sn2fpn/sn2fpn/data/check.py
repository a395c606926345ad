"""The check of data sets, `python -m sn2fpn.data.check NAME …`, to be run before a long training.

The check reads all annotations, decodes every image, and prints counts, tables by class and by size, and every problem
with its file and reason. Notes name what may be intended but is often a mistake. The exit code is 0 if the data are
valid, 1 if there are problems, and 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from ..command_line import CommandLineParser
from ..config import CfgNode, get_cfg
from ..config.own_sets import OWN_SETS
from ..errors import UserError, counted, did_you_mean
from ..imports import import_files
from ..program import run_program
from ..ranges import check_count
from ..structures import box_of
from ..visualization import class_color, draw_boxes, fit_image, image_grid, save_png
from .catalog import DatasetCatalog, DatasetDicts, class_names
from .custom import register_custom
from .files import explain_missing, find_missing
from .images import check_image_size, read_image
from .plausible import find_doubts, find_notes
from .problems import Problem, collect_problems
from .selection import check_classes, evenly_spread, has_object, keep_learnable, require_annotations
from .statistics import class_histogram, size_histogram

__all__ = ["check_dataset", "main", "parser"]

_KEY = re.compile(r"([A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|SEED|OUTPUT_DIR|VERSION)(=.*)?", re.DOTALL)  # a key after the names


def check_dataset(name: str) -> tuple[DatasetDicts, list[Problem]]:
    """Read a data set and decode all its images. Broken images are reported and do not stop the check.

    Returns:
        The data set dicts whose images are valid, and all problems.

    Raises:
        UserError: there is no data set with this name.
    """
    if name not in DatasetCatalog:
        if Path(name).exists():
            command = f"python -m sn2fpn.data.check {OWN_SETS} '{{mine: {{ANNOTATIONS: {name}}}}}'"
            raise UserError(f"{name!r} is a file or folder, expected the name of a data set; to check it: {command}")
        raise UserError(f"unknown data set {name!r}{did_you_mean(name, DatasetCatalog)}")
    with collect_problems() as found:
        try:
            records = DatasetCatalog.get(name)
            missing = find_missing(records)
        except UserError as e:
            return [], [*found, Problem(name, str(e))]
    found += [Problem(name, doubt) for doubt in find_doubts(records) if doubt not in {p.reason for p in found}]
    if missing:
        file, _, reason = explain_missing(missing, len(records)).partition(": ")
        found.append(Problem(file, reason))
        absent = set(missing)
        records = [r for r in records if Path(r["file_name"]) not in absent]
    problems = list(dict.fromkeys(found))
    valid: DatasetDicts = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = track(
            pool.map(_check_image, records),
            f"{name}: decoding",
            total=len(records),
            console=Console(stderr=True),
            transient=True,
        )
        for record, problem in zip(records, results):
            if problem is None:
                valid.append(record)
            else:
                problems.append(problem)
    return valid, problems


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger(f"{__package__}.custom").setLevel(logging.INFO)  # says as which format a file is recognised
    args = parser().parse_intermixed_args(argv)
    return run_program(lambda: _check(args))


def _check(args: argparse.Namespace) -> int:
    check_count("--images", args.images, at_least=0)
    import_files(args.imports)
    cfg, knows_model, names = _configure(args)
    found, most = 0, cfg.TEST.DETECTIONS_PER_IMAGE
    samples: list[tuple[str, dict[str, Any]]] = []
    for name in names:
        records, problems = check_dataset(name)
        if knows_model and records:
            problems += _model_problems(cfg, name, records)
        if records:
            problems += [Problem(name, note, is_note=True) for note in find_notes(records, class_names(name), most)]
        _report(name, records, problems)
        found += sum(not p.is_note for p in problems)
        annotated = [r for r in records if r.get("annotations")] or records
        samples += [(name, record) for record in evenly_spread(annotated, args.images)]
    if args.plot and samples:
        print(f"picture: {_plot(samples, args.plot)}")
    return 1 if found else 0


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    parser = CommandLineParser(
        prog="python -m sn2fpn.data.check",
        description="Read whole data sets and report every problem.",
        epilog="The exit code is 0 if the data are valid, 1 if there are problems, and 2 for wrong usage.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="the data sets (default: those of the config file); pairs of KEY VALUE may follow",
    )
    parser.add_config_file("a YAML config, for DATASETS.CUSTOM and for the number of classes")
    parser.add_import()
    parser.add_argument("--plot", metavar="PNG", help="draw annotated samples into this file")
    parser.add_argument(
        "--images", type=int, default=9, metavar="N", help="number of samples per data set (default: %(default)s)"
    )
    return parser


def _configure(args: argparse.Namespace) -> tuple[CfgNode, bool, list[str]]:
    """Register custom data sets, and return the configuration and what to check.

    Returns:
        The configuration, whether it says how many classes the model has, and the names of the data sets to check.
    """
    first_key = next((i for i, word in enumerate(args.names) if _KEY.fullmatch(word)), len(args.names))
    names, overrides = args.names[:first_key], args.names[first_key:]
    cfg = get_cfg()
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(overrides)
    own = register_custom(cfg.DATASETS.CUSTOM)
    names = names or [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST] or own
    if not names:
        raise UserError(
            "expected the name of a data set, for instance: python -m sn2fpn.data.check coco_2017_val"
            f"{did_you_mean('', DatasetCatalog, limit=20)}"
        )
    knows_model = bool(args.config_file) or "MODEL.ROI_HEADS.NUM_CLASSES" in overrides
    return cfg, knows_model, list(dict.fromkeys(names))


def _model_problems(cfg: CfgNode, name: str, records: DatasetDicts) -> Iterator[Problem]:
    """Yield the reason why the model of the configuration does not fit a data set, if there is one.

    A model with masks cannot learn from a set without masks, but it can be evaluated on one, by its boxes.
    """
    what, trains = f"data set {name!r}", name in cfg.DATASETS.TRAIN
    try:
        check_classes(cfg, name)
        if trains:
            require_annotations(records, what)
        if trains or name not in cfg.DATASETS.TEST:
            keep_learnable(cfg, records, what)
        if trains and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and not any(map(has_object, records)):
            yield Problem(name, f"none of the {counted(len(records), 'image')} of {what} has a box to train on")
    except UserError as e:
        yield Problem(name, str(e))


def _check_image(record: dict[str, Any]) -> Problem | None:
    try:
        check_image_size(record, read_image(record["file_name"]))
    except UserError as e:
        return Problem(record["file_name"], str(e).removeprefix(f"{record['file_name']}: "))
    return None


def _report(name: str, records: DatasetDicts, problems: list[Problem]) -> None:
    print(f"== {name}")
    if records:
        print(class_histogram(records, class_names(name)), size_histogram(records), _summary(records), sep="\n\n")
    for problem in sorted(problems, key=lambda p: not p.is_note):
        print(f"{'note' if problem.is_note else 'problem'}: {problem}")
    count = sum(not p.is_note for p in problems)
    print(f"{name}: {counted(len(records), 'valid image')}, {counted(count, 'problem') if count else 'no problems'}\n")


def _summary(records: DatasetDicts) -> str:
    def spread(values: list[int]) -> str:
        return f"{min(values)} to {max(values)}, median {int(np.median(values))}"

    found = [r.get("annotations", []) for r in records]
    counts = [sum(not a.get("iscrowd", 0) for a in annotations) for annotations in found]
    masks = sum(bool(a.get("segmentation")) for annotations in found for a in annotations)
    difficult = sum(a.get("difficult", 0) for annotations in found for a in annotations)
    return (
        f"width {spread([r['width'] for r in records])}; height {spread([r['height'] for r in records])}; "
        f"boxes per image {spread(counts)}; {counted(counts.count(0), 'image')} without boxes"
        + (f"; {counted(masks, 'mask')}" if masks else "")
        + (f"; {counted(difficult, 'difficult object')}" if difficult else "")
        + ("" if all("annotations" in r for r in records) else "; no annotations, for prediction only")
    )


def _plot(samples: list[tuple[str, dict[str, Any]]], path: str) -> Path:
    """Draw annotated images, given with the names of their data sets, into one PNG file."""
    cells, titles = [], []
    for name, record in samples:
        image, factor = fit_image(read_image(record["file_name"], "RGB"), 400)
        annotations = record.get("annotations", [])
        boxes = [box_of(a) * factor for a in annotations]
        ids = [a["category_id"] for a in annotations]
        names = class_names(name)
        labels = [names[i] + (" (crowd)" if a.get("iscrowd") else "") for i, a in zip(ids, annotations)]
        cells.append(draw_boxes(image, np.reshape(boxes, (-1, 4)), labels, [class_color(i) for i in ids]))
        titles.append(f"{Path(record['file_name']).name}: {counted(len(boxes), 'box', 'boxes')}")
    columns = int(np.ceil(np.sqrt(len(cells))))
    rows = [slice(i, i + columns) for i in range(0, len(cells), columns)]
    try:
        return save_png(image_grid([cells[r] for r in rows], [titles[r] for r in rows]), path)
    except OSError as e:
        raise UserError(f"--plot {path}: cannot be written: {e}") from None


if __name__ == "__main__":
    sys.exit(main())
