"""Which checkpoint of a folder a run continues from: the one that `last_checkpoint` names, or the newest good one."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

from ..atomic import atomic_write
from ..errors import ArgumentError, UserError
from .reading import find_file, load_file

__all__ = ["LAST", "check_sums", "good_checkpoint", "read_last", "write_last"]

logger = logging.getLogger(__name__)
LAST = "last_checkpoint"
"""The file that holds the name of the checkpoint that was written last."""
_LONGEST_NAME = 255  # bytes, on the usual file systems


def read_last(folder: str | Path) -> str:
    """Return the name in `last_checkpoint`, or "" when there is no such file or it cannot be read."""
    try:
        name = Path((Path(folder) / LAST).read_text(encoding="utf-8").strip()).name
    except (OSError, UnicodeDecodeError):
        return ""
    return name if name.isprintable() and len(name.encode()) <= _LONGEST_NAME else ""


def write_last(folder: str | Path, name: str) -> None:
    """Let `last_checkpoint` name a file of the folder."""
    with atomic_write(Path(folder) / LAST) as file:
        file.write(name)


def good_checkpoint(folder: str | Path, *, with_iteration: bool = True) -> str:
    """Return the path of the checkpoint from which a run continues, or "" if the folder has none.

    It is the one that `last_checkpoint` names. If this file or the checkpoint is missing or damaged, it is the
    checkpoint of the highest iteration among the others that are whole. `last_checkpoint` then names that one, and a
    warning says so.

    Args:
        folder: the folder of a run.
        with_iteration: whether the file that `last_checkpoint` names must hold an iteration to continue from.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    folder, name = Path(folder), read_last(folder)
    others = [file for file in sorted(folder.glob("model_*.pth")) if file.name != name]
    if not name and not others:
        return ""
    problems = [] if name else [f"{folder / LAST} is missing, empty or unreadable"]
    if name:
        try:
            _iteration(folder / name, needed=with_iteration)
            return str(folder / name)
        except ArgumentError as e:
            problems.append(e.problem)
    whole: dict[Path, int] = {}
    for file in others:
        try:
            whole[file] = _iteration(file)
        except ArgumentError as e:
            problems.append(e.problem)
    found = "\n  ".join(problems)
    if not whole:
        raise UserError(
            f"--resume ({folder / LAST}): there is no whole checkpoint to continue from: {found}\n"
            "Move these files away to start again"
        )
    newest = max(whole, key=lambda file: whole[file])
    logger.warning("The run continues from %s, the newest whole checkpoint, because\n  %s", newest, found)
    write_last(folder, newest.name)
    return str(newest)


def _iteration(file: Path, needed: bool = True) -> int:
    """Return the iteration of a checkpoint of a run; an ArgumentError says that the file is damaged or is none."""
    check_sums(find_file(file))
    iteration = load_file(file).rest.get("iteration", None if needed else -1)
    if not isinstance(iteration, int):
        raise ArgumentError("path", f"{file} holds weights but no iteration to continue from")
    return iteration


def check_sums(file: Path) -> None:
    """Check the sums (CRC-32) that torch stores with each tensor in a file and does not read again itself.

    Files whose sums are all wrong were saved without (`torch.serialization.set_crc32_options(False)`) and pass, as do
    pickles and files of old versions of torch, which have no sums.

    Raises:
        ArgumentError: the content of the file has changed since it was written, or its end is missing.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(2) != b"PK":
                return
    except OSError:  # `load_file` says why the file cannot be read
        return
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            changed = [name for name in names if not _is_as_written(archive, name)]
    except Exception as e:  # zipfile does not expect damages, and raises errors of many kinds
        raise ArgumentError("path", f"{file} is damaged: its end or its table of contents cannot be read") from e
    if 0 < len(changed) < len(names):
        raise ArgumentError(
            "path",
            f"{file} is damaged: {len(changed)} of its {len(names)} parts have changed since they were written "
            f"({changed[0]})",
        )


def _is_as_written(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        with archive.open(name) as part:
            while part.read(1 << 20):
                pass
    except Exception:  # of a kind that depends on what is damaged
        return False
    return True
