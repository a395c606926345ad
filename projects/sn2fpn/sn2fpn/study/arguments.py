"""The flags of the commands of `python -m sn2fpn.study`. Nothing else is imported, so that `--help` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_line import CommandLineParser
from .archive import ENDING
from .run import STEP_NAMES

__all__ = ["SLURM", "add_features", "add_merge", "add_pack", "add_report", "add_run"]

SLURM = {"partition": "", "time": "1-00:00:00", "array_parallelism": 256, "mem": 0, "cpus": 0, "slurm": []}
"""The flags of `study run` that are for a Slurm cluster alone, with their defaults."""


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `study run`."""
    parser.epilog = "The study file sets the configuration keys: SET those of all cells, and AXES those of variants."
    add, number = parser.add_argument, {"type": int, "default": 1, "metavar": "N"}
    study = "study file, e.g. studies/quick_shapes.yaml, or a name from `sn2fpn configs list`"
    add("study", metavar="FILE", help=study)
    output = "folder in which the study's own folder is made (default %(default)s)"
    add("--output", default="output/studies", metavar="FOLDER", help=output)
    dry_run = "check all configurations, build every variant and print its costs, but train nothing"
    add("--dry-run", action="store_true", help=dry_run)
    only = (
        "train only these cells, e.g. sni/seed1 'ihp/*', after the trainings that TUNE needs for their variants; in "
        "this way several machines can share a study"
    )
    add("--only", nargs="+", default=[], metavar="CELL", help=only)
    add("--num-gpus", **number, help="GPUs of each cell, or its processes with MODEL.DEVICE cpu (default 1)")
    parallel = "cells that run at a time here; they share the cores, and each has GPUs of its own (default 1)"
    add("--parallel", **number, help=parallel)
    sharing = "cells that may share a GPU here, because a small detector keeps a large GPU busy in part (default 1)"
    add("--cells-per-gpu", **number, help=sharing)
    device = "the device of all cells instead of MODEL.DEVICE; cells of several devices can be merged"
    add("--device", choices=("cpu", "cuda"), help=device)
    retry = "train cells again that failed in an earlier run (default: yes)"
    add("--retry-failed", action=argparse.BooleanOptionalAction, default=True, help=retry)
    trust = "run the Python files of IMPORTS also if they or the study file belong to somebody else"
    add("--trust", action="store_true", help=trust)
    again = f"repeat these steps that follow the cells, with those that have finished: {', '.join(STEP_NAMES)}"
    add("--again", nargs="+", default=[], choices=STEP_NAMES, metavar="STEP", help=again)
    executor = "train cells on this machine (default) or on a Slurm cluster"
    add("--executor", choices=("local", "slurm"), default="local", help=executor)

    add = parser.add_argument_group("on a Slurm cluster").add_argument
    add("--partition", help="partition")
    time = (
        "time limit of a job, as Slurm writes it: minutes, h:mm:ss or d-hh:mm:ss. A cell that needs longer saves a "
        "checkpoint and continues in its next turn (default %(default)s)"
    )
    add("--time", metavar="TIME", help=time)
    at_a_time = "jobs of the array that run at a time (default %(default)s)"
    add("--array-parallelism", type=int, metavar="N", help=at_a_time)
    add("--mem", type=float, metavar="GB", help="memory of a job")
    cpus = "cores of a job (default: for each GPU its data workers and one more)"
    add("--cpus", type=int, metavar="N", help=cpus)
    slurm = "any other parameter of sbatch, e.g. --slurm qos=high --slurm mail-type=END"
    add("--slurm", action="append", metavar="KEY=VALUE", help=slurm)
    parser.set_defaults(**SLURM)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `study report`."""
    parser.description = (
        "Write report/report.html, report/report.md, results.csv and results.json of a study from what its cells have "
        "left in their folders, whether they are finished or not. Nothing is trained."
    )
    source = "a study's folder, such as output/studies/quick_shapes, or an archive that `study pack` has written"
    parser.add_argument("source", metavar="STUDY", help=source)
    output = "folder to write to (default: the study's folder; for an archive a folder named after it)"
    parser.add_argument("--output", metavar="FOLDER", help=output)
    trust = "run the Python files of the study's IMPORTS, to find its test set, also if they belong to somebody else"
    parser.add_argument("--trust", action="store_true", help=trust)
    pictures = "leave out test images and feature maps, for example because their licences do not let them be passed on"
    parser.add_argument("--no-pictures", dest="pictures", action="store_false", help=pictures)


def add_pack(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `study pack`."""
    parser.description = (
        "Write the results of a study into one file: configurations, metrics, scores, detections and the annotations "
        "of the test sets, without weights and pictures. The report can be written from this file alone."
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a study's folder")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"the file to write (default: FOLDER with {ENDING} at its end)"
    )
    parser.add_argument(
        "--exact", action="store_true", help="keep all digits of the detections, which doubles the size of the file"
    )
    trust = "run the Python files of the study's IMPORTS, to find its test set, also if they belong to somebody else"
    parser.add_argument("--trust", action="store_true", help=trust)


def add_merge(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `study merge`."""
    parser.description = (
        "Join studies whose cells were trained separately. What does not belong together is refused: other data, other "
        "settings, another engine. The speed of the variants is kept only if one run measured all of them."
    )
    parser.add_argument("sources", metavar="STUDY", nargs="+", type=Path, help="a study's folder or an archive")
    output = f"the folder to make, or an archive if the name ends in {ENDING}"
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help=output)


def add_features(parser: CommandLineParser) -> None:
    """Add the arguments of `study features`."""
    add = parser.add_argument
    parser.add_config_file("configurations (.yaml or .py) of the models to compare", required=True, nargs="+")
    parser.add_import()
    weights = "a checkpoint for each configuration (default: those that the configurations name)"
    add("--weights", default=[], nargs="+", metavar="FILE", help=weights)
    images = "images, folders or patterns; - reads such names from standard input, one per line"
    add("--input", required=True, nargs="+", metavar="PATH", help=images)
    annotations = "COCO file with the objects of the images; without it, measures that need objects are left out"
    add("--annotations", default="", metavar="FILE", help=annotations)
    output = "folder for the drawings and features.json (default %(default)s)"
    add("--output", default="output/features", metavar="FOLDER", help=output)
    drawings = "draw at most N evenly spread images; all images are measured (default %(default)s)"
    add("--drawings", type=int, default=8, metavar="N", help=drawings)
    trust = "run Python configurations (.py) also if they belong to somebody else"
    add("--trust", action="store_true", help=trust)
    opts = "config keys to change in all configurations; they follow after all flags"
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=opts)
