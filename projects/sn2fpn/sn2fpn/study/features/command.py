"""`python -m sn2fpn.study features` draws and measures the feature maps of trained models on images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from ...data import evenly_spread, load_coco_json, read_image
from ...data.images import check_image_size
from ...data.selection import require_annotations
from ...errors import UserError, argument_names, counted, did_you_mean
from ...imports import import_files
from ...predict.inputs import find_files, is_video
from ...predict.loading import load_predictor
from ...predict.names import free_names
from ...predict.outputs import check_inputs_stay
from .examine import compare_models, measures_table

__all__ = ["main"]

_MEANINGS = {
    "localisation": "from 0 to 1, 1 if the energy marks all boxes, 0.5 by chance, 0 if boxes have the least energy",
    "coarse share": "from 0 to 1, the share of a map that comes from coarser levels",
    "agreement": "from -1 to 1, 1 if coarser levels repeat what the level has, 0 if unrelated, -1 if they cancel",
}
"""What the columns of the table say, by the first words of their headings."""
_NO_SCORE = "None of these is accuracy, so that more is not better by itself; read them beside AP."


def main(args: argparse.Namespace) -> int:
    """Run the command and return 0."""
    if args.weights and len(args.weights) != len(args.config_file):
        raise UserError(
            f"--weights: {len(args.config_file)} configurations need {len(args.config_file)} checkpoints, "
            f"in the same order, found {len(args.weights)}"
        )
    if args.drawings < 0:
        raise UserError(f"--drawings {args.drawings}: expected a number of images, 0 or more")
    files = _images(args.input)
    records = _records(files, args.annotations)
    outputs = list(free_names(files, Path(args.output), lambda _: ".png"))
    check_inputs_stay(dict(zip(files, outputs)))
    drawings = {i: outputs[i] for i in evenly_spread(range(len(files)), args.drawings)}
    import_files(args.imports)
    models = zip(name_models(args.config_file, args.weights), args.config_file, args.weights or repeat(""))
    with argument_names({"predictors": "--config-file"}):
        predictors = (
            (name, load_predictor(config, weights, args.opts, args.trust)[0]) for name, config, weights in models
        )
        path = Path(args.output) / "features.json"
        results = compare_models(predictors, records, drawings, args.annotations or None, path)
    for i, output in drawings.items():
        print(f"{files[i]} -> {output}")
    table = measures_table(results["variants"])
    print(f"\nMeans over {counted(len(records), 'image')}:\n\n{table}")
    meanings = [f"{name}: {words}" for name, words in _MEANINGS.items() if name.split()[0] in table]
    print("", *meanings, _NO_SCORE, sep="\n")
    if not args.annotations:
        print("\nWithout --annotations, measures that need objects are left out.")
    return 0


def name_models(configs: Sequence[str], weights: Sequence[str]) -> list[str]:
    """Return short names that tell models apart.

    They are the file names of the configurations, or the folders of the weights if those names repeat, or else they are
    numbered. Words between underscores that all names share are left out: "faster_rcnn_R18_fpn_shapes" and
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


def _images(inputs: Sequence[str]) -> list[Path]:
    files, missing = find_files(inputs, sys.stdin)
    if missing:
        raise UserError(f"--input: no file matches {', '.join(missing)}")
    videos = [str(file) for file in files if is_video(file)]
    if videos:
        raise UserError(f"--input: expected images, found the video {videos[0]}")
    return files


def _records(files: Sequence[Path], annotations: str) -> list[dict[str, Any]]:
    """Return a data set dict for each image, with its objects if there is a COCO file."""
    known: dict[str, list[dict[str, Any]]] = {}  # the images of the COCO file by the last part of their names
    if annotations:
        images = load_coco_json(annotations, "", allow_outside=True)
        require_annotations(images, f"--annotations {annotations}")
        for image in images:
            known.setdefault(Path(image["file_name"]).name, []).append(image)
    records = []
    for file in files:
        pixels = read_image(file)  # a damaged image is found before any other work
        record = {"height": pixels.shape[0], "width": pixels.shape[1], "annotations": []}
        record = (_find(file, known, annotations) if annotations else record) | {"file_name": str(file)}
        check_image_size(record, pixels)
        records.append(record)
    return records


def _find(file: Path, known: Mapping[str, list[dict[str, Any]]], annotations: str) -> dict[str, Any]:
    """Return the image of the COCO file whose name is the end of the file's path, or of the path it is a link to."""
    for parts in (file.absolute().parts, file.resolve().parts):
        named = known.get(parts[-1], [])
        matches = [r for r in named if parts[-len(Path(r["file_name"]).parts) :] == Path(r["file_name"]).parts]
        if matches:
            break
    else:
        raise UserError(f"--annotations {annotations}: has no image {file.name!r}{did_you_mean(file.name, known)}")
    return max(matches, key=lambda r: len(Path(r["file_name"]).parts))
