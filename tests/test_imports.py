"""Tests of `--import`: the user's file reaches every process, and its mistakes are reported with their line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from own_pyramid import OWN_PYRAMID, write_pyramid
from sn2fpn.errors import UserError
from sn2fpn.imports import files_to_run, import_files
from sn2fpn.pyramids import PYRAMIDS, backbone_names


def test_a_file_is_imported_once_and_found_by_name(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path, "once")
    try:
        import_files([path])
        import_files([path, tmp_path / "." / path.name])  # a second import would register the pyramid twice
        assert "build_sn2_once_backbone" in backbone_names()
    finally:
        PYRAMIDS.remove("once")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n\nraise RuntimeError('no luck')", "line 3: RuntimeError: no luck"),
        ("x = (\n", "line 1: SyntaxError"),
        ("import nowhere_at_all", "line 1: ModuleNotFoundError"),
        (None, r"there is no such file; did you mean '.*broken2.py'"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    (tmp_path / "broken2.py").write_text("")
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"--import {path}: {words}"):
        import_files([path])
    assert "broken" not in sys.modules


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a pyramid in a file that imports its neighbours relatively; all traces are removed afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    folder = tmp_path / "pack_of_mine"
    folder.mkdir()
    (folder / "widths.py").write_text("WIDTH = 8\n")
    (folder / "__init__.py").write_text("from .gated_in_pack import build\n")
    text = OWN_PYRAMID.format(name="packed").replace("import my_helper_packed", "from .widths import WIDTH")
    (folder / "gated_in_pack.py").write_text(text)
    yield folder
    PYRAMIDS.remove("packed")
    for name in set(sys.modules) - before:
        if name.startswith("pack_of_mine") or name in ("gated_in_pack", "widths"):
            del sys.modules[name]


@pytest.mark.parametrize("first", ["", "__init__.py", "gated_in_pack.py"])
def test_a_file_of_a_package_is_a_part_of_it(package: Path, first: str) -> None:
    import_files([package / first, package, package / "gated_in_pack.py"])  # once, or it would be registered twice
    assert "build_sn2_packed_backbone" in backbone_names()
    from pack_of_mine import build  # as a Python configuration does

    assert build.__module__ == "pack_of_mine.gated_in_pack"
    if first == "gated_in_pack.py":
        assert sys.modules["gated_in_pack"].build is build  # for files beside it that name it without the package
    names = {path.name for path in files_to_run(package / first)}
    assert names >= {"__init__.py", "gated_in_pack.py", "widths.py"}


def test_a_lone_file_beside_a_package_of_its_name(package: Path) -> None:
    file = package.with_suffix(".py")
    file.write_text("LONE = True\n")
    assert files_to_run(file) == [file]
    import_files([file])
    assert sys.modules["pack_of_mine"].LONE and "packed" not in PYRAMIDS
    with pytest.raises(UserError, match=rf"--import {package}: {file} has the name 'pack_of_mine'; rename the folder"):
        import_files([package])


def test_mistakes_in_a_package(package: Path) -> None:
    (package / "widths.py").write_text("WIDTH = 1 / 0\n")
    with pytest.raises(UserError, match=f"--import {package}: line 1: ZeroDivisionError"):
        import_files([package])
    assert "pack_of_mine" not in sys.modules
    (package / "__init__.py").unlink()
    with pytest.raises(UserError, match=r"expected a Python file \(.py\), or the folder of a package with an __init__"):
        import_files([package])
