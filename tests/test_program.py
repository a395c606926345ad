"""Tests of what all command lines share."""

from __future__ import annotations

import pytest

from sn2fpn.errors import UserError
from sn2fpn.program import run_program


def _raise(error: BaseException) -> None:
    raise error


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(lambda: None) == 0
    assert run_program(lambda: 1) == 1
    assert run_program(lambda: _raise(UserError("--num-gpus 0: at least 1"))) == 2
    assert capsys.readouterr().err == "error: --num-gpus 0: at least 1\n"
    assert run_program(lambda: _raise(KeyboardInterrupt())) == 130


def test_debug_shows_the_traceback_and_bugs_always_do() -> None:
    with pytest.raises(UserError, match="at least 1"):
        run_program(lambda: _raise(UserError("--num-gpus 0: at least 1")), debug=True)
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: 1 // 0)
