"""Tests of the completion in shells, as a shell sees it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sn2fpn.cli.commands import COMMANDS
from sn2fpn.cli.completion import main
from sn2fpn.shipped import shipped_files


def _script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    pytest.importorskip("shtab", reason="the extra `completion` is not installed: pip install 'sn2fpn[completion]'")
    assert main([shell]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_flags_values_and_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(_script("bash", capsys))
    (tmp_path / "my_config.yaml").touch()
    (tmp_path / "my_folder").mkdir()

    def complete(line: str) -> set[str]:
        """Return what bash offers for the last word."""
        ask = 'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_sn2fpn; echo "${COMPREPLY[@]}"'
        command = ["bash", "--norc", "-c", ask, "bash", *line.split(" ")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    configs, studies = set(shipped_files("configs")), set(shipped_files("studies"))
    assert complete("sn2fpn ") == set(COMMANDS)
    assert complete("sn2fpn train --eng") == {"--engine"}
    assert complete("sn2fpn eval --engine ") == {"auto", "native", "detectron2"}
    assert complete("sn2fpn train --config-file lazy/") == {name for name in configs if name.startswith("lazy/")}
    assert complete("sn2fpn train --num-gpus 2 quick/mask") == {"quick/mask_rcnn_R18_sni_shapes.yaml"}
    assert complete("sn2fpn predict my_") == {"my_config.yaml", "my_folder"}
    assert complete("sn2fpn study ") == {"run", "report", "pack", "merge", "features"}
    assert complete("sn2fpn study run quick") == {name for name in studies if name.startswith("quick")}
    assert complete("sn2fpn features --output my_") == complete("sn2fpn analyze my_") == {"my_folder"}
    assert complete("sn2fpn study report my_") == complete("sn2fpn study merge my_") == {"my_config.yaml", "my_folder"}
    assert complete("sn2fpn configs show photos") == {name for name in configs | studies if name.startswith("photos")}


def test_zsh_gets_a_script_with_the_same_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = _script("zsh", capsys)
    assert script.startswith("#compdef sn2fpn\n")
    names = " ".join(shipped_files("configs"))
    assert f"_sn2fpn_files_or_configs() {{ _files; compadd -- {names}; }}" in script
    if shutil.which("zsh"):
        (tmp_path / "script").write_text(script)
        subprocess.run(["zsh", "-n", str(tmp_path / "script")], check=True)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["bash"]) == 2
    assert "needs the package shtab; run: pip install 'sn2fpn[completion]'" in capsys.readouterr().err
