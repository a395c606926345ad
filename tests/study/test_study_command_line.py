"""The command line: its help, and its exit code after mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sn2fpn.study.__main__ import main


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from sn2fpn.study.__main__ import main\n"
        "try: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "run" in done.stdout
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("run", ["FILE", "--output", "--dry-run", "--only", "--parallel", "--retry-failed", "--again", "--slurm"]),
        ("report", ["FOLDER", "--debug"]),
        ("features", ["--config-file", "--weights", "--input", "--annotations", "--output", "--drawings"]),
    ],
)
def test_each_command_has_its_own_help(command: str, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert e.value.code == 0
    assert all(flag in said for flag in flags)


def test_a_mistake_ends_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no study.yaml there" in capsys.readouterr().err
