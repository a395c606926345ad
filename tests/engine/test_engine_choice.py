"""Tests of `--engine`: which engine runs, what the log says, and what happens without Detectron2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.engine import main
from sn2fpn.engine.choice import TESTED_COMMIT, choose_engine
from sn2fpn.errors import UserError

_ROOT = Path(__file__).parents[2]
_CONFIG = str(_ROOT / "configs/quick/faster_rcnn_R18_sni_shapes.yaml")


@pytest.fixture
def without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])


class _Missing:
    """An import finder that hides `detectron2`, whether it is installed or not."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")


def test_an_unknown_engine_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="--engine: unknown value 'nativ'; did you mean 'native'"):
        choose_engine("nativ")


@pytest.fixture
def broken_detectron2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectron2 as it is when it was compiled for another version of torch."""
    for name in [m for m in sys.modules if m.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)


def test_auto_falls_back_and_says_why(without_detectron2: None) -> None:
    assert str(choose_engine("auto")) == "Engine: native (--engine auto, and Detectron2 is not installed)"
    assert str(choose_engine("native")) == "Engine: native (--engine native)"


def test_without_detectron2_one_message_says_where_to_get_it(without_detectron2: None) -> None:
    with pytest.raises(UserError) as error:
        choose_engine("detectron2")
    said = str(error.value)
    for word in (
        "Detectron2 is not installed",
        TESTED_COMMIT,
        "--engine native",
        "https://detectron2.readthedocs.io/en/latest/tutorials/install.html",
    ):
        assert word in said


def test_a_broken_installation_is_named(broken_detectron2: None) -> None:
    assert choose_engine("auto").name == "native"
    assert "undefined symbol: _ZN3c10" in choose_engine("auto").why
    with pytest.raises(UserError, match="cannot be imported: ImportError: undefined symbol"):
        choose_engine("detectron2")


def test_lazy_configs_are_native() -> None:
    assert choose_engine("auto", "configs/lazy/quick_shapes.py").name == "native"
    with pytest.raises(UserError, match="LazyConfig"):
        choose_engine("detectron2", "configs/lazy/quick_shapes.py")


def test_the_first_log_line_names_the_engine(
    tmp_path: Path, tiny_keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tiny_keys | {"OUTPUT_DIR": tmp_path, "SOLVER.MAX_ITER": 1, "DATASETS.TEST": "()"}
    opts = [str(x) for pair in keys.items() for x in pair]
    assert main(["--engine", "native", "--config-file", _CONFIG, *opts]) == 0
    for log in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        assert log.splitlines()[0].endswith("Engine: native (--engine native)")


def test_an_unknown_engine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["--engine", "nativ", "--config-file", _CONFIG])
    assert e.value.code == 2
    assert "native" in capsys.readouterr().err
