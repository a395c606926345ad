"""The output folder of a run: one run at a time writes into it, and a new run never mixes with an earlier one."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .. import distributed as comm
from ..atomic import DAY_S, remove_leftovers, storage_errors
from ..errors import ArgumentError, UserError, argument_names
from ..locks import LockedError, LocksUnsupportedError, only_user
from .options import RunOptions

__all__ = ["make_output_dir", "run_folder"]

logger = logging.getLogger(__name__)
_LOCK = ".run.lock"
_RESULTS = ("last_checkpoint", "model_*.pth", "metrics.json", "inference", "inference_TTA")
"""The files and folders by which an earlier training or evaluation is known."""
_OTHERS = (
    *("metrics.json.*", "results.csv*", "best_metric.json", "config.yaml", "log.txt*", "events.out.tfevents.*"),
    *("curves.png", "predictions.png", "wandb", "wandb_run.txt", "mlflow_run.txt"),
)
"""What else a run leaves in its folder."""
_BEGINNING = (_LOCK, "config.yaml", "log.txt*")
"""What a run writes before it begins its work."""


@contextmanager
def run_folder(options: RunOptions, args: Any) -> Iterator[list[str]]:
    """Make the output folder of a run and hold it for this run alone.

    Temporary files that a killed run left are removed. A training without `--resume` in the folder of an earlier run
    moves the files of that run into a folder of their own, `earlier_1` and so on. If the training fails before it has
    results of its own, for instance because the data do not fit the model, they are moved back. A folder that was made
    for an evaluation that is refused is removed again.

    Args:
        options: the options of the run, which name the folder and the initial weights.
        args: the command line, from `default_argument_parser`.

    Yields:
        What the user should know; it belongs in the log, which is not open yet.

    Raises:
        UserError: the folder cannot be created or written, or another run uses it; or the initial weights are a file
            that would be moved.
    """
    with ExitStack() as held:
        made = comm.call_on_main(lambda: _missing(Path(options.output_dir)))
        with argument_names({name: options.key(name) for name in ("output_dir", "weights")}):
            out = make_output_dir(options.output_dir)
            notes, moved_to = comm.call_on_main(lambda: _take(out, args, options.weights, held))
        try:
            yield notes
        except BaseException as e:
            if comm.is_main_process():
                if moved_to is not None and not _results(out):
                    _put_back(out, moved_to)
                elif args.eval_only and made and isinstance(e, UserError):
                    _remove_unused(out, made)
            raise


def make_output_dir(output_dir: str) -> Path:
    """Create the output folder of a run and return its path.

    Raises:
        ArgumentError: the folder cannot be created.
    """
    if not output_dir.strip():
        raise ArgumentError("output_dir", f"expected the name of a folder, found {output_dir!r}")
    out = Path(output_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as e:
        raise ArgumentError("output_dir", f"{out} is a file, expected a folder") from e
    except OSError as e:
        raise ArgumentError("output_dir", f"the folder {out} cannot be created: {e}") from e
    return out


def _take(out: Path, args: Any, weights: str, held: ExitStack) -> tuple[list[str], Path | None]:
    """Lock the folder until `held` is closed and tidy it.

    Returns:
        What the user should know, and the folder with the files of an earlier run if they were moved.
    """
    notes, moved_to, age_s = [], None, 0
    try:
        held.enter_context(only_user(out / _LOCK))
    except LockedError as e:
        raise ArgumentError(
            "output_dir", f"{out} is in use by another run ({e}); wait for its end, or choose another folder"
        ) from e
    except LocksUnsupportedError:
        age_s = DAY_S  # another run may be writing the younger ones
        notes.append(f"The file system of {out} has no locks, so nothing keeps a second run from writing into it")
    except UserError as e:
        raise ArgumentError("output_dir", str(e)) from e
    for folder in (out, *out.glob("inference*"), *out.glob("inference*/*")):
        notes += [f"Removed {path}, which a killed run left" for path in remove_leftovers(folder, age_s)]
    if args.resume:
        notes += _earlier(out)
    if args.eval_only:
        found = sorted(path.parent.name for path in out.glob("inference/*/results.json"))
        if found:
            earlier = f"{out / 'inference'} holds the results of an earlier evaluation ({', '.join(found)})"
            notes.append(f"{earlier}; those of the same data sets are replaced")
    elif not args.resume and (moved_to := _set_aside(out, weights)) is not None:
        notes.append(f"{out} held an earlier run, whose files are now in {moved_to}. To continue a run, add --resume")
    return notes, moved_to


def _results(out: Path) -> list[Path]:
    return [path for pattern in _RESULTS for path in sorted(out.glob(pattern)) if path.stat().st_size]


def _earlier(out: Path) -> list[str]:
    """Return a line that names earlier runs if there is nothing to resume but them."""
    places = [] if _results(out) else sorted(map(str, out.glob("earlier_*")))
    return [f"There is nothing to resume in {out}, but there are earlier runs: {', '.join(places)}"] if places else []


def _set_aside(out: Path, weights: str) -> Path | None:
    """Move the files of an earlier run, if there is one, into a folder of their own, and return it."""
    results = _results(out)
    if not results:
        return None
    if weights and Path(weights).expanduser().resolve() in (path.resolve() for path in results):
        raise ArgumentError(
            "weights",
            f"{weights} belongs to the earlier run in {out}, whose place the new run would take; add --resume to "
            "continue the earlier run, or choose another output folder",
        )
    place = next(free for n in range(1, 10**6) if not (free := out / f"earlier_{n}").exists())
    with storage_errors(place):
        place.mkdir()
        for path in [*results, *(path for pattern in _OTHERS for path in sorted(out.glob(pattern)))]:
            path.rename(place / path.name)
    return place


def _missing(out: Path) -> list[Path]:
    """Return the folders that have to be made for a folder, itself first."""
    return [path for path in (out, *out.parents) if not os.path.exists(path)]  # noqa: PTH110 - which raises no error


def _remove_unused(out: Path, made: list[Path]) -> None:
    """Remove a new folder, and those that were made for it, unless it holds more than the record of its beginning.

    If they cannot be removed, the log says so, because the error of the refused run matters more.
    """
    try:
        files = list(out.iterdir())
        if all(any(file.match(pattern) for pattern in _BEGINNING) for file in files):
            for file in files:
                file.unlink()
            for folder in made:
                folder.rmdir()
    except OSError as e:
        logger.error("The folder %s, which was made for this run, cannot be removed: %s", out, e)


def _put_back(out: Path, place: Path) -> None:
    """Move the files of an earlier run back. They take the place of the files and folders of the failed run.

    If they cannot be moved, the log says so, because the error of the failed run matters more.
    """
    try:
        for path in place.iterdir():
            target = out / path.name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            path.replace(target)
        place.rmdir()
    except OSError as e:
        logger.error("Files of the earlier run are still in %s, since they cannot be moved to %s: %s", place, out, e)
        return
    logger.warning("The new run has no results, so the files of the earlier run are in %s again", out)
