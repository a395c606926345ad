"""The configuration tree beside fvcore's, which Detectron2 has: where they agree, and the list of where they do not."""

from __future__ import annotations

import ast
import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.config.values import _kinds, _sequence_like

fvcore_config = pytest.importorskip("fvcore.common.config", reason="compares with fvcore, which is not installed")
Theirs = fvcore_config.CfgNode

CONFIGS = Path(__file__).parents[2] / "configs"
ERROR = object()

_WORDS = st.sampled_from(["a", "b/c", "None", "(1, 2)", "[1, 'a']", "1e-3", "'quoted'", "{1, 2}", "1 +", "0x10", " 3"])
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4) | _WORDS
_LISTS = st.recursive(
    st.lists(_SCALARS, max_size=3), lambda inner: st.lists(inner | inner.map(tuple), max_size=3), max_leaves=4
)
_LEAVES = _SCALARS | _LISTS | _LISTS.map(tuple)


def _outcome(cls: type[Any], old: Any, new: Any, way: str) -> Any:
    cfg = cls({"A": {"B": old}})
    try:
        if way == "list":
            cfg.merge_from_list(["A.B", new])
        else:
            cfg.merge_from_other_cfg(cls({"A": {"B": new}}))
    except (ValueError, KeyError, AssertionError, TypeError):
        return ERROR
    return cfg.A.B


def _expected(old: Any, new: Any, theirs: Any) -> Any:
    """Return what ours makes of what theirs does; every line is a difference that `CfgNode` promises."""
    try:
        value = ast.literal_eval(new) if isinstance(new, str) else new
    except (ValueError, SyntaxError, TypeError):
        value = new
    if type(old) is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if _bits(value) > 64:
        return ERROR
    if value is None and old is not None:
        return ERROR
    if theirs is not ERROR and isinstance(old, list | tuple):
        converted = _sequence_like(theirs, old)
        return converted if _kinds(converted) <= (_kinds(old) or _kinds(converted)) else ERROR
    return theirs


def _bits(value: Any) -> int:
    if isinstance(value, list | tuple):
        return max(map(_bits, value), default=0)
    return value.bit_length() if type(value) is int else 0


@given(_LEAVES, _LEAVES, st.sampled_from(["list", "tree"]))
def test_values_are_taken_as_by_fvcore_apart_from_the_differences(old: Any, new: Any, way: str) -> None:
    mine, theirs = _outcome(CfgNode, old, new, way), _outcome(Theirs, old, new, way)
    expected = _expected(old, new, theirs)
    assert mine is expected is ERROR or (repr(mine) == repr(expected) and expected is not ERROR)


def _trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from("ABC")
    return st.recursive(
        st.dictionaries(keys, leaves, max_size=3), lambda inner: st.dictionaries(keys, inner | leaves, max_size=3)
    )


@given(_trees(_LEAVES))
def test_trees_have_the_texts_of_fvcores(content: dict[str, Any]) -> None:
    mine, theirs = CfgNode(content), Theirs(content)
    assert mine == theirs == content
    assert (str(mine), repr(mine)) == (str(theirs), repr(theirs))
    assert mine.dump() == theirs.dump() and mine.dump(sort_keys=False) == theirs.dump(sort_keys=False)
    for again in (mine.clone(), copy.copy(mine), pickle.loads(pickle.dumps(mine)), CfgNode(theirs), Theirs(mine)):
        assert again == mine and again.dump() == mine.dump()


# Ours refuses sets and integers of more than 64 bits whatever the keys are.
_PLAIN = _SCALARS.filter(lambda value: value != "{1, 2}" and _bits(value) <= 64)


@given(_trees(_PLAIN), _trees(_PLAIN), st.booleans())
def test_merging_finds_the_unknown_keys_that_fvcore_finds(one: dict, other: dict, new_allowed: bool) -> None:
    """The values are those of `one` where both have a key, so that the outcome depends on the keys alone."""
    other = _with_values_of(one, other)
    mine, theirs = CfgNode(one), Theirs(one)
    failed = []
    for cfg in (mine, theirs):
        cfg.set_new_allowed(new_allowed)
        try:
            cfg.merge_from_other_cfg(type(cfg)(other))
        except (ValueError, KeyError, AttributeError):
            failed.append(cfg)
    assert failed in ([], [mine, theirs])
    assert failed or mine == theirs


