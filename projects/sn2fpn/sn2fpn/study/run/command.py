"""`python -m sn2fpn.study run` makes trained cells, measurements and a report out of a study file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from ...atomic import DAY_S, remove_leftovers
from ...errors import UserError, counted, did_you_mean
from ...locks import locked
from ...program import Interrupted
from ..arguments import SLURM
from ..folder import CellFolder, State, Status
from ..spec.check import check_study
from ..spec.fingerprint import differences_by_seed
from ..spec.own_code import code_of, code_versions
from ..spec.study import Cell, Study
from ..spec.tuning import TUNING_FOLDER, tuning_cells, tuning_study
from .beforehand import check_cells, dry_run, with_best_values
from .executor import Executor, Local, Slurm, minutes
from .runner import Runner
from .steps import StepsJob, run_steps

__all__ = ["main"]


def main(args: argparse.Namespace) -> int:
    """Run a study and return 0, 1 if a cell or a step failed, or 128 + N if the signal number N interrupted it."""
    for flag in ("num_gpus", "parallel", "cells_per_gpu", "array_parallelism"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag.replace('_', '-')} {getattr(args, flag)}: expected at least 1")
    for flag, default in SLURM.items() if args.executor == "local" else ():
        if getattr(args, flag) != default:
            raise UserError(f"--{flag.replace('_', '-')} is for --executor slurm, found --executor local; leave it out")
    study = Study.load(args.study, args.trust)
    if args.device:
        study = replace(study, settings=study.settings | {"MODEL.DEVICE": args.device})
    folder = Path(args.output).resolve() / study.name
    _name_other_folder(Path(args.study).resolve().parent, folder)
    check_study(study, folder, args.num_gpus)
    chosen = _selected(study, args.only)
    if args.dry_run:
        dry_run(study, folder, chosen, _tuning_cells(study, args.only) if study.tune else [])
        return 0
    try:
        untuned: list[str] = []
        if study.tune:
            study, untuned = _tune(args, study, folder)
        return max(_run(args, study, folder, untuned), int(bool(untuned)))
    except Interrupted as e:
        print("Interrupted; the same command continues from here")
        return e.exit_code


def _name_other_folder(given: Path, folder: Path) -> None:
    """Warn if the study file lies in a study's folder with cells, and this run has another folder."""
    if given != folder and (given / "cells").is_dir():
        print(
            f"note: {given} holds cells of this study, but this run has the folder {folder}. To go on with those "
            f"cells, let NAME be {given.name} and give --output {given.parent}",
            flush=True,
        )


def _tune(args: argparse.Namespace, study: Study, folder: Path) -> tuple[Study, list[str]]:
    """Run the tuning study, and return the study with the best values, and the variants of which a tuning cell failed.

    Variants that have values in TUNED keep them. Variants whose tuning cells have not all finished are left without.
    """
    if not tuning_cells(study):
        return study, []
    if not (folder / "study.yaml").is_file():  # so that a report can be written and packed from now on
        study.save(folder / "study.yaml")
    tuning, place, chosen = tuning_study(study), folder / TUNING_FOLDER, _tuning_cells(study, args.only)
    statuses, _ = _train(args, tuning, place, chosen)
    _print_failures(place, statuses)
    study, choices = with_best_values(study, folder)
    for choice in choices:
        print(f"{choice.variant}: {choice.sentence}")
    failed = [cell.variant.axes for cell, status in statuses.items() if status.state is State.FAILED]
    waiting = [variant for variant in study.variants if variant.name not in study.tuned]
    return study, [v.name for v in waiting if any(v.axes.items() <= axes.items() for axes in failed)]


def _train(
    args: argparse.Namespace, study: Study, folder: Path, cells: list[Cell]
) -> tuple[dict[Cell, Status], Executor]:
    """Train the cells that are not finished; `Interrupted` says that a signal has stopped the run."""
    check_cells(study, folder)
    for place in (folder, *folder.glob("cells/*/*")):
        remove_leftovers(place, DAY_S)
    study.save(folder / "study.yaml")
    executor = _executor(args, study, folder)
    size = f"{counted(len(study.variants), 'variant')}, {counted(len(study.cells), 'cell')}"
    print(f"Study {study.name}: {size} in {folder}", flush=True)
    runner = Runner(study, folder, executor, args.num_gpus)
    statuses = runner.run(cells, args.retry_failed)
    if runner.interrupted:
        raise Interrupted(runner.interrupted)
    return statuses, executor


def _run(args: argparse.Namespace, study: Study, folder: Path, untuned: Sequence[str]) -> int:
    """Train the cells, and measure and report once nobody trains any more; cells of `untuned` variants must wait."""
    cells = [c for c in _selected(study, args.only) if not study.tune or c.variant.name in study.tuned]
    statuses, executor = _train(args, study, folder, cells)
    _print_fairness(study, folder)
    failed = _print_failures(folder, statuses)
    if untuned:
        print(f"Not trained, because a training that tries values has failed: the cells of {', '.join(untuned)}")
    started = {cell: status for cell, status in statuses.items() if cell.variant.name not in untuned}
    remaining = [cell.name for cell, s in started.items() if s.state not in (State.FINISHED, State.FAILED)]
    if remaining and not args.again:
        names = f"{', '.join(remaining[:4])}{'…' * (len(remaining) > 4)}"
        print(
            f"{counted(len(remaining), 'cell is', 'cells are')} left to others ({names}); the measurements and the "
            "report follow when all cells are finished, or now with --again report"
        )
        return int(failed)
    if any(status.state is State.FINISHED for status in statuses.values()):
        failed |= bool(_follow_up(study, folder, executor, args.again))
    return int(failed)


