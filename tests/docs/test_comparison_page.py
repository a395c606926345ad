"""Tests of the page that compares this project with other libraries: its first column is true."""

from __future__ import annotations

import re
from pathlib import Path

from sn2fpn.cli.commands import COMMANDS
from sn2fpn.export.__main__ import parser as export_parser
from sn2fpn.modeling.trunk.build import _BLOCKS
from sn2fpn.pyramids import PYRAMIDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")


def _rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {first: rest for first, *rest in lines}


_TABLE, _CHECKS = map(_rows, PAGE.split("## How to check the first column"))


def test_each_row_has_all_columns_and_a_way_to_check_it() -> None:
    assert {len(row) for row in _TABLE.values()} == {5}
    checked = {name for names in _CHECKS for name in names.split(", ")}
    assert checked - {"row"} == set(_TABLE) - {"", "made for", "licence"}


def test_what_is_to_be_run_exists() -> None:
    text = PAGE.partition("## How to check")[2]
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:tests|tools)/[\w/.]+|\w+\.toml)`", text))
    assert {name for name in re.findall(r"`sn2fpn (\w+)", PAGE) if name != "--help"} <= set(COMMANDS)


def test_the_first_column_is_that_of_the_code() -> None:
    ours = {name: row[0] for name, row in _TABLE.items()}
    pyramids = [name.lower().replace("-", "") for name in ours["pyramids of its R-CNNs"].split(", ")]
    assert sorted(pyramids) == sorted(PYRAMIDS)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = [re.search(rf'{what}>=([\d.]+)"', project)[1] for what in ('requires-python = "', '"torch')]  # type: ignore[index]
    assert ours["oldest Python and torch"] == ", ".join(oldest)
    (formats,) = (a.choices for a in export_parser()._actions if a.dest == "format")
    assert set(formats) == {"onnx", "torch_export", "torchscript"}
    assert ours["files to deploy"] == "ONNX (also of 8 bits), exported programs, TorchScript"
    assert f"ResNet-{min(_BLOCKS)} to -{max(_BLOCKS)}" in ours["trunks"]
    assert (ROOT / "projects/sn2fpn/sn2fpn/py.typed").exists()
