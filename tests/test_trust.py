"""Test whose code is run: files that may be somebody else's work are run only with --trust."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sn2fpn.errors import UserError
from sn2fpn.trust import check_own

_STRANGER = 987_654_321  # no user of any machine


def _give_to(owner: int, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file seem to belong to somebody; only root could really give it away."""
    stat = Path.stat

    def fake(path: Path, **options: bool) -> os.stat_result:
        status = stat(path, **options)
        return os.stat_result((*status[:4], owner, *status[5:])) if path == file else status

    monkeypatch.setattr(Path, "stat", fake)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text("")
    path.chmod(0o644)
    return path


def test_ones_own_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_own([file, file.with_name("missing.py")], "x")
    file.chmod(0o664)  # the members of a group are trusted by the owner
    check_own([file], "x")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    _give_to(0, file, monkeypatch)  # such as a package that the administrator has installed
    check_own([file], "x")


def test_files_of_others(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _give_to(_STRANGER, file, monkeypatch)
    message = rf"IMPORTS would run it, but {file} belongs to the user with the number {_STRANGER}; .* --trust"
    with pytest.raises(UserError, match=message):
        check_own([file], "IMPORTS would run it")
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # root, too, should know whose code it runs
    with pytest.raises(UserError, match=message):
        check_own([file.with_name("missing.py"), file], "IMPORTS would run it")


def test_files_that_everybody_may_change(file: Path) -> None:
    file.chmod(0o646)
    with pytest.raises(UserError, match=r"may be changed by every user.*--trust"):
        check_own([file], "x")
