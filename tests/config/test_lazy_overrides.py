"""Tests of `key=value` changes to Python configurations: what they set, what is refused, and the messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest
from omegaconf import DictConfig, OmegaConf

from sn2fpn.config import LazyCall, LazyConfig
from sn2fpn.errors import UserError


def target(
    *,
    alpha: float | str = "area",
    widths: Sequence[int] = (),
    pair: tuple[int, int] = (1, 2),
    mode: Literal["a", "b"] = "a",
    inner: object = None,
    untyped=3,
) -> None: ...


@pytest.fixture
def cfg() -> DictConfig:
    return DictConfig(
        {
            "train": {"max_iter": 90, "lr": 0.1, "flag": True, "name": "", "none": None, "sizes": [1, 2]},
            "model": LazyCall(target)(alpha="area", pair=(1, 2), inner=LazyCall(target)(alpha=0.5), untyped=3),
            "steps": [{"size": 3}, {"size": 4}],
        },
        flags={"allow_objects": True},
    )


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.max_iter=50", "train.max_iter", 50),
        ("train.lr=1e-3", "train.lr", 0.001),
        ("train.lr=1", "train.lr", 1),
        ("train.flag=false", "train.flag", False),
        ("train.name=out=put/x", "train.name", "out=put/x"),
        ("train.name=", "train.name", ""),
        ("train.none=3", "train.none", 3),
        ("train.sizes=[3]", "train.sizes", [3]),
        ("train.sizes.1=7", "train.sizes", [1, 7]),
        ("train.sizes[0]=7", "train.sizes", [7, 2]),
        ("steps.1.size=9", "steps", [{"size": 3}, {"size": 9}]),
        ("model.alpha=0.25", "model.alpha", 0.25),  # not of the type of the present value, but of the annotation
        ("model.inner.alpha=area", "model.inner.alpha", "area"),
        ("model.widths=[1,2]", "model.widths", [1, 2]),  # an argument that the configuration does not list
        ("model.inner={alpha: 2}", "model.inner.alpha", 2),  # merged
        ("train={lr: 0.5}", "train.max_iter", 90),
        ("train.max_iter=${train.sizes.1}", "train.max_iter", 2),
        ("+train.new.deep=[a]", "train.new.deep", ["a"]),
        ("model.mode=b", "model.mode", "b"),
        ("model.pair=[3,4]", "model.pair", [3, 4]),
    ],
)
def test_overrides_reach_what_they_name(cfg: DictConfig, override: str, key: str, value: Any) -> None:
    assert LazyConfig.apply_overrides(cfg, [override]) is cfg
    found = OmegaConf.select(cfg, key)
    if OmegaConf.is_config(found):
        found = list(OmegaConf.to_container(found))  # newer versions of omegaconf keep a tuple a tuple
    assert found == value and type(found) is type(value)


def test_pairs_are_answered_with_the_right_form(cfg: DictConfig) -> None:
    with pytest.raises(UserError, match=r"write train\.max_iter=5 instead of train\.max_iter 5$"):
        LazyConfig.apply_overrides(cfg, ["train.lr=1.0", "train.max_iter", "5"])


@pytest.mark.parametrize(
    "changes", [["SOLVER.MAX_ITER=5"], ["SOLVER.MAX_ITER", "5"], ["train.lr=1", "SOLVER.MAX_ITER", "5"]]
)
def test_keys_of_yaml_are_answered_with_their_counterparts(cfg: DictConfig, changes: list[str]) -> None:
    with pytest.raises(UserError, match=r"SOLVER\.MAX_ITER is a key of YAML .*; write train\.max_iter=5$"):
        LazyConfig.apply_overrides(cfg, changes, {"SOLVER.MAX_ITER": "train.max_iter"})
    with pytest.raises(
        UserError, match=r"SOLVER\.MAX_ITER is a key of YAML .*; the groups of this one are model, steps"
    ):
        LazyConfig.apply_overrides(cfg, changes)


def test_a_group_may_have_a_name_in_capitals(cfg: DictConfig) -> None:
    cfg.GROUP = {"SIZE": 3}
    assert LazyConfig.apply_overrides(cfg, ["GROUP.SIZE=4", "+OTHER=1"]).GROUP.SIZE == 4


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.max_iters=5", ["unknown config key 'train.max_iters'", "did you mean 'train.max_iter'"]),
        ("trian.max_iter=5", ["unknown config key 'trian.max_iter'", "did you mean 'train.max_iter'"]),
        ("model.alpa=5", ["'model.alpa'", "did you mean 'model.alpha'"]),
        ("model.inner.width=5", ["'model.inner.width'", "did you mean 'model.inner.widths'"]),
        ("max_iter=5", ["unknown config key 'max_iter'", "did you mean 'train.max_iter'"]),
        ("model.max_iter=5", ["'model.max_iter'", "did you mean 'train.max_iter'"]),
        ("train={lrr: 1}", ["'train.lrr'", "did you mean 'train.lr'"]),
        ("train.max_iter.x=1", ["'train.max_iter.x'", "train.max_iter holds 90"]),
        ("steps.2.size=1", ["steps is a list of 2", "'2'"]),
        ("train.max_iter=many", ["train.max_iter expects a whole number (such as 90), found 'many'"]),
        ("train.max_iter=1.5", ["train.max_iter expects a whole number", "found 1.5"]),
        ("train.flag=1", ["train.flag expects true or false", "found 1"]),
        ("train.lr=high", ["train.lr expects a number", "'high'"]),
        ("train.sizes=3", ["train.sizes expects a list (such as [1, 2]), found 3"]),
        ("train=3", ["train is a group of keys (max_iter, lr", "3"]),
        ("train.name=${nope.x}", ["train.name", "nope.x"]),
        ("train.max_iter=${train.lr}", ["train.max_iter expects a whole number", "0.1"]),
        ("model.alpha=[1]", ["model.alpha expects a number or text (such as 'area'), found [1]"]),
        ("model.widths=[1,x]", ["model.widths expects a list of whole numbers", "'x'"]),
        ("model.pair=[1]", ["model.pair expects a list of 2 items: a whole number, a whole number"]),
        ("train.sizes.2=1", ["train.sizes is a list of 2 items", "no item '2'"]),
        ("model.mode=c", ["model.mode expects 'a' or 'b'", "'c'"]),
        ("train.max_iter", ["key=value", "'train.max_iter'"]),
        ("SOLVER.MAX_ITER", ["key=value", "the groups of this one are model, steps, train"]),
        ("~train.lr", ["changed by key=value", "'~train.lr'"]),
        ("train.name=a: [", ["not readable as YAML"]),
        ("train.name=!!python/name:os.system", ["not readable as YAML"]),
    ],
)
def test_wrong_overrides_name_key_and_nearest(cfg: DictConfig, override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as e:
        LazyConfig.apply_overrides(cfg, [override])
    assert "\n" not in str(e.value)
    for word in words:
        assert word in str(e.value)
