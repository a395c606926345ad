"""The user's own code of a study: which files count, and which cells keep a study from going on with other code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sn2fpn.errors import UserError
from sn2fpn.imports import import_files
from sn2fpn.study.folder import CellFolder
from sn2fpn.study.spec.own_code import check_code, code_versions, own_code
from sn2fpn.study.spec.study import Study

WriteStudy = Callable[..., Path]


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_files_that_are_imported_count(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "counted_register.py": "import torch, counted.gate, counted_space.part\nfrom sn2fpn.pyramids import FPN",
            "counted/__init__.py": "from importlib import import_module\nimport_module('counted.found')",
            "counted/gate.py": "def late():\n    from . import lazy\n",
            "counted/lazy.py": "from ..outside import x",  # it would fail, but nobody calls it
            "counted/found.py": "",
            "counted/other.py": "",
            "counted_space/part.py": "from counted.gate import late",
        },
    )
    files = [tmp_path / "counted_register.py"]
    import_files(files)
    names = ["__init__", "found", "gate", "lazy"]
    before = own_code(files)
    assert list(before) == [*(f"counted/{n}.py" for n in names), "counted_register.py", "counted_space/part.py"]
    (tmp_path / "counted/gate.py").write_text("def late(): ...")
    now = own_code(files)
    assert before.keys() - now.keys() == {"counted/lazy.py"}
    assert [name for name in now if now[name] != before[name]] == ["counted/gate.py"]
    assert own_code([]) == {}


@pytest.mark.parametrize("named", ["", "gate.py", "__init__.py"])
def test_packages_count_with_their_modules(named: str, tmp_path: Path) -> None:
    """IMPORTS may name the folder of a package or a file in it, whose imports may be relative."""
    name = f"packed_{named.strip('_').partition('.')[0] or 'folder'}"
    _write(tmp_path, {f"{name}/__init__.py": "from . import gate", f"{name}/gate.py": "from .parts import x"})
    _write(tmp_path, {f"{name}/parts.py": "x = 1", f"{name}/other.py": ""})
    files = [tmp_path / name / named]
    import_files(files)
    before = own_code(files)
    assert list(before) == [f"{name}/{part}.py" for part in ("__init__", "gate", "parts")]
    _write(tmp_path, {f"{name}/parts.py": "x = 2"})
    now = own_code(files)
    assert [file for file in now if now[file] != before[file]] == [f"{name}/parts.py"]


def test_files_with_one_name_have_two_hashes(tmp_path: Path) -> None:
    _write(tmp_path, {"a/same_name.py": "x = 1", "b/same_name.py": "x = 2", "c/same_name.py": "x = 3"})
    one, two, both = (own_code([tmp_path / f"{name}/same_name.py" for name in names]) for names in ("a", "b", "ab"))
    assert set(both["same_name.py"].split()) == {one["same_name.py"], two["same_name.py"]}


@pytest.fixture
def trained(write_study: WriteStudy, tmp_path: Path) -> Study:
    """A study of fpn and sni whose file of IMPORTS was loaded by the finished cell of fpn."""
    _write(tmp_path, {"own.py": "x = 1"})
    study = Study.load(write_study(SEEDS=[1], IMPORTS=["own.py"]))
    place = CellFolder(tmp_path, study.cells[0])
    place.save_identity({"imports": own_code(study.imports)})
    place.save_result({"results": {}})
    return study


def test_other_code_is_refused(trained: Study, tmp_path: Path) -> None:
    check_code(trained, tmp_path)
    _write(tmp_path, {"further.py": ""})
    check_code(replace(trained, imports=(*trained.imports, tmp_path / "further.py")), tmp_path)
    _write(tmp_path, {"own.py": "x = 2"})
    with pytest.raises(UserError) as e:
        check_code(trained, tmp_path)
    changed = f"{tmp_path / 'own.py'} has changed: fpn/seed1\n"
    for words in (f"{trained.path}: IMPORTS", changed, "Put the old code back", "another NAME", "remove these cells"):
        assert words in str(e.value)
    with pytest.raises(UserError, match=r"own.py is no longer loaded: fpn/seed1"):
        check_code(replace(trained, imports=(tmp_path / "further.py",)), tmp_path)


def test_cells_of_which_nothing_is_trained_do_not_count(trained: Study, tmp_path: Path) -> None:
    """Such a cell has failed, perhaps because of a mistake in the code, and starts anew."""
    _write(tmp_path, {"own.py": "x = 2"})
    place = CellFolder(tmp_path, trained.cells[0])
    place.result_file.unlink()
    check_code(trained, tmp_path)
    (place.path / "last_checkpoint").write_text("model_0000002.pth")
    with pytest.raises(UserError, match=r"own.py has changed: fpn/seed1"):
        check_code(trained, tmp_path)


def test_cells_of_earlier_versions_go_on(trained: Study, tmp_path: Path) -> None:
    CellFolder(tmp_path, trained.cells[0]).save_identity({"fingerprint": {"trunk": "t"}})
    _write(tmp_path, {"own.py": "x = 2"})
    check_code(trained, tmp_path)


def test_versions_of_files_are_told_apart() -> None:
    cells = {"a": {"f": "1", "g": "1"}, "b": {"f": "2"}, "c": {"f": "1"}, "d": {}}
    assert code_versions(cells) == {"f": {"1": ["a", "c"], "2": ["b"]}, "g": {"1": ["a"]}}
