"""The configurations and study files that come with this package, and how their names lead to the files.

The folders `configs` and `studies` stand beside this file. In a checkout they are links to the folders at its top.
"""

from __future__ import annotations

import os
from pathlib import Path

from .errors import nearby_files

__all__ = ["KINDS", "checkout", "find_file", "nearby_names", "shipped_files"]

KINDS = ("configs", "studies")


def shipped_files(kind: str) -> dict[str, Path]:
    """Return the files that come with this package by name, such as "quick/faster_rcnn_R18_sni_shapes.yaml".

    Args:
        kind: "configs" or "studies".
    """
    folder = Path(__file__).parent / kind
    files = [path for path in folder.rglob("*") if path.suffix in (".yaml", ".py")]
    return {path.relative_to(folder).as_posix(): path for path in sorted(files)}


def checkout() -> Path | None:
    """Return the clone of the repository that this package is in, or None where it was installed without one."""
    root = Path(__file__).parents[3]
    return root if (root / "train_net.py").is_file() else None


def find_file(file: str | os.PathLike[str], kind: str, folder: Path | None = None) -> Path:
    """Return the path of a file that a user has named.

    Args:
        file: a path, or the name of a file that comes with this package, with or without the folder `kind` before it.
        kind: "configs" or "studies".
        folder: the folder from which a path is relative; None stands for the present one.

    Returns:
        The user's own file if there is one, else the file of this name that comes with this package. Where there is
        neither, the path of the file that is missing.
    """
    path = (folder or Path()) / Path(file).expanduser()
    if path.is_file():
        return path
    return shipped_files(kind).get(Path(file).as_posix().removeprefix(f"{kind}/"), path)


def nearby_names(path: Path, kind: str, pattern: str) -> str:
    """Return what `did_you_mean` says of a missing file, those around it, and those that come with this package.

    Args:
        path: the file that is missing.
        kind: "configs" or "studies".
        pattern: which files are suggested, such as "*.yaml".
    """
    return nearby_files(path, pattern, [name for name in shipped_files(kind) if Path(name).match(pattern)])
