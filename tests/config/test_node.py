"""Tests of the configuration tree by itself: copies, texts, freezing, new keys, and its independence of fvcore."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, CfgNode.clone, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_has_the_keys_and_the_state_of_the_tree(copied: Callable[[CfgNode], CfgNode]) -> None:
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.freeze()
    again = copied(cfg)
    assert again == cfg and type(again) is CfgNode and type(again.MODEL.FPN) is CfgNode
    assert again.is_frozen() and again.MODEL.FPN.is_frozen() and again.MODEL.FPN.is_new_allowed()
    assert again.dump() == cfg.dump()
    again.defrost()
    with pytest.raises(UserError, match=r"MODEL\.FPN\.OUT_CHANNELS expects a whole number"):
        again.MODEL.FPN.OUT_CHANNELS = "many"
    if copied is not copy.copy:
        again.MODEL.FPN.OUT_CHANNELS, again.DATASETS.CUSTOM = 1, [{"NAME": "a"}]
        again.MODEL.PIXEL_MEAN.append(0.0)
        assert cfg == get_cfg()


def test_a_tree_that_is_made_of_another_shares_nothing_with_it_and_is_open() -> None:
    cfg = get_cfg()
    cfg.freeze()
    opened = CfgNode(cfg)
    opened.MODEL.MINE = 3
    opened.MODEL.PIXEL_MEAN[0] = 0.0
    assert cfg == get_cfg() and "MINE" not in cfg.MODEL


def test_a_file_may_have_new_keys_where_they_are_allowed(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("SOLVER: {BETA: 0.9, MINE: {WIDTH: 3}}")
    cfg = get_cfg()
    with pytest.raises(UserError, match=r"c\.yaml: unknown config key 'SOLVER\.BETA'"):
        cfg.merge_from_file(str(file))
    cfg.SOLVER.set_new_allowed(True)
    cfg.merge_from_file(str(file))
    assert (cfg.SOLVER.BETA, cfg.SOLVER.MINE.WIDTH) == (0.9, 3)
    with pytest.raises(UserError, match=r"unknown config key 'TEST\.BETA'; did you mean 'SOLVER\.BETA'"):
        cfg.merge_from_other_cfg({"TEST": {"BETA": 0.9}})


def test_a_missing_attribute_is_named_with_the_nearest_key() -> None:
    cfg = get_cfg()
    with pytest.raises(AttributeError, match=r"no config key 'SOLVER\.MAX_ITERS'; did you mean 'MAX_ITER'"):
        _ = cfg.SOLVER.MAX_ITERS
    assert not hasattr(cfg, "NOTHING") and getattr(cfg, "NOTHING", 3) == 3


@pytest.mark.parametrize("value", [{1, 2}, 1j, b"x", object(), print])
def test_values_that_no_file_can_hold_are_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^A\.B expects a group of keys, a list, text, .*, found "):
        CfgNode({"A": {"B": value}})
    with pytest.raises(UserError, match=r"^B expects a group of keys"):
        CfgNode().B = value
    cfg = CfgNode({"B": None})
    with pytest.raises(UserError, match=r"^B expects a group of keys"):
        cfg.merge_from_other_cfg({"B": value})


def test_a_list_without_inner_quotes_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("DATASETS: {TRAIN: '[mine]'}")
    with pytest.raises(UserError, match=r"mine\.yaml: DATASETS\.TRAIN expects .*; write \[.mine.\]$"):
        get_cfg().merge_from_file(str(file))


def test_a_mapping_becomes_a_group() -> None:
    cfg = get_cfg()
    cfg.MODEL.MINE = {"WIDTH": 3, "PART": {"DEPTH": 4}}
    assert cfg.MODEL.MINE.PART.DEPTH == 4
    cfg.freeze()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.MODEL.MINE.PART.DEPTH = 5


def test_a_mapping_that_is_assigned_to_a_group_is_checked_and_merged_into_it() -> None:
    cfg = get_cfg()
    momentum, width = cfg.SOLVER.MOMENTUM, cfg.MODEL.FPN.OUT_CHANNELS
    cfg.SOLVER = {"BASE_LR": 1}
    assert (1.0, momentum) == (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM)
    cfg["MODEL"] = CfgNode({"FPN": {"NORM": "GN"}})
    assert ("GN", width) == (cfg.MODEL.FPN.NORM, cfg.MODEL.FPN.OUT_CHANNELS)
    for values, words in (
        ({"BASE_LRR": 1}, r"^unknown config key 'SOLVER\.BASE_LRR'; did you mean 'SOLVER\.BASE_LR'\?"),
        ({"BASE_LR": "much"}, r"^SOLVER\.BASE_LR expects .*found 'much'"),
        ({"ANCHOR": 1, "AMP": 2}, r"^unknown config key 'SOLVER\.ANCHOR'"),
        ({"AMP": 2}, r"^SOLVER\.AMP is a group of keys, found 2"),
    ):
        with pytest.raises(UserError, match=words):
            cfg.SOLVER = values
    assert (1.0, momentum) == (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM)
    cfg.set_new_allowed(True)
    cfg.SOLVER = {"BETA": 1}  # an open tree takes what is assigned
    assert cfg.SOLVER == {"BETA": 1}


def test_frozen_trees_name_the_key_and_take_computed_keys_once() -> None:
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError, match=r"^SOLVER\.MAX_ITER cannot be set to 3: the tree is immutable until cfg"):
        cfg.SOLVER.MAX_ITER = 3
    cfg.SOLVER.COMPUTED_STEPS = cfg.SOLVER.COMPUTED_STEPS = 5
    with pytest.raises(KeyError, match=r"SOLVER\.COMPUTED_STEPS is computed once and is 5, so it cannot become 6"):
        cfg.SOLVER.COMPUTED_STEPS = 6
    cfg.defrost()
    cfg.SOLVER.MAX_ITER = 3


def test_reading_a_text_or_an_open_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("A: {B: [1]}")
    with (tmp_path / "c.yaml").open() as file:
        assert CfgNode.load_cfg(file) == CfgNode.load_cfg("A: {B: [1]}") == CfgNode({"A": {"B": [1]}})
    assert CfgNode.load_cfg("") == CfgNode()
    with pytest.raises(UserError, match=r"^configuration: line 1: expected plain values: .*os\.system"):
        CfgNode.load_cfg("!!python/object/apply:os.system [true]")
    (tmp_path / "c.py").write_text("raise RuntimeError('this file was run')")
    with (tmp_path / "c.py").open() as file, pytest.raises(UserError, match=r"c\.py: expected a YAML file; .* CfgNode"):
        CfgNode.load_cfg(file)
    with pytest.raises(UserError, match="allow_unsafe is not supported"):
        CfgNode.load_yaml_with_base(str(tmp_path / "c.yaml"), allow_unsafe=True)


@pytest.mark.parametrize("base", ["3", "null", "{a: b}", "[a.yaml, 3]"])
def test_a_base_that_is_no_file_is_named(base: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("SEED: 1")
    (tmp_path / "c.yaml").write_text(f"_BASE_: {base}")
    with pytest.raises(UserError, match=r"c\.yaml: _BASE_ expects a file or a list of files, found"):
        get_cfg().merge_from_file(str(tmp_path / "c.yaml"))


_WITHOUT_FVCORE = """
import pickle, sys
from pathlib import Path
sys.modules |= dict.fromkeys(("fvcore", "iopath", "yacs"))  # their import fails
from sn2fpn.config import CfgNode, LazyConfig, get_cfg, instantiate
import sn2fpn.engine, sn2fpn.predict, sn2fpn.study.run.command, torch
from sn2fpn.engine.solver import build_lr_scheduler
assert CfgNode.__mro__[1] is dict
for path in sorted(Path(sys.argv[1]).rglob("*.yaml")):
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.freeze()
    assert pickle.loads(pickle.dumps(cfg)) == cfg == cfg.clone()
    again = get_cfg()
    again.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))
    assert again == cfg
    build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1))
for path in sorted(Path(sys.argv[1], "lazy").glob("[!d]*.py")):
    multiplier = LazyConfig.load(str(path))
    if "lr_multiplier" in multiplier:
        instantiate(multiplier.lr_multiplier)
print(cfg.dump())
"""


@pytest.mark.slow
def test_nothing_needs_fvcore() -> None:
    """The configurations are the same with and without it."""
    program = [sys.executable, "-c", _WITHOUT_FVCORE, str(CONFIGS)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    cfg = get_cfg()
    cfg.merge_from_file(str(max(CONFIGS.rglob("*.yaml"))))
    assert done.stdout == cfg.dump() + "\n"
