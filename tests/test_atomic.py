"""Test that a file is replaced completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sn2fpn.atomic import atomic_write


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


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path, "wb") as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