def _with_values_of(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    out = {}
    for key, value in other.items():
        mine = one.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            out[key] = _with_values_of(mine, value)
        else:
            out[key] = value if key not in one or isinstance(mine, dict) else _undecoded(mine)
    return out


def _undecoded(value: Any) -> Any:
    """Return a value that reading leaves as it is: a text that is a literal is written as one."""
    return repr(value) if isinstance(value, str) else value


_FILES = st.dictionaries(st.sampled_from("ABC"), st.integers() | st.dictionaries(st.sampled_from("AB"), st.integers()))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the files, which every case writes anew."""
    return tmp_path_factory.mktemp("home")


@given(first=_FILES, second=_FILES, third=_FILES)
def test_files_inherit_as_in_fvcore(first: dict, second: dict, third: dict, home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        (home / "sub").mkdir(exist_ok=True)
        for place, content, base in (
            ("first.yaml", first, None),
            ("sub/second.yaml", second, "../first.yaml"),
            ("sub/third.yaml", third, ["second.yaml", "~/first.yaml"]),
        ):
            (home / place).write_text(yaml.safe_dump(content | ({"_BASE_": base} if base else {})))
        for place in ("first.yaml", "sub/second.yaml", "sub/third.yaml"):
            try:
                theirs = Theirs.load_yaml_with_base(str(home / place))
            except AssertionError:  # a group in place of a value, which ours refuses only if the tree has a value there
                continue
            assert CfgNode.load_yaml_with_base(str(home / place)) == theirs


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_shipped_configs_are_read_as_fvcore_reads_them(path: Path) -> None:
    assert CfgNode.load_yaml_with_base(str(path)) == Theirs.load_yaml_with_base(str(path))


def test_trees_of_both_kinds_take_each_other() -> None:
    """Detectron2's functions take a tree of ours, which is one of theirs too, and trees may hold groups of both."""
    cfg = get_cfg()
    assert isinstance(cfg, Theirs)
    theirs = Theirs(cfg)
    assert theirs == cfg and type(theirs) is type(theirs.MODEL.FPN) is Theirs
    cfg.SOLVER.MAX_ITER = 7
    theirs.merge_from_other_cfg(cfg)
    assert theirs.SOLVER.MAX_ITER == 7
    theirs.SOLVER.MAX_ITER = 8
    cfg.merge_from_other_cfg(theirs)
    assert cfg.SOLVER.MAX_ITER == 8
    cfg.MODEL.MINE, theirs.MODEL.MINE = Theirs({"A": 1}), CfgNode({"A": 1})
    for tree in (cfg, theirs):
        tree.freeze()
        with pytest.raises(AttributeError, match="immutable"):
            tree.MODEL.MINE.A = 2
        tree.defrost()
        tree.merge_from_list(["MODEL.MINE.A", 3])
        assert tree.MODEL.MINE.A == 3 and "MINE:\n    A: 3" in tree.dump()


@pytest.mark.parametrize("key", ["A.C", "C", "A.B.C"])
def test_lists_name_known_keys_only_even_where_new_ones_are_allowed(key: str) -> None:
    for cls in (CfgNode, Theirs):
        cfg = cls({"A": {"B": 1}})
        cfg.set_new_allowed(True)
        with pytest.raises((ValueError, AssertionError, TypeError)):
            cfg.merge_from_list([key, 1])


def test_frozen_trees_can_be_merged_into_as_in_fvcore() -> None:
    for cls in (CfgNode, Theirs):
        cfg = cls({"A": {"B": 1}})
        cfg.freeze()
        assert cfg.is_frozen() and cfg.A.is_frozen()
        cfg.merge_from_list(["A.B", 2])
        cfg.A["B"] += 1
        assert cfg.A.B == 3
        with pytest.raises(AttributeError):
            cfg.A.B = 4
