"""Tests of the functions of which schedules are made: bitwise against fvcore's, their ends, and their messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sn2fpn.config import get_cfg, instantiate
from sn2fpn.config.calls import restrict_targets
from sn2fpn.engine import solver
from sn2fpn.engine.solver import build_multiplier
from sn2fpn.errors import ArgumentError

_VALUES = st.floats(1e-6, 10, allow_subnormal=False)
_STEPS = st.sets(st.integers(1, 99), max_size=5).map(sorted)


def _fvcore() -> Any:
    return pytest.importorskip("fvcore.common.param_scheduler", reason="compares with fvcore, which is not installed")


@st.composite
def _functions(draw: st.DrawFn, depth: int = 2) -> Callable[[Any], Any]:
    """Return a function that makes the same schedule of any module that has fvcore's names."""
    a, b = draw(_VALUES), draw(_VALUES)
    steps = draw(_STEPS)
    values = [draw(_VALUES) for _ in range(len(steps) + 1)]
    choices: list[Callable[[Any], Any]] = [
        lambda m: m.ConstantParamScheduler(a),
        lambda m: m.LinearParamScheduler(a, b),
        lambda m: m.CosineParamScheduler(a, b),
        lambda m: m.ExponentialParamScheduler(a, b),
        lambda m: m.PolynomialDecayParamScheduler(a, b),
        lambda m: m.StepParamScheduler(100, values),
        lambda m: m.StepWithFixedGammaParamScheduler(a, len(values), b, 100),
        lambda m: m.MultiStepParamScheduler(values, 100, steps),
        lambda m: m.MultiStepParamScheduler(values, milestones=[*steps, 100]),
        lambda m: m.MultiStepParamScheduler(values[:2], 100),
    ]
    if depth:
        parts = [draw(_functions(depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        shares = [draw(st.floats(0.1, 1)) for _ in parts]
        lengths = [share / sum(shares) for share in shares]
        scaling = [draw(st.sampled_from(["rescaled", "fixed"])) for _ in parts]
        choices.append(
            lambda m: m.CompositeParamScheduler(
                [part(m) for part in parts], lengths=list(lengths), interval_scaling=scaling
            )
        )
    return draw(st.sampled_from(choices))


@given(_functions(), st.integers(1, 300), st.data())
def test_functions_have_fvcores_values_bit_by_bit(
    make: Callable[[Any], Any], max_iter: int, data: st.DataObject
) -> None:
    mine, theirs = make(solver), make(_fvcore())
    for iteration in data.draw(st.lists(st.integers(0, max_iter), min_size=5, max_size=20)):
        where = iteration / max_iter
        try:
            expected = theirs(where)
        except (IndexError, RuntimeError):  # where fvcore's functions have no value, which is at the end of their share
            assert isinstance(mine(where), float)
            continue
        assert mine(where) == expected


@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"])
def test_schedules_are_those_of_fvcore_bit_by_bit(
    name: str, rescale: bool, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = get_cfg()
    keys = {"MAX_ITER": 997, "WARMUP_ITERS": 101, "STEPS": (301, 450, 996), "LR_SCHEDULER_NAME": name}
    keys |= {"RESCALE_INTERVAL": rescale, "WARMUP_METHOD": method, "BASE_LR": 0.02, "BASE_LR_END": 1e-5}
    cfg.merge_from_list([x for key, value in keys.items() for x in (f"SOLVER.{key}", value)])
    mine = build_multiplier(cfg)
    assert isinstance(mine, _fvcore().ParamScheduler)  # Detectron2's scheduler asks for that
    for function in [n for n in dir(solver.schedule) if n.endswith("ParamScheduler") and n != "ParamScheduler"]:
        monkeypatch.setattr(solver.schedule, function, getattr(_fvcore(), function))
    theirs = build_multiplier(cfg)
    assert [mine(i / 997) for i in range(998)] == [theirs(i / 997) for i in range(998)]


@pytest.mark.parametrize(
    ("function", "last"),
    [
        (solver.ConstantParamScheduler(0.5), 0.5),
        (solver.LinearParamScheduler(1, 0.25), 0.25),
        (solver.CosineParamScheduler(1, 0.25), 0.25),
        (solver.ExponentialParamScheduler(2, 0.5), 1.0),
        (solver.PolynomialDecayParamScheduler(2, 0.9), 0.0),
        (solver.StepParamScheduler(9, [1, 0.5]), 0.5),
        (solver.StepWithFixedGammaParamScheduler(1, 2, 0.5, 9), 0.25),
        (solver.MultiStepParamScheduler([1, 0.5, 0.25], 9, [3, 8]), 0.25),
        (solver.MultiStepParamScheduler([1, 0.5, 0.25], 9), 0.25),
    ],
)
def test_functions_have_a_value_where_the_run_ends(function: solver.ParamScheduler, last: float) -> None:
    assert function(1.0) == last
    whole = solver.CompositeParamScheduler(
        [solver.ConstantParamScheduler(3), function], [0.3, 0.7], ["fixed", "rescaled"]
    )
    assert (whole(0.0), whole(0.29), whole(1.0)) == (3, 3, last)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: solver.StepParamScheduler(9, []), "values: expected at least one value"),
        (lambda: solver.StepParamScheduler(0, [1]), "num_updates: expected a number above 0"),
        (lambda: solver.StepWithFixedGammaParamScheduler(1, 0, 0.5, 9), "num_decays: expected a whole number"),
        (lambda: solver.StepWithFixedGammaParamScheduler(1, 2, 0, 9), "gamma: expected a number above 0"),
        (
            lambda: solver.MultiStepParamScheduler([1, 2]),
            "milestones: expected iterations, because num_updates is None",
        ),
        (lambda: solver.MultiStepParamScheduler([1, 2], 9, [3, 4]), "milestones: expected one less than the 2 values"),
        (lambda: solver.MultiStepParamScheduler([1, 2], 9, [9]), r"expected rising iterations from 1 to less than 9"),
        (lambda: solver.MultiStepParamScheduler([1, 2, 3], 9, [4, 3]), r"rising iterations .*, found \[4, 3\]"),
        (lambda: solver.CompositeParamScheduler([], [], []), "schedulers: expected as many as lengths"),
        (
            lambda: solver.CompositeParamScheduler([solver.ConstantParamScheduler(1)], [0.5], ["fixed"]),
            r"lengths: expected shares that sum to 1, found \[0.5\]",
        ),
        (
            lambda: solver.CompositeParamScheduler([solver.ConstantParamScheduler(1)], [1], ["fxed"]),
            "interval_scaling: unknown value 'fxed'; did you mean 'fixed'",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        make()


def test_saved_configurations_may_name_fvcores_functions() -> None:
    """YAML files that earlier versions wrote do so; ours take their place, also where fvcore is installed."""
    target = "fvcore.common.param_scheduler.CosineParamScheduler"
    node = OmegaConf.create({"_target_": target, "start_value": 1.0, "end_value": 0.0})
    restrict_targets(node)
    assert type(instantiate(node)) is solver.CosineParamScheduler
