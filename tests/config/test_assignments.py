"""Tests of a configuration that a program changes in Python, of null values and of keys that are given twice."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.errors import UserError


@pytest.mark.parametrize(
    ("group", "key", "value", "words"),
    [
        ("MODEL", "FPN_ON", True, ["unknown config key 'MODEL.FPN_ON'", "did you mean 'MODEL.FPN'", "set_new_allowed"]),
        ("SOLVER", "MAX_ITERS", 1, ["'SOLVER.MAX_ITERS'", "did you mean 'SOLVER.MAX_ITER'"]),
        ("SOLVER", "MAX_ITER", "100", ["SOLVER.MAX_ITER expects a whole number (such as 40000), found '100'"]),
        ("SOLVER", "MAX_ITER", 1.5, ["SOLVER.MAX_ITER expects a whole number", "found 1.5"]),
        ("SOLVER", "MAX_ITER", None, ["SOLVER.MAX_ITER expects a whole number", "found None"]),
        ("SOLVER", "STEPS", ("a",), ["SOLVER.STEPS expects a list", "found ('a',)"]),
        ("SOLVER", "AMP", True, ["SOLVER.AMP is a group of keys, found True"]),
        ("MODEL", "MASK_ON", 1, ["MODEL.MASK_ON expects true or false", "found 1"]),
        ("MODEL", "PIXEL_STD", ["x"], ["MODEL.PIXEL_STD expects a list"]),
    ],
)
@pytest.mark.parametrize(
    "assign",
    [
        setattr,
        operator.setitem,
        lambda node, key, value: node.update({key: value}),
        lambda node, key, value: operator.ior(node, {key: value}),
    ],
)
@pytest.mark.parametrize("copied", [lambda c: c, copy.deepcopy, CfgNode.clone, lambda c: pickle.loads(pickle.dumps(c))])
def test_assignments_are_checked_as_files_are(
    group: str,
    key: str,
    value: Any,
    words: list[str],
    copied: Callable[[CfgNode], CfgNode],
    assign: Callable[[CfgNode, str, Any], None],
) -> None:
    cfg = copied(get_cfg())
    with pytest.raises(UserError) as e:
        assign(cfg[group], key, value)
    for word in words:
        assert word in str(e.value)
    assert cfg == get_cfg()


@pytest.mark.parametrize("key", ["SOLVER.BASE_LR", "SOLVER.MAX_ITER", "SOLVER.WEIGHT_DECAY_BIAS", "MODEL.PIXEL_MEAN"])
@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "0x" + "f" * 5000])
def test_numbers_that_no_tensor_can_hold_are_refused(key: str, number: str) -> None:
    value = f"[{number}, 1, 1]" if key == "MODEL.PIXEL_MEAN" else number
    with pytest.raises(UserError, match=rf"{key} expects numbers that fit into 64 bits, found one of \d+ bits$"):
        get_cfg().merge_from_list([key, value])


@pytest.mark.parametrize("inside", ["'': 2000-01-01", "a: {1: {2: 3}}", "a: !!set {b}", "a: !!binary eA=="])
def test_a_mapping_of_values_that_no_key_has_is_refused(inside: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"CUDNN_BENCHMARK: {{{inside}}}")
    with pytest.raises(UserError, match=r"c\.yaml: CUDNN_BENCHMARK expects true or false"):
        get_cfg().merge_from_file(str(file))


def test_assignments_of_the_right_type_are_converted() -> None:
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS, cfg.SOLVER.WEIGHT_DECAY_BIAS = 1, [3, 4], 0
    found = (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS, cfg.SOLVER.WEIGHT_DECAY_BIAS)
    assert found == (1.0, (3, 4), 0.0) and [type(x) for x in found] == [float, tuple, float]
    cfg.SOLVER.WEIGHT_DECAY_BIAS = cfg.MODEL.SNI.ALPHA = None  # their defaults


def test_projects_can_add_keys_of_their_own() -> None:
    cfg = get_cfg()
    cfg.MODEL.MYTHING = CfgNode()
    cfg.MODEL.MYTHING.WIDTH = 3
    cfg.set_new_allowed(True)
    cfg.SOLVER.BETA = 0.9
    cfg.set_new_allowed(False)
    cfg.merge_from_list(["MODEL.MYTHING.WIDTH", 4, "SOLVER.BETA", 0.8])
    assert (cfg.MODEL.MYTHING.WIDTH, cfg.SOLVER.BETA) == (4, 0.8)
    with pytest.raises(UserError, match=r"'SOLVER\.BETAS'; did you mean 'SOLVER\.BETA'"):
        cfg.SOLVER.BETAS = 0.7


def test_a_frozen_configuration_stays_frozen() -> None:
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.SOLVER.MAX_ITER = 3
    assert copy.deepcopy(cfg).is_frozen()


_KEYS = ["SOLVER.MAX_ITER", "MODEL.WEIGHTS", "MODEL.MASK_ON", "SOLVER.STEPS", "MODEL.SNI.MODE", "DATASETS.CUSTOM"]


@pytest.mark.parametrize("key", _KEYS)
def test_null_is_refused_where_the_default_is_a_value(key: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"{key.replace('.', ': {', 2)}: null{'}' * key.count('.')}")
    with pytest.raises(UserError, match=rf"c\.yaml: {key} expects .*, found None"):
        get_cfg().merge_from_file(str(file))
    with pytest.raises(UserError, match=rf"command line: {key} expects .*, found None"):
        get_cfg().merge_from_list([key, "None"])


def test_null_is_a_value_of_keys_whose_default_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("SOLVER: {WEIGHT_DECAY_BIAS: 0.5}\nMODEL: {SNI: {ALPHA: 0.5}}")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\nSOLVER: {WEIGHT_DECAY_BIAS: null}\nMODEL: {SNI: {ALPHA: null}}")
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "a.yaml"))
    cfg.merge_from_file(str(tmp_path / "b.yaml"))
    assert cfg.SOLVER.WEIGHT_DECAY_BIAS is None and cfg.MODEL.SNI.ALPHA is None


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        ("SEED: 1\nSEED: 2", 2, "SEED", 1),
        ("SOLVER:\n  MAX_ITER: 1\n  BASE_LR: 0.1\n  MAX_ITER: 2", 4, "MAX_ITER", 2),
        ("SOLVER: {MAX_ITER: 1}\nMODEL: {}\nSOLVER: {BASE_LR: 0.1}", 3, "SOLVER", 1),
        ("DATASETS:\n  CUSTOM: [{NAME: a, NAME: b}]", 2, "NAME", 2),
    ],
)
def test_a_key_that_is_given_twice_is_refused(text: str, line: int, key: str, first: int, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    message = rf"c\.yaml: line {line}: the key '{key}' is given twice, first in line {first}$"
    with pytest.raises(UserError, match=message):
        get_cfg().merge_from_file(str(file))


def test_a_key_in_small_letters_and_a_group_in_the_place_of_a_key() -> None:
    with pytest.raises(UserError, match=r"unknown config key 'solver.max_iter'; did you mean 'SOLVER.MAX_ITER'"):
        get_cfg().merge_from_list(["solver.max_iter", "3"])
    with pytest.raises(UserError, match=r"command line: SOLVER is a group of keys, found 'x'$"):
        get_cfg().merge_from_list(["SOLVER", "x"])
    cfg = get_cfg()
    with pytest.raises(UserError, match=r"unknown config key 'SOLVER.MAX_ITERS'"):
        cfg.SOLVER.setdefault("MAX_ITERS", 1)
    assert cfg.SOLVER.setdefault("MAX_ITER", 1) == 40000


def test_a_key_of_another_group_is_suggested() -> None:
    with pytest.raises(UserError, match=r"'SOLVER\.EVAL_PERIOD'; did you mean 'TEST\.EVAL_PERIOD'"):
        get_cfg().merge_from_list(["SOLVER.EVAL_PERIOD", 5])
    with pytest.raises(UserError, match=r"'EVAL_PERIOD'; did you mean 'TEST\.EVAL_PERIOD'"):
        get_cfg().merge_from_other_cfg({"EVAL_PERIOD": 5})
