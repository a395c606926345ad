"""Tests of the command `sn2fpn`: its help, its sub-commands, the names in its messages, and its configurations."""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

import sn2fpn
from sn2fpn import __version__
from sn2fpn.cli.commands import COMMANDS
from sn2fpn.cli.main import main
from sn2fpn.command_line import PROGRAMS, train_command
from sn2fpn.data.check import main as check
from sn2fpn.engine import default_argument_parser, environment
from sn2fpn.predict.__main__ import parser as predict_parser
from sn2fpn.study.__main__ import parser as study_parser

_PACKAGE = Path(sn2fpn.__file__).parent
_QUICK = "quick/faster_rcnn_R18_sni_shapes.yaml"


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch: pytest.MonkeyPatch, leave_no_trace: None) -> None:
    """Restore `sys.argv`, in which the command notes how the process was started, and the logging of runs."""
    monkeypatch.setattr(sys, "argv", ["train_net.py"])


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`said(*words)` runs the command, which may end the process, and returns what it has printed as one line."""

    def run(*words: str) -> str:
        with suppress(SystemExit):
            main(list(words))
        return " ".join("".join(capsys.readouterr()).split())

    return run


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_the_command_answers_at_once_without_torch(words: list[str]) -> None:
    code = """
import sys
from sn2fpn.__main__ import main
try:
    main()
finally:
    assert not {"torch", "numpy", "yaml"} & sys.modules.keys()
