"""Tests of the parser that all command lines share."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import pytest

from sn2fpn.command_line import CommandLineParser

_ROOT = Path(__file__).parents[1]


def _parser() -> CommandLineParser:
    parser = CommandLineParser(prog="program")
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--engine", choices=("auto", "native"))
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    return parser


def test_flags_and_keys_are_told_apart() -> None:
    args = _parser().parse_args(
        ["--num-gpus", "2", "MODEL.RPN.BOUNDARY_THRESH", "-1", "SOLVER.BASE_LR", "-1e-3", "a=-.5"]
    )
    assert args.num_gpus == 2 and not args.eval_only
    assert args.opts == ["MODEL.RPN.BOUNDARY_THRESH", "-1", "SOLVER.BASE_LR", "-1e-3", "a=-.5"]
    assert _parser().parse_args(["--num-gpus", "2", "--", "SEED", "1"]).opts == ["SEED", "1"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--eval-olny"], "program: error: unknown flag --eval-olny; did you mean '--eval-only'?"),
        (["--eval"], "unknown flag --eval; did you mean '--eval-only'?"),  # no abbreviations
        (["--num-gpu=2"], "unknown flag --num-gpu=2; did you mean '--num-gpus'?"),
        (["--num-gpuss", "2", "SEED", "1"], "unknown flag --num-gpuss; did you mean '--num-gpus'?"),
        (["--engine", "nativ"], "argument --engine: unknown value 'nativ'; did you mean 'native'?"),
        (["--engine", "x"], "argument --engine: unknown value 'x'; choose from: auto, native"),
        (["SEED", "1", "--eval-only"], "--eval-only: flags come before the configuration keys, found it after SEED"),
    ],
)
def test_wrong_flags_are_answered_with_the_nearest(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        _parser().parse_args(argv)
    assert e.value.code == 2
    assert words in capsys.readouterr().err


def test_a_mistyped_flag_is_named_before_one_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    parser = CommandLineParser(prog="program")
    parser.add_argument("--output", required=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--outptu", "x"])
    assert "unknown flag --outptu; did you mean '--output'?" in capsys.readouterr().err
    assert parser.parse_args(["--output", "-1"]).output == "-1"


def test_commands_inside_of_a_command_line_answer_with_their_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    parser = CommandLineParser(prog="program")
    parser.add_subparsers().add_parser("run").add_argument("--dry-run", action="store_true")
    with pytest.raises(SystemExit):
        parser.parse_args(["run", "--dryrun"])
    assert "program run: error: unknown flag --dryrun; did you mean '--dry-run'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["a.yaml", "b.yaml"], "program: error: unexpected argument 'b.yaml'\n"),
        (["a.yaml", "SOLVER.MAX_ITER=10"], "unexpected argument 'SOLVER.MAX_ITER=10'. This command takes no config"),
        (["a.yaml", "SOLVER.MAX_ITER", "10"], "unexpected argument 'SOLVER.MAX_ITER'. This command takes no config"),
    ],
)
def test_arguments_too_many_are_refused(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = CommandLineParser(prog="program")
    parser.add_argument("file")
    with pytest.raises(SystemExit) as e:
        parser.parse_args(argv)
    assert e.value.code == 2
    assert words in capsys.readouterr().err


def test_positional_arguments_may_stand_between_flags(capsys: pytest.CaptureFixture[str]) -> None:
    parser = CommandLineParser(prog="program")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--plot")
    assert parser.parse_intermixed_args(["a", "--plot", "x", "b"]).names == ["a", "b"]
    with pytest.raises(SystemExit):
        parser.parse_intermixed_args(["a", "--plott", "x", "b"])
    assert "unknown flag --plott; did you mean '--plot'?" in capsys.readouterr().err


def test_all_programs_use_it() -> None:
    """No file of the project makes a parser of argparse's own class."""
    files = [*(_ROOT / "projects").rglob("*.py"), *(_ROOT / "tools").rglob("*.py")]
    made = {
        file.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("argparse.ArgumentParser", "ArgumentParser")
    }
    assert not made
