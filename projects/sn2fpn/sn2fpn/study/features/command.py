"""`python -m sn2fpn.study features`: draw and measure the maps of trained models on pictures."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError, did_you_mean

if TYPE_CHECKING:
    from .look import Measures
    from .view import View

__all__ = ["add_arguments", "main"]

logger = logging.getLogger(__name__)

_RESULTS = "features.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument(
        "--config-file",
        required=True,
        nargs="+",
        metavar="FILE",
        help="configurations of the models to compare, .yaml or .py",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="FILE",
        help="a checkpoint per configuration (default: those that the configurations name)",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="pictures, folders, patterns; - for such names in standard input, one a line",
    )
    parser.add_argument(
        "--annotations",
        default="",
        metavar="FILE",
        help="COCO file with the pictures' objects; without it, what needs objects is left out",
    )
    parser.add_argument(
        "--output",
        default="output/features",
        metavar="FOLDER",
        help="gets the drawings and features.json (default %(default)s)",
    )
    parser.add_argument(
        "--drawings",
        type=int,
        default=8,
        metavar="N",
        help="draw at most N of the pictures, evenly spread; all are measured (default %(default)s)",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys to change in all configurations, after all flags",
    )


def main(args: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code 0.

    Raises:
        UserError: mistakes in the arguments, a file that cannot be read, or models without common levels.
    """
    if args.weights and len(args.weights) != len(args.config_file):
        raise UserError(
            f"--weights: {len(args.config_file)} configurations need {len(args.config_file)} checkpoints, "
            f"in the same order, found {len(args.weights)}"
        )
    if args.drawings < 0:
        raise UserError(f"--drawings {args.drawings}: expected a number of pictures, 0 or more")
    from ...predict.loading import load_predictor
    from .drawing import draw_views
    from .examine import build_mapper, examine, spread
    from .results import measures_table, write_results

    files = _pictures(args.input)
    records = _records(files, args.annotations)
    outputs = _name_drawings(files, Path(args.output))
    drawn = spread(len(files), args.drawings)
    measures: dict[str, dict[str, Measures]] = {}
    views: dict[str, list[View]] = {}
    names = name_models(args.config_file, args.weights)
    for name, config, weights in zip(names, args.config_file, args.weights or [""] * len(names)):
        predictor, _ = load_predictor(config, weights, args.opts)
        mapper = build_mapper(predictor.model, predictor.resize)
        measures[name], views[name] = examine(predictor.model, mapper, records, drawn)
        if list(measures[name]) != list(measures[names[0]]):
            found, expected = (", ".join(measures[n]) for n in (name, names[0]))
            raise UserError(
                f"--config-file: {config} has levels {found}, {args.config_file[0]} has {expected}; "
                "compare models with the same MODEL.FPN.IN_FEATURES"
            )
    for k, i in enumerate(drawn):
        draw_views({name: views[name][k] for name in names}, outputs[i], files[i].name)
        print(f"{files[i]} -> {outputs[i]}")
    write_results(measures, len(records), args.annotations or None, Path(args.output) / _RESULTS)
    print(f"\nMeans over {len(records)} picture{'s' * (len(records) != 1)}:\n\n{measures_table(measures)}")
    if not args.annotations:
        print("\nWithout --annotations, what needs objects is left out.")
    return 0


def name_models(configs: Sequence[str], weights: Sequence[str]) -> list[str]:
    """Short names that tell models apart: the configs' file names, else the folders of the weights, else numbers.

    What all names have in common between underscores is left out: "faster_rcnn_R18_fpn_shapes" and
    "faster_rcnn_R18_sni_shapes" become "fpn" and "sni".
    """
    names = [Path(config).stem for config in configs]
    if len(set(names)) < len(names):
        names = [Path(weight).parent.name for weight in weights]
    if len(set(names)) < len(configs):
        return [f"{Path(config).stem} ({i})" for i, config in enumerate(configs, start=1)]
    words = [name.split("_") for name in names]
    common = set.intersection(*map(set, words)) if len(names) > 1 else set()
    short = ["_".join(word for word in name if word not in common) for name in words]
    return short if all(short) and len(set(short)) == len(short) else names


def _pictures(inputs: Sequence[str]) -> list[Path]:
    from ...predict.inputs import find_files, is_video

    files, missing = find_files(inputs, sys.stdin)
    if missing:
        raise UserError(f"--input: no file matches {', '.join(missing)}")
    videos = [str(file) for file in files if is_video(file)]
    if videos:
        raise UserError(f"--input: expected pictures, found the video {videos[0]}")
    return files


def _records(files: Sequence[Path], annotations: str) -> list[dict[str, Any]]:
    """A data set dict per picture; its objects come from the COCO file, where there is one."""
    from ...data import load_coco_json, read_image
    from ...data.images import check_image_size

    known = load_coco_json(annotations, "") if annotations else []
    records = []
    for file in files:
        picture = read_image(file)  # decoded here, so that a damaged picture is found before any work
        record = {"height": picture.shape[0], "width": picture.shape[1], "annotations": []}
        record = (_find(file, known, annotations) if annotations else record) | {"file_name": str(file)}
        check_image_size(record, picture)
        records.append(record)
    return records


def _find(file: Path, known: Sequence[dict[str, Any]], annotations: str) -> dict[str, Any]:
    """The one image of the COCO file whose name is the end of the picture's path."""
    parts = file.resolve().parts
    matches = [r for r in known if parts[-len(Path(r["file_name"]).parts) :] == Path(r["file_name"]).parts]
    if not matches:
        names = {Path(r["file_name"]).name for r in known}
        raise UserError(f"--annotations {annotations}: has no image {file.name!r}{did_you_mean(file.name, names)}")
    return max(matches, key=lambda r: len(Path(r["file_name"]).parts))


def _name_drawings(files: Sequence[Path], folder: Path) -> list[Path]:
    """A PNG per picture, numbered where names repeat; none replaces a picture."""
    inputs = {file.resolve() for file in files}
    taken: set[Path] = set()
    outputs = []
    for file in files:
        output, number = folder / f"{file.stem}.png", 2
        while output in taken:
            output, number = folder / f"{file.stem}-{number}.png", number + 1
        if output.resolve() in inputs:
            raise UserError(
                f"--output {folder}: the drawing of {file} would replace the input {output}; choose another folder"
            )
        taken.add(output)
        outputs.append(output)
    return outputs
