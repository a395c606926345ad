"""What a detector does right and wrong on a data set.

    python -m sn2fpn.evaluation.analysis output/my_run   # all data sets that the run was evaluated on
    python -m sn2fpn.evaluation.analysis --data-set coco_2017_val --predictions coco_instances_results.json

A training and an evaluation write the same files beside their predictions: `analysis.json`, the charts `analysis.png`,
and `best_and_worst.png` with the pictures on which the detector does best and worst.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..atomic import atomic_write
from ..command_line import CommandLineParser
from ..config import get_cfg
from ..config.yaml_limits import check_yaml
from ..data import DatasetCatalog, read_image, register_custom
from ..errors import UserError, counted, nearby_files
from ..program import run_program
from ..visualization import image_grid, plot_analysis, save_png
from .build import build_evaluator
from .detections import DetectionEvaluator, ImageDetections
from .error_split import ErrorSplit, Judgement, judge_image, split_errors
from .hits import Hits, best_threshold, confusion_matrix, count_hits, draw_hits
from .tables import without_nan
from .voc import PascalVOCEvaluator

__all__ = ["Analysis", "analyse", "main", "parser", "write_analysis"]

logger = logging.getLogger(__name__)

PREDICTIONS = "coco_instances_results.json"
_EXTREMES = "best_and_worst.png"
_PICTURES, _SIZE_PX = 4, 360
_NOT_OF_VOC = (
    "This AP50 is read at 101 recalls, as COCO's is, so that it differs from that of Pascal VOC in the results."
)


@dataclass(frozen=True)
class Analysis:
    """What a detector does right and wrong.

    Attributes:
        class_names: the class names by contiguous id.
        threshold: the score at which the F1 score over all images is best; hits and confusions count from there on. It
            is 0 without detections.
        errors: the kinds of errors, and the precision at each recall.
        confusion: see `confusion_matrix`.
        hits: for each image, what it holds right and wrong.
        judged: for each image, what its detections are.
    """

    class_names: list[str]
    threshold: float
    errors: ErrorSplit
    confusion: np.ndarray
    hits: list[Hits]
    judged: list[Judgement]

    @property
    def detections(self) -> int:
        """The number of all detections."""
        return sum(len(j.scores) for j in self.judged)

    def summary(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the analysis in plain values, with the images from worst to best."""
        order = sorted(range(len(self.hits)), key=self._rank)
        images = [
            {"file_name": records[i]["file_name"], "f1": self.hits[i].f1, **self.hits[i]._asdict()} for i in order
        ]
        names = [*self.class_names, "background"]
        return {
            "detections": self.detections,
            "objects": sum(len(j.object_classes) for j in self.judged),
            "threshold": self.threshold,
            "AP50": self.errors.ap50,
            "lost_AP50": self.errors.lost,
            "errors": self.errors.count,
            "precision_at_recall": self.errors.precision.tolist(),
            "confusion": {"rows": "object", "columns": "detection", "names": names, "matrix": self.confusion.tolist()},
            "images": images,
        }

    def extremes(self, number: int) -> tuple[list[int], list[int]]:
        """Return the positions of the images with the worst and with the best results, without images in both."""
        order = sorted(range(len(self.hits)), key=self._rank)
        best = [i for i in reversed(order) if self.hits[i].right][:number]
        return [i for i in order if self.hits[i].wrong + self.hits[i].missed and i not in best][:number], best

    def _rank(self, i: int) -> tuple[float, int]:
        """Rank an image by its F1 score, and then by the number of its mistakes or of its hits."""
        hits = self.hits[i]
        return hits.f1, hits.right if hits.f1 == 1 else -hits.wrong - hits.missed


def analyse(evaluator: DetectionEvaluator, found: Sequence[ImageDetections]) -> Analysis:
    """Analyse the detections in all images of a data set.

    Args:
        evaluator: the evaluator of the data set, whose metric tells which objects count.
        found: the detections of each image, in the order of the data set.
    """
    records, names = evaluator.records, evaluator.class_names
    judged = [judge_image(record, of_image, evaluator.counts) for record, of_image in zip(records, found, strict=True)]
    threshold = best_threshold(judged)
    confusion = confusion_matrix(records, found, judged, len(names), threshold)
    hits = [count_hits(j, threshold) for j in judged]
    return Analysis(list(names), threshold, split_errors(judged, len(names)), confusion, hits, judged)


