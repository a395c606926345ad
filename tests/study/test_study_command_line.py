"""The command line: its help, and its exit code after mistakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sn2fpn.predict.__main__ import main as predict
from sn2fpn.study.__main__ import main


def _imports(code: str, *modules: str) -> tuple[str, set[str]]:
    """Run code in a new process, and return its output and which of the modules it has imported."""
    code += f"\nimport sys; print('imported', *({set(modules)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, _, found = done.stdout.rpartition("imported")
    return said, set(found.split())


def test_no_help_needs_torch() -> None:
    code = """
from contextlib import suppress
from sn2fpn.study.__main__ import _COMMANDS, main
for words in ([], *([name] for name in _COMMANDS)):
    with suppress(SystemExit):
        main([*words, "--help"])
"""
    said, found = _imports(code, "torch", "numpy", "yaml")
    assert said.count("usage:") == 6 and "--dry-run" in said
    assert not found


def test_a_dry_run_needs_no_drawings_and_no_statistics() -> None:
    """These take a second to import. They are imported with the steps that follow the cells."""
    _, found = _imports("import sn2fpn.study.run.command", "matplotlib", "scipy", "jinja2", "torch")
    assert found == {"torch"}


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (
            "run",
            [
                "FILE",
                "--output",
                "--dry-run",
                "--only",
                "--parallel",
                "--retry-failed",
                "--again",
                "--slurm",
                "--trust",
            ],
        ),
        ("report", ["FOLDER", "--debug", "--trust"]),
        ("features", ["--trust", "--config-file", "--weights", "--input", "--annotations", "--output", "--drawings"]),
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


_LEAVES_A_MARK = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\n"


@pytest.mark.parametrize("whose", ["mine.py", "tiny.yaml"])
def test_imports_of_others_are_run_only_with_trust(
    whose: str, write_study: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(_LEAVES_A_MARK)
    study = write_study(IMPORTS=["mine.py"], AXES={"pyramid": ["fpn"]})
    (tmp_path / whose).chmod(0o666)  # anybody may have written it
    assert main(["run", str(study), "--dry-run", "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    for words in (str(study), "IMPORTS would run", str(tmp_path / "mine.py"), str(tmp_path / whose), "--trust"):
        assert words in said
    assert not (tmp_path / "executed").exists()
    assert main(["run", str(study), "--dry-run", "--trust", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "executed").exists()


def test_all_files_of_an_imported_package_must_be_ones_own(
    write_study: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    package = tmp_path / "pack_of_study"
    package.mkdir()
    (package / "__init__.py").write_text("from . import other\n")
    (package / "other.py").write_text(_LEAVES_A_MARK)
    (package / "other.py").chmod(0o666)
    study = write_study(IMPORTS=["pack_of_study"], AXES={"pyramid": ["fpn"]})
    command = ["run", str(study), "--dry-run", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"IMPORTS would run {package}, but {package / 'other.py'} may be changed by every user" in said
    assert not (package / "executed").exists()
    assert main([*command, "--trust"]) == 0
    assert (package / "executed").exists()


def test_a_dry_run_shows_the_chosen_cells(
    write_study: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["run", str(write_study(AXES={"pyramid": ["fpn", "sni"]}, SEEDS=[1, 2])), "--dry-run", "--only"]
    assert main([*command, "sni/seed2"]) == 0
    said = capsys.readouterr().out
    assert "1 of 4 cells; nothing was trained" in said and "fpn" not in said
    assert main([*command, "sni/seed3"]) == 2
    assert "--only sni/seed3: no such cell; did you mean 'sni/seed2'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--time 2:00:00", "--time is for --executor slurm, found --executor local"),
        ("--array-parallelism 2", "--array-parallelism is for --executor slurm"),
        ("--slurm qos=high", "--slurm is for --executor slurm"),
        ("--partition gpu --mem 8 --cpus 2", "--partition is for --executor slurm"),
        ("--cells-per-gpu 2", "--cells-per-gpu 2: expected cells on GPUs, found MODEL.DEVICE cpu"),
    ],
)
def test_flags_without_effect_are_refused(
    flags: str, words: str, write_study: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", str(write_study()), "--output", str(tmp_path / "out"), *flags.split()]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.glob("out/*/cells"))


def test_ones_own_imports_are_run(write_study: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "my_own.py").write_text(_LEAVES_A_MARK)
    study = write_study(IMPORTS=["my_own.py"], AXES={"pyramid": ["fpn"]})
    assert main(["run", str(study), "--dry-run", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "executed").exists()


def test_python_configurations_of_others_are_run_only_with_trust(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config, image = tmp_path / "theirs.py", tmp_path / "image.png"
    config.write_text(_LEAVES_A_MARK)
    config.chmod(0o666)
    Image.new("RGB", (32, 32)).save(image)
    for command in (main, predict):
        first = ["features"] if command is main else []
        arguments = ["--config-file", str(config), "--input", str(image), "--output", str(tmp_path / "out")]
        assert command([*first, *arguments]) == 2
        said = capsys.readouterr().err.replace("\n", " ")
        assert "is a program that would be run" in said and "--trust" in said
        assert not (tmp_path / "executed").exists()
        assert command([*first, "--trust", *arguments]) == 2  # it is run, and it has no model
        assert "has no 'model'" in capsys.readouterr().err.replace("\n", " ")
        (tmp_path / "executed").unlink()