"""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.2
    if words == ["--version"]:
        assert done.stdout == f"sn2fpn {__version__}\n"
    else:
        assert all(command.help.split()[0] in done.stdout for command in COMMANDS.values())


def test_the_module_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "sn2fpn", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sn2fpn [-h]")
    assert "unknown value 'trian'; did you mean 'train'?" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_its_own_name(name: str, said: Callable[..., str]) -> None:
    help_ = said(name, "--help")
    assert help_.startswith(f"usage: sn2fpn {name} [-h]")
    assert "python " not in help_
    assert f"sn2fpn {name}: error: unknown flag --no-such" in said(name, "--no-such") or name in ("study", "configs")


def test_commands_inside_of_a_command_say_their_names(said: Callable[..., str]) -> None:
    assert said("study", "run", "--help").startswith("usage: sn2fpn study run [-h]")
    assert "sn2fpn study report: error: unknown flag --outptu" in said("study", "report", "--outptu")
    assert said("configs", "copy", "--help").startswith("usage: sn2fpn configs copy [-h]")


def test_the_command_that_evaluates_speaks_of_nothing_else(said: Callable[..., str]) -> None:
    help_ = said("eval", "--help")
    assert not [word for word in ("Train", "trains", "training", "--resume", "--eval-only") if word in help_]
    assert "Evaluate a two-stage detector" in help_ and "the engine that evaluates" in help_
    training = said("train", "--help")
    assert (
        "the engine that trains" in training and "--eval-only" in training and "sn2fpn eval --config-file" in training
    )
    without = ("eval", _QUICK, "MODEL.WEIGHTS", "x.pth", "DATASETS.TEST", "()")
    assert said(*without).startswith("error: DATASETS.TEST is empty; an evaluation needs a data set")


def test_the_version_tells_those_of_the_libraries(said: Callable[..., str]) -> None:
    lines = said("--version", "--verbose")
    assert f"sn2fpn {__version__}" in lines and "torch " in lines and "detectron2 " in lines


def test_messages_name_the_commands_that_the_user_types(
    said: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check([]) == 2
    assert "for instance: python -m sn2fpn.data.check coco_2017_val" in capsys.readouterr().err
    assert "for instance: sn2fpn check coco_2017_val" in said("check")
    words = ("export", "lazy/quick_shapes.py", "--format", "onnx", "--output", "x.onnx", "--evaluate", "shapes_val")
    assert "use sn2fpn eval for a Python one" in said(*words)


def test_texts_name_no_file_that_only_the_repository_has() -> None:
    """Help and messages are read where the wheel is installed. A report is read elsewhere, too."""
    found = []
    for file in _PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in bare]
        wrong = re.compile(r"(?<!use its )\b(docs|examples|tools|tests)/|README|Makefile")
        found += [f"{file}: {text}" for text in texts if isinstance(text, str) and wrong.search(text)]
    assert not [line for line in found if "/study/report/" not in line]


def test_without_the_command_programs_keep_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    parsers = [default_argument_parser(), predict_parser(), study_parser()]
    assert [p.prog for p in parsers] == ["train_net.py", "python -m sn2fpn.predict", "python -m sn2fpn.study"]
    assert "python train_net.py --config-file configs/" in default_argument_parser().format_help()
    assert set(PROGRAMS) < set(COMMANDS)


def test_records_name_what_can_be_typed_without_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_command() == ["python", "train_net.py"]
    for module in ("command_line", "engine.versions"):
        monkeypatch.setattr(f"sn2fpn.{module}.checkout", lambda: None)
    assert train_command() == ["sn2fpn", "train"] and environment()["commit"] == ""


@pytest.mark.parametrize(
    "words",
    [
        [_QUICK, "--num-gpus", "2", "SEED", "3"],
        ["--num-gpus", "2", _QUICK, "SEED", "3"],
        ["--config-file", _QUICK, "--num-gpus", "2", "SEED", "3"],
        [f"--config-file={_QUICK}", "--num-gpus=2", "SEED", "3"],
    ],
)
def test_the_flag_before_the_configuration_may_be_left_out(words: list[str]) -> None:
    args = default_argument_parser().parse_args(words)
    assert (args.config_file, args.num_gpus, args.opts) == (_QUICK, 2, ["SEED", "3"])


def test_only_a_file_in_its_place_is_a_configuration() -> None:
    args = default_argument_parser().parse_args(["--import", "mine.py", "SEED", "a.yaml"])
    assert (args.config_file, args.imports, args.opts) == ("", ["mine.py"], ["SEED", "a.yaml"])
    args = predict_parser().parse_args(["model.py", "--input", "a.yaml", "b.jpg", "--output", "out"])
    assert (args.config_file, args.input) == ("model.py", ["a.yaml", "b.jpg"])
    args = study_parser().parse_args(["features", "a.yaml", "b.py", "--input", "x.jpg"])
    assert args.config_file == ["a.yaml", "b.py"]


def test_programs_import_before_they_read_the_configuration(said: Callable[..., str], tmp_path: Path) -> None:
    file, picture, out = tmp_path / "mine.py", tmp_path / "x.png", str(tmp_path / "out.pt2")
    file.write_text("raise RuntimeError('no luck')")
    Image.new("RGB", (32, 32)).save(picture)
    for words in (
        ["train"],
        ["eval"],
        ["predict", "--input", str(picture), "--output", str(tmp_path / "out")],
        ["features", "--input", str(picture), "--output", str(tmp_path / "out")],
        ["export", "--format", "torch_export", "--output", out],
    ):
        found = said(words[0], "--import", str(file), "quick/nothing_shapes.yaml", *words[1:])
        assert found.lower().startswith("error: ")
        assert found.endswith(f"--import {file}: line 1: RuntimeError: no luck")


def test_the_configuration_reaches_the_programs(said: Callable[..., str], tmp_path: Path) -> None:
    weights = tmp_path / "model_final.pth"
    needs = f"MODEL.WEIGHTS is empty; an evaluation needs a checkpoint, for example {weights}"
    assert said("eval", _QUICK, "OUTPUT_DIR", str(tmp_path)) == f"error: {needs}"
    near = "config file not found: quick/nothing_shapes.yaml; did you mean 'quick/"
    picture = tmp_path / "x.jpg"
    picture.touch()
    for words in (
        ["train"],
        ["eval"],
        ["check"],
        ["predict", "--input", str(picture), "--output", str(tmp_path / "out")],
    ):
        assert near in said(words[0], "quick/nothing_shapes.yaml", *words[1:])
    missing = said("study", "run", "quick_shape.yaml")
    assert "study file not found: quick_shape.yaml; did you mean" in missing and "quick_shapes.yaml'?" in missing
