"""Archives: a study's results in one file, and the join of results from several machines."""

from pathlib import Path

__all__ = ["ENDING", "archive_name"]

ENDING = ".study.zip"
"""The end of an archive's file name."""


def archive_name(path: Path) -> str:
    """Return an archive's file name without its ending, of which a renamed one may have only ".zip"."""
    return path.name.removesuffix(ENDING).removesuffix(".zip")
