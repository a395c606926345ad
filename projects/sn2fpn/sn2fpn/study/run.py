"""`python -m sn2fpn.study run`: a study file -> trained cells -> measurements and a report."""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean
from .check import check_folders, check_study
from .executor import Executor, Local, Slurm, SlurmOptions, minutes
from .fairness import fairness_report
from .file import Cell, Study, cell_folder
from .locks import locked
from .records import CellState
from .runner import Runner
from .steps import STEPS, StepsJob, run_steps

__all__ = ["add_arguments", "main"]

_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the sub-command."""
    parser.add_argument("study", metavar="FILE", help="study file, e.g. studies/quick_shapes.yaml")
    parser.add_argument(
        "--output",
        default="output/studies",
        metavar="FOLDER",
        help="the study's folder is made in it (default output/studies)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check all configurations, build every variant and print what it costs; train nothing",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="CELL",
        help="cells to train: names or patterns, e.g. sni/seed1 'ihp/*'; several machines can share a study so",
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="GPUs (with MODEL.DEVICE cpu: processes) of each cell (default 1)",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="cells at a time on this machine; they share its cores, and have GPUs of their own (default 1)",
    )
    parser.add_argument(
        "--retry-failed",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train cells again that failed in an earlier run (default: yes)",
    )
    parser.add_argument(
        "--again",
        nargs="+",
        default=[],
        choices=STEPS,
        metavar="STEP",
        help=f"redo what follows the cells: {', '.join(STEPS)}",
    )
    slurm = parser.add_argument_group("on a Slurm cluster")
    parser.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="where cells are trained: this machine (default) or a Slurm cluster",
    )
    slurm.add_argument("--partition", default="", help="partition")
    slurm.add_argument(
        "--time",
        default="1-00:00:00",
        metavar="TIME",
        help="limit of a job, as Slurm writes it: minutes, h:mm:ss or d-hh:mm:ss; a cell that needs "
        "longer saves, and goes on in its next turn (default 1-00:00:00)",
    )
    slurm.add_argument(
        "--array-parallelism", type=int, default=256, metavar="N", help="jobs of the array at a time (default 256)"
    )
    slurm.add_argument("--mem", type=float, default=0, metavar="GB", help="memory of a job")
    slurm.add_argument(
        "--cpus", type=int, default=0, metavar="N", help="cores of a job (default: data workers and one, for each GPU)"
    )
    slurm.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other parameter of sbatch, e.g. --slurm qos=high --slurm mail-type=END",
    )


def main(args: argparse.Namespace) -> int:
    """Run a study; returns 0, 1 (a cell or a step failed), or 130 (interrupted).

    Raises:
        UserError: a mistake in the study file or the command.
    """
    for flag in ("num_gpus", "parallel", "array_parallelism"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag.replace('_', '-')} {getattr(args, flag)}: expected at least 1")
    study = Study.load(args.study)
    folder = Path(args.output).resolve() / study.name
    check_study(study, folder, args.num_gpus)
    if args.dry_run:
        _dry_run(study)
        return 0
    cells = _selected(study, args.only)
    check_folders(study, folder)
    _check_free_of_others(study, folder)
    study.save(folder / "study.yaml")
    executor = _executor(args, study, folder)
    print(f"Study {study.name}: {len(study.variants)} variants x {len(study.seeds)} seeds in {folder}", flush=True)
    runner = Runner(study, folder, executor, args.num_gpus)
    try:
        states = runner.run(cells, args.retry_failed)
        if runner.interrupted:
            print("Interrupted; the same command goes on from here")
            return _INTERRUPTED
        failed = _tell(study, folder, states)
        remaining = [cell.name for cell, s in states.items() if s.state not in ("finished", "failed")]
        if remaining:
            print(
                f"{len(remaining)} cells are left to others ({', '.join(remaining[:4])}…); "
                "measurements and report follow when all are there"
            )
            return int(failed)
        failed_steps = _follow_up(study, folder, executor, args)
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here")
        return _INTERRUPTED
    return int(failed or bool(failed_steps))


def _follow_up(study: Study, folder: Path, executor: Executor, args: argparse.Namespace) -> list[str]:
    if not any((cell_folder(folder, cell) / "result.json").is_file() for cell in study.cells):
        return []
    if isinstance(executor, Local):
        with locked(folder / "jobs" / "steps.lock"):
            return run_steps(study, folder, args.again)
    job = executor.submit({"steps": StepsJob(folder / "study.yaml", folder, tuple(args.again))})["steps"]
    print(f"measurements and report: Slurm job {job.job_id}", flush=True)
    failed = job.result()
    print(job.stdout())
    return failed


def _dry_run(study: Study) -> None:
    from tabulate import tabulate

    from .cost import costs_table

    rows = [row | {"cells": len(study.seeds)} for row in costs_table(study)]
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    print(f"{len(study.cells)} cells; nothing was trained")


def _selected(study: Study, patterns: list[str]) -> list[Cell]:
    if not patterns:
        return study.cells
    for pattern in patterns:
        if not any(_matches(cell, pattern) for cell in study.cells):
            raise UserError(f"--only {pattern}: no such cell{did_you_mean(pattern, [c.name for c in study.cells])}")
    return [cell for cell in study.cells if any(_matches(cell, pattern) for pattern in patterns)]


def _matches(cell: Cell, pattern: str) -> bool:
    return fnmatch(cell.name, pattern) or cell.variant.name == pattern


def _check_free_of_others(study: Study, folder: Path) -> None:
    """Name cells in the folder that the study no longer has: they stay, and are no part of the report."""
    known = {cell.name for cell in study.cells}
    others = sorted(f"{p.parent.parent.name}/{p.parent.name}" for p in folder.glob("cells/*/*/cell.json"))
    others = [name for name in others if name not in known]
    if others:
        print(f"Not in {study.path} any more, left alone: {', '.join(others)}")


def _executor(args: argparse.Namespace, study: Study, folder: Path) -> Executor:
    cfg = study.config(study.variants[0], study.seeds[0])
    gpus = args.num_gpus if cfg.MODEL.DEVICE.startswith("cuda") else 0
    if args.executor == "local":
        return Local(folder / "jobs", args.parallel, gpus, args.num_gpus)
    try:
        limit = minutes(args.time)
    except ValueError as e:
        raise UserError(f"--time: {e}") from None
    extra = [tuple(pair.split("=", 1)) for pair in args.slurm]
    wrong = [pair for pair in extra if len(pair) < 2 or not pair[0]]
    if wrong:
        raise UserError(f"--slurm {'='.join(wrong[0])}: expected KEY=VALUE, e.g. qos=high")
    cpus = args.cpus or args.num_gpus * (cfg.DATALOADER.NUM_WORKERS + 1)
    options = SlurmOptions(args.partition, gpus, cpus, args.mem, limit, args.array_parallelism, tuple(extra))
    return Slurm(folder / "jobs", f"study-{study.name}", options)


def _tell(study: Study, folder: Path, states: dict[Cell, CellState]) -> bool:
    """The fairness report and what failed; returns whether a cell failed."""
    for line in fairness_report(study, folder):
        print(line)
    failed: dict[Cell, Any] = {cell: s for cell, s in states.items() if s.state == "failed"}
    for cell, state in failed.items():
        print(f"FAILED {cell.name}: {state.note}\n  {cell_folder(folder, cell) / 'failure.txt'}")
    if failed:
        print(f"{len(failed)} of {len(states)} cells failed; the same command tries them again")
    return bool(failed)