def write_analysis(evaluator: DetectionEvaluator, predictions: Path, folder: Path) -> Path | None:
    """Analyse stored predictions, and write `analysis.json`, `analysis.png` and `best_and_worst.png`.

    Args:
        evaluator: the evaluator of the data set.
        predictions: the file `coco_instances_results.json` that it has written.
        folder: the folder to write to.

    Returns:
        The charts, or None if the data set has no annotations.

    Raises:
        UserError: the predictions cannot be read, or belong to another data set.
    """
    records = evaluator.records
    if not all("annotations" in record for record in records):
        return None
    found = evaluator.read_detections(predictions)
    analysis = analyse(evaluator, found)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "analysis.json") as file:
        json.dump(without_nan(analysis.summary(records)), file, indent=1)
    charts = plot_analysis(
        analysis.errors.precision,
        analysis.errors.lost,
        analysis.confusion,
        [*analysis.class_names, "background"],
        analysis.threshold if analysis.detections else None,
        folder / "analysis.png",
    )
    _draw_extremes(analysis, records, found, folder / _EXTREMES)
    return charts


def _draw_extremes(
    analysis: Analysis, records: Sequence[dict[str, Any]], found: Sequence[ImageDetections], path: Path
) -> None:
    """Draw the worst images above the best ones, with hits, false positives and missed objects in colour."""
    rows, titles = [], []
    for word, chosen in zip(("worst", "best"), analysis.extremes(_PICTURES)):
        pictures, captions = [], []
        for i in chosen:
            try:
                image = read_image(records[i]["file_name"], "RGB")
            except UserError as e:
                logger.warning("no picture of image %s: %s", records[i]["image_id"], e)
                continue
            pictures.append(draw_hits(image, _SIZE_PX, records[i], found[i], analysis.judged[i], analysis.threshold))
            hits = analysis.hits[i]
            captions.append(f"{word}: {hits.right} right, {hits.wrong} wrong, {hits.missed} missed")
        if pictures:
            rows.append(pictures)
            titles.append(captions)
    if rows:
        save_png(image_grid(rows, titles), path)
    else:
        path.unlink(missing_ok=True)  # of other predictions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_program(lambda: _run(parser().parse_args(argv)))


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    parser = CommandLineParser(
        prog="python -m sn2fpn.evaluation.analysis",
        description="Show what a detector does right and wrong: kinds of errors, confusions, precision and pictures.",
    )
    parser.add_argument("run", nargs="?", type=Path, help="folder of a training or of an evaluation")
    parser.add_argument("--data-set", help="name of the data set; without it, all that the run was evaluated on")
    parser.add_argument("--predictions", type=Path, help=f"file of predictions, instead of a run's {PREDICTIONS}")
    parser.add_argument("--output", type=Path, help="folder to write to; by default that of the predictions")
    return parser


def _run(args: argparse.Namespace) -> int:
    if args.output and args.output.is_file():
        raise UserError(f"--output: expected a folder, found the file {args.output}")
    for name, predictions in _predictions(args):
        DatasetCatalog.read(name, "--data-set" if args.data_set else str(args.run))
        folder = args.output / name if args.output else predictions.parent
        evaluator = _evaluator(args.run, name)
        if (charts := write_analysis(evaluator, predictions, folder)) is None:
            raise UserError(f"data set {name!r} has no annotations, so that nothing is known to be right or wrong")
        summary = json.loads((folder / "analysis.json").read_text())
        print(_text(name, summary))
        if summary["detections"] and isinstance(evaluator, PascalVOCEvaluator):
            print(_NOT_OF_VOC)
        print(f"Charts: {charts}")
        if (pictures := folder / _EXTREMES).is_file():
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
    _register_data_sets(args.run / "config.yaml")
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


def _register_data_sets(config: Path) -> None:
    """Register the data sets that the configuration of a run describes, whether it was a YAML or a Python file."""
    with _reading(config) as stored:
        for group, key in (("DATASETS", "CUSTOM"), ("dataloader", "custom")):
            if group in stored:
                register_custom(list(stored[group].get(key) or []), f"{config}: {group}.{key}")


def _evaluator(run: Path | None, name: str) -> DetectionEvaluator:
    """Return the evaluator of a data set with the metric of a run, or without a run with the data set's own metric."""
    cfg = get_cfg()
    if run is not None:
        with _reading(run / "config.yaml") as stored:
            cfg.TEST.EVALUATOR = stored.get("TEST", {}).get("EVALUATOR", cfg.TEST.EVALUATOR)
    return build_evaluator(cfg, name)


@contextmanager
def _reading(config: Path) -> Iterator[dict[str, Any]]:
    """Yield the configuration of a run, which is empty if there is none; an error while it is read names the file."""
    try:
        text = config.read_text(encoding="utf-8") if config.is_file() else "{}"
        check_yaml(text)
        yield yaml.safe_load(text)
    except (AttributeError, OSError, TypeError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"{config}: expected the configuration of a run, which cannot be read: {e}") from e


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
