"""Test that small YAML texts cannot take all memory or run forever, in configurations and in changes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sn2fpn.config import LazyConfig, get_cfg
from sn2fpn.config.arithmetic import ConfigLoader
from sn2fpn.config.yaml_limits import _DEEPEST, _LONGEST, _MOST_VALUES, LimitedLoader
from sn2fpn.errors import UserError
from sn2fpn.study.spec.study import Study

_SECONDS = 60.0
"""No text may take longer, also on a busy machine; each of them would take minutes, gigabytes or a traceback."""

_LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
_MERGES = "m0: &m0 {k: 1}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}\n" for i in range(1, 12)
)
_LOOPS = "[" * 9 + "x" + " for x in [1,2,3,4]]" * 9
_TEXTS = {
    "brackets": ("A: " + "[" * 1500 + "]" * 1500, f"nested more than {_DEEPEST} deep"),
    "braces": ("A: " + "{a: " * 1500 + "}" * 1500, f"nested more than {_DEEPEST} deep"),
    "indents": ("".join(" " * i + "a:\n" for i in range(500)), f"nested more than {_DEEPEST} deep"),
    "laughs": (_LAUGHS, f"more than {_MOST_VALUES} values"),
    "merges": (_MERGES, f"more than {_MOST_VALUES} values"),
    "circle": ("A: &a [*a]", "inside of what it names"),
    "length": ("A: x\n" + "# \n" * (_LONGEST // 2), f"at most {_LONGEST} characters"),
    "digits": ("A: " + "9" * 5000, "a number of at most"),
    "sexagesimal": ("A: 1" + ":30" * 300_000, "a number of at most"),
    "date": ("A: 2026-13-45", "month"),
}
_ARITHMETIC = {
    "loops": (_LOOPS, "steps"),
    "long": ("1+" * 100 + "1", "at most 200"),
    "power": ("9.0**9**9**9", "range"),
    "signs": ("-" * 199 + "1", ""),
    "brackets": ("(" * 100 + "1" + ")" * 99, ""),
}


def _read_config(path: Path) -> Any:
    get_cfg().merge_from_file(str(path))


@pytest.mark.parametrize("read", [_read_config, LazyConfig.load, Study.load], ids=["config", "lazy", "study"])
@pytest.mark.parametrize("kind", _TEXTS)
def test_texts_that_ask_for_too_much(kind: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    text, words = _TEXTS[kind]
    file, start = tmp_path / "bomb.yaml", time.perf_counter()
    file.write_text(text)
    if kind == "date" and read == LazyConfig.load:  # omegaconf reads dates as texts
        assert read(file).A == "2026-13-45"
        return
    with pytest.raises(UserError, match=words) as error:
        read(file)
    assert time.perf_counter() - start < _SECONDS
    assert str(file) in str(error.value) and len(str(error.value)) < 2000


@pytest.mark.parametrize("kind", _ARITHMETIC)
def test_arithmetic_that_asks_for_too_much(kind: str, tmp_path: Path) -> None:
    text, words = _ARITHMETIC[kind]
    start = time.perf_counter()
    file = tmp_path / "bomb.yaml"
    file.write_text(f"MODEL:\n  X: !!python/object/apply:eval ['{text}']")
    if kind == "signs":
        assert yaml.load(file.read_text(), ConfigLoader)["MODEL"]["X"] == -1
        return
    with pytest.raises(UserError, match=rf"bomb\.yaml: line 2: .*{words}"):
        _read_config(file)
    assert time.perf_counter() - start < _SECONDS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("a=" + "[" * 1500, "not readable as YAML"),
        ("a=" + "[" * 1500 + "]" * 1500, "nested more than"),
        ("+a" + ".b" * 1500 + "=1", "changed by key=value"),
    ],
)
def test_changes_of_a_python_configuration(change: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("a = dict(b=1)")
    with pytest.raises(UserError, match=words):
        LazyConfig.apply_overrides(LazyConfig.load(tmp_path / "c.py"), [change])


@pytest.mark.parametrize("value", ["[" * 3000, "[" * 3000 + "]" * 3000, "-" * 100_000 + "1"])
def test_changes_of_a_yaml_configuration(value: str) -> None:
    with pytest.raises(UserError, match=r"SOLVER\.MAX_ITER expects a whole number") as found:
        get_cfg().merge_from_list(["SOLVER.MAX_ITER", value])
    assert len(str(found.value)) < 400


def test_references_of_references(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: '" + "${" * 1500 + "b" + "}" * 1500 + "'\nb: ${b}")
    with pytest.raises(UserError, match=r"c\.yaml"):
        LazyConfig.load(tmp_path / "c.yaml")


@pytest.mark.parametrize("number", ["1:30", "1:30.5"])
def test_numbers_to_the_base_60_are_refused(number: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"SOLVER: {{MAX_ITER: {number}}}")
    with pytest.raises(UserError, match=r"c\.yaml.*1:30.* to the base 60; write a plain number"):
        get_cfg().merge_from_file(str(tmp_path / "c.yaml"))


def test_ordinary_texts_are_far_below_the_limits() -> None:
    root = Path(__file__).parents[2]
    files = [*root.glob("configs/**/*.yaml"), *root.glob("studies/*.yaml"), *root.glob("tests/config/*.yaml")]
    assert len(files) > 40
    for file in files:
        loader = LimitedLoader(file.read_text())
        loader.get_single_node()
        assert len(file.read_text()) * 20 < _LONGEST and max(loader._sizes.values()) * 20 < _MOST_VALUES
    names = ", ".join(f"class {i}" for i in range(20_000))
    assert len(yaml.load(f"CLASSES: &names [{names}]\nAGAIN: *names", LimitedLoader)["AGAIN"]) == 20_000
