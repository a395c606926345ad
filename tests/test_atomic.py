"""Test that a file is replaced completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

import pytest

from sn2fpn import atomic
from sn2fpn.atomic import DAY_S, atomic_path, atomic_write, remove_leftovers, storage_errors
from sn2fpn.errors import UserError


def test_replaces_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "zweiter – ü"):
        with atomic_write(path) as file:
            file.write(text)
        assert path.read_text(encoding="utf-8") == text
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.skipif(not atomic._STATUS.is_file(), reason="the umask is in a file on Linux alone")
def test_the_umask_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that change it and put it back at the same time may leave the process with none."""

    def refuse(_: int) -> None:
        raise AssertionError("the umask is changed")

    before = os.umask(0o027)
    try:
        with monkeypatch.context() as changes, atomic_write(tmp_path / "file") as file:
            changes.setattr("os.umask", refuse)
            file.write("text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_the_umask_of_systems_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_STATUS", tmp_path / "nothing")
    with atomic_write(tmp_path / "file") as file:
        file.write("text")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~atomic._UMASK_AT_START


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path, "wb") as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "EDQUOT", "EFBIG", "EACCES"])
@pytest.mark.parametrize("where", ["tempfile.mkstemp", "os.fsync"])
def test_the_message_names_the_file_and_the_cause(
    code: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    number = getattr(errno, code)

    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(where, refuse)
    with pytest.raises(UserError) as error, atomic_write(path) as file:
        file.write("new")
    assert str(error.value).lower().startswith(f"cannot write {path}: {os.strerror(number)}".lower())
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with atomic_write(tmp_path / ("x" * 255)) as file:
        file.write("The longest name is fine, although the temporary file adds to it.")
    with pytest.raises(UserError, match="file name too long"), atomic_write(tmp_path / ("x" * 256)):
        pass
    with pytest.raises(UserError, match="file exists"), atomic_write(tmp_path / ("x" * 255) / "file"):
        pass


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_errors():
        (tmp_path / "nothing").read_text()
    with pytest.raises(RuntimeError, match="a bug"), storage_errors():
        raise RuntimeError("a bug")


def test_in_shared_folders_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    old, new = (tmp_path / f".model_final.pth.{name}.part" for name in ("abcdefgh", "ijklmnop"))
    for file in (old, new):
        file.write_bytes(b"half")
    yesterday = time.time() - DAY_S - 60
    os.utime(old, (yesterday, yesterday))
    assert remove_leftovers(tmp_path, DAY_S) == [old]
    assert list(tmp_path.iterdir()) == [new]


def test_a_leftover_that_is_gone_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may rename its file between the moments when it is found and when its age is asked."""
    (tmp_path / ".model_final.pth.abcdefgh.part").write_bytes(b"half")
    monkeypatch.setattr(Path, "is_file", lambda path: path.unlink() or True)
    assert remove_leftovers(tmp_path, DAY_S) == []


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), atomic_path(tmp_path / "video.mp4", ".part.mp4") as temporary:
        (tmp_path / "left").write_bytes(b"")
        leftovers = [tmp_path / temporary.name, tmp_path / ".model_final.pth.ab_12xyz.part"]
        raise KeyboardInterrupt
    for file in leftovers:
        file.write_bytes(b"half")
    mine = [tmp_path / name for name in ("notes.part", ".hidden", ".draft.part", "model.pth.abcdefgh.part", "left")]
    for file in mine:
        file.write_bytes(b"mine")
    assert sorted(remove_leftovers(tmp_path)) == sorted(leftovers)
    assert sorted(tmp_path.iterdir()) == sorted(mine)
