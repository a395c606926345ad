"""Tables of the benchmark on a page of the documentation, between marks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sn2fpn.atomic import atomic_write
from sn2fpn.errors import UserError, nearby_files

from .table import Table

__all__ = ["write_page"]

_PACKAGES = ("torch", "torchvision", "detectron2", "pycocotools", "numpy")


def write_page(page: Path, runs: Sequence[dict[str, Any]], tables: Mapping[str, Sequence[Table]]) -> None:
    """Replace what is between the marks of each part on a page.

    Args:
        page: the page, with the lines `<!-- benchmark: PART -->` and `<!-- end of benchmark: PART -->` for every part.
        runs: the runs that the tables come from.
        tables: the tables by part.

    Raises:
        UserError: there is no such page, or it lacks the marks of a part.
    """
    if not page.is_file():
        raise UserError(f"--markdown: {page} does not exist{nearby_files(page, '*.md')}")
    text = page.read_text(encoding="utf-8")
    for part, of_part in tables.items():
        begin, end = f"<!-- benchmark: {part} -->", f"<!-- end of benchmark: {part} -->"
        pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
        body = [_origin([r for r in runs if r["part"] == part]), *(table.text(markdown=True) for table in of_part)]
        text, found = pattern.subn(lambda m, body=body: m[1] + "\n" + "\n\n".join(body) + "\n\n" + m[2], text)
        if not found:
            raise UserError(f"--markdown: {page} lacks the lines {begin} and {end}, between which its tables go")
    with atomic_write(page) as file:
        file.write(text)


def _origin(runs: Sequence[dict[str, Any]]) -> str:
    """Say how, when and on which machine runs were measured."""
    sentences = []
    for run in runs:
        a = run["about"]
        versions = ", ".join(f"{name} {a[name]}" for name in ("Python", *_PACKAGES) if name in a)
        gpus = "".join(f", {value}" for name, value in a.items() if name.startswith("GPU"))
        sentences.append(
            f"`{run['command']}` measured this on {run['date'][:10]} in {run['took_s']:.0f} s at commit "
            f"{a['commit'] or 'unknown'}: {a['processor']}, {a['CPU']} ({a['instructions']}), {a['memory']}{gpus}; "
            f"{versions}."
        )
    quick = ["These are results of `--quick`, which say nothing about speed."] if any(r["quick"] for r in runs) else []
    return "\n".join([*sentences, *quick])