def _follow_up(study: Study, folder: Path, executor: Executor, again: list[str]) -> list[str]:
    """Run the steps where the cells ran, and return the names of those that failed."""
    if isinstance(executor, Local):
        with locked(folder / "jobs" / "steps.lock"):
            return run_steps(study, folder, again)
    job = executor.submit({"steps": StepsJob(folder / "study.yaml", folder, tuple(again))})["steps"]
    print(f"measurements and report: Slurm job {job.job_id}", flush=True)
    failed = job.result()
    print(job.stdout())
    return failed


def _selected(study: Study, patterns: list[str]) -> list[Cell]:
    """Return the cells that --only names; a UserError says that a pattern names no cell, not even one for tuning."""
    known = [*study.cells, *(tuning_study(study).cells if study.tune else ())]
    for pattern in patterns:
        if not any(_is_wanted(cell, [pattern]) for cell in known):
            raise UserError(f"--only {pattern}: no such cell{did_you_mean(pattern, [c.name for c in known])}")
    return [cell for cell in study.cells if not patterns or _is_wanted(cell, patterns)]


def _tuning_cells(study: Study, patterns: list[str]) -> list[Cell]:
    """Return the tuning cells that --only names, and those that the cells which it names wait for."""
    axes = [cell.variant.axes for cell in _selected(study, patterns)]
    return [
        cell
        for cell in tuning_cells(study)
        if _is_wanted(cell, patterns) or any(of_variant.items() <= cell.variant.axes.items() for of_variant in axes)
    ]


def _is_wanted(cell: Cell, patterns: list[str]) -> bool:
    return any(fnmatch(cell.name, pattern) or cell.variant.name == pattern for pattern in patterns)


def _executor(args: argparse.Namespace, study: Study, folder: Path) -> Executor:
    cfg = study.config(study.variants[0])
    gpus = args.num_gpus if cfg.MODEL.DEVICE.startswith("cuda") else 0
    if args.executor == "local":
        if args.cells_per_gpu > 1 and not gpus:
            raise UserError(
                f"--cells-per-gpu {args.cells_per_gpu}: expected cells on GPUs, found MODEL.DEVICE {cfg.MODEL.DEVICE}; "
                "add --device cuda, or leave it out"
            )
        return Local(folder / "jobs", args.parallel, gpus, args.num_gpus, args.cells_per_gpu)
    if max(args.parallel, args.cells_per_gpu) > 1:
        raise UserError(
            "--parallel and --cells-per-gpu are for --executor local; a cluster runs cells as it has room, at most "
            "--array-parallelism at a time"
        )
    try:
        limit = minutes(args.time)
    except ValueError as e:
        raise UserError(f"--time: {e}") from None
    for pair in args.slurm:
        if "=" not in pair or pair.startswith("="):
            raise UserError(f"--slurm {pair}: expected KEY=VALUE, e.g. qos=high")
    return Slurm(
        folder / "jobs",
        f"study-{study.name}",
        timeout_min=limit,
        gpus_per_node=gpus,
        cpus_per_task=args.cpus or args.num_gpus * (cfg.DATALOADER.NUM_WORKERS + 1),
        mem_gb=args.mem,
        slurm_partition=args.partition,
        slurm_array_parallelism=args.array_parallelism,
        slurm_additional_parameters=dict(pair.split("=", 1) for pair in args.slurm),
    )


def _print_fairness(study: Study, folder: Path) -> None:
    """Print what was equal between the variants of each seed, and whether all cells had the same versions."""
    identities = {cell: CellFolder(folder, cell).identity() for cell in study.cells}
    for seeds, lines in differences_by_seed(identities):
        print(f"Seed {', '.join(map(str, seeds))}:", *lines, sep="\n  ")
    started = [identity for identity in identities.values() if identity]
    if any((i["commit"], i["versions"]) != (started[0]["commit"], started[0]["versions"]) for i in started):
        commits = sorted({identity["commit"] or "unknown" for identity in started})
        print(f"Cells were trained by different versions (commits {', '.join(commits)}); their folders name them")
    for file, versions in code_versions({c.name: code_of(CellFolder(folder, c)) for c in study.cells}).items():
        if len(versions) > 1:
            first = ", ".join(names[0] for names in versions.values())
            print(f"Cells were trained with different code of {file} (the first ones are {first})")


def _print_failures(folder: Path, statuses: dict[Cell, Status]) -> bool:
    """Print which cells failed and why; return whether any did."""
    failed = {cell: status for cell, status in statuses.items() if status.state is State.FAILED}
    for cell, status in failed.items():
        print(f"FAILED {cell.name}: {status.note}\n  {CellFolder(folder, cell).failure}")
    if failed:
        print(f"{len(failed)} of {len(statuses)} cells failed; the same command tries them again")
    return bool(failed)
