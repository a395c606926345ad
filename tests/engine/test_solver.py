"""Tests of the optimizer and the schedules against Detectron2's golden numbers, and of their messages."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from sn2fpn.config import get_cfg
from sn2fpn.config.ranges import check_ranges
from sn2fpn.engine.solver import (
    LRMultiplier,
    build_gradient_clipper,
    build_lr_scheduler,
    build_optimizer,
    gradient_clipper,
    multi_step,
    with_warmup,
)
from sn2fpn.engine.solver.optimizer import main_group
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.modeling import build_model

_CASES = json.loads((Path(__file__).parent.parent / "golden/detectron2/cases.json").read_text())["cases"]
_SCHEDULES = {k: v for k, v in _CASES["lr_schedule"].items() if isinstance(v, dict) and "solver" in v}


def _cfg(overrides: dict) -> object:
    cfg = get_cfg()
    cfg.merge_from_list([x for pair in overrides.items() for x in pair])
    return cfg


def _optimizer(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def _rates(optimizer: torch.optim.Optimizer, scheduler: LRMultiplier, iterations: int) -> list[float]:
    """Return the learning rate of each iteration."""
    rates = []
    for _ in range(iterations):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", _SCHEDULES)
def test_schedule_equals_detectron2(name: str) -> None:
    case = _SCHEDULES[name]
    cfg = _cfg({f"SOLVER.{k}": v for k, v in case["solver"].items()})
    optimizer = _optimizer(cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    wanted = dict(case["lr_used_at_iteration"])
    for i in range(min(cfg.SOLVER.MAX_ITER, 90000)):
        if i in wanted:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted[i], rel=1e-9), i
        optimizer.step()
        scheduler.step()


def test_schedule_continues_from_its_state() -> None:
    cfg = _cfg({"SOLVER.MAX_ITER": 30, "SOLVER.STEPS": (20,), "SOLVER.WARMUP_ITERS": 5})
    first, second = _optimizer(0.1), _optimizer(0.1)
    one, two = build_lr_scheduler(cfg, first), build_lr_scheduler(cfg, second)
    for _ in range(12):
        first.step()
        one.step()
    two.load_state_dict(one.state_dict())
    for _ in range(15):
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]
        for optimizer, scheduler in ((first, one), (second, two)):
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("name", _CASES["lr_schedule"]["optimizer_groups"])
def test_optimizer_groups_equal_detectron2(name: str) -> None:
    case = _CASES["lr_schedule"]["optimizer_groups"][name]
    base = _CASES["infer_faster_r18"]["cfg_all_non_default"]
    cfg = _cfg({**base, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05, **case["overrides"]})
    model = build_model(cfg)
    names = {p: n for n, p in model.named_parameters()}
    got = {_hyper(g): sorted(names[p] for p in g["params"]) for g in build_optimizer(cfg, model).param_groups}
    assert got == {_hyper(g): sorted(g["names"]) for g in case["groups"]}


def _hyper(group: dict) -> tuple:
    return tuple(round(float(group[k]), 12) for k in ("lr", "weight_decay", "momentum", "nesterov"))


def _with_gradients() -> list[nn.Parameter]:
    params = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
    params[0].grad, params[1].grad = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([0.1, -0.2, 0.2])
    return params


@pytest.mark.parametrize(
    ("sizes", "rates", "main"),
    [((2, 5, 5), (0.4, 0.1, 0.2), 1), ((1, 1, 1), (0.3, 0.1, 0.1), 1), ((1, 1), (0.1, 0.3), 0), ((3,), (0.1,), 0)],
)
def test_the_group_whose_learning_rate_is_shown(sizes: tuple[int, ...], rates: tuple[float, ...], main: int) -> None:
    params = [[nn.Parameter(torch.zeros(1)) for _ in range(size)] for size in sizes]
    optimizer = torch.optim.SGD([{"params": group, "lr": lr} for group, lr in zip(params, rates)], lr=0.1)
    assert main_group(optimizer) == main
    if find_spec("detectron2"):
        from detectron2.engine.hooks import LRScheduler

        assert LRScheduler.get_best_param_group_id(optimizer) == main


def test_adamw_takes_the_first_step_by_hand() -> None:
    """The first step of Adam has the size of the learning rate; the decay shrinks the weight independently of it."""
    model = nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1))
    nn.init.constant_(model[0].weight, 2.0)
    nn.init.constant_(model[0].bias, 2.0)
    keys = {"OPTIMIZER": "AdamW", "BASE_LR": 0.01, "WEIGHT_DECAY": 0.5, "WEIGHT_DECAY_NORM": 0.0, "BIAS_LR_FACTOR": 2.0}
    optimizer = build_optimizer(_cfg({f"SOLVER.{k}": v for k, v in keys.items()}), model)
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)
    optimizer.step()
    assert model[0].weight.item() == pytest.approx(2.0 * (1 - 0.01 * 0.5) - 0.01, rel=1e-6)
    assert model[0].bias.item() == pytest.approx(2.0 * (1 - 0.02 * 0.5) - 0.02, rel=1e-6)
    assert model[1].weight.item() == pytest.approx(1.0 - 0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("value", [1.0, 1.0, 0.0], [0.1, -0.2, 0.2]),
        ("norm", [0.6, 0.8, 0.0], [0.1, -0.2, 0.2]),  # each parameter by itself; the second one is within the bound
        ("full_norm", [3 / 5.009, 4 / 5.009, 0.0], [0.1 / 5.009, -0.2 / 5.009, 0.2 / 5.009]),
    ],
)
def test_gradient_clipping(kind: str, first: list[float], second: list[float]) -> None:
    params = _with_gradients()
    cfg = _cfg({"SOLVER.CLIP_GRADIENTS.ENABLED": True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": kind})
    build_gradient_clipper(cfg)(params)
    torch.testing.assert_close(params[0].grad, torch.tensor(first), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(params[1].grad, torch.tensor(second), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
def test_norms_are_clipped_as_by_torch_one_by_one(norm_type: float, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    shapes = [(64, 3, 7, 7), (64,), (1,), (256, 64, 1, 1)] * 5
    ours, theirs = ([nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes] for _ in range(2))
    for i, (a, b) in enumerate(zip(ours, theirs)):
        a.grad = (torch.randn(a.shape, generator=g) * 10.0 ** (i % 5 - 3)).to(dtype)
        b.grad = a.grad.clone()
        nn.utils.clip_grad_norm_([b], 1.0, norm_type)
    ours[1].grad = theirs[1].grad = None
    gradient_clipper("norm", 1.0, norm_type)(ours)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs) if b.grad is not None)


@pytest.mark.parametrize(
    ("key", "value", "nearest"),
    [
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupMultistepLR", "WarmupMultiStepLR"),
        ("SOLVER.WARMUP_METHOD", "linaer", "linear"),
        ("SOLVER.STEPS", (5, 3), r"expected rising iterations of at least 1, found \[5, 3\]"),
    ],
)
def test_builders_name_the_key(key: str, value: object, nearest: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: .*{nearest}"):
        build_lr_scheduler(_cfg({key: value}), _optimizer(0.1))


@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"])
@pytest.mark.parametrize("rescale", [False, True])
def test_schedules_have_a_value_after_every_iteration(name: str, rescale: bool) -> None:
    """The last step of a run asks for the value at its end; STEPS may contain MAX_ITER, which has no effect."""
    keys = {"MAX_ITER": 12, "WARMUP_ITERS": 3, "LR_SCHEDULER_NAME": name, "STEPS": (4, 8, 12), "NUM_DECAYS": 2}
    cfg = _cfg({f"SOLVER.{k}": v for k, v in keys.items()} | {"SOLVER.RESCALE_INTERVAL": rescale})
    optimizer = _optimizer(1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = _rates(optimizer, scheduler, 12)
    assert all(rate > 0 for rate in rates)
    if name != "WarmupCosineLR" and not rescale:
        assert rates[3:] == pytest.approx([1.0] + [0.1] * 4 + [0.01] * 4)


@pytest.mark.parametrize("warmup_method", ["linear", "constant"])
@pytest.mark.parametrize("rescale", [False, True])
def test_a_run_may_end_in_its_warm_up(warmup_method: str, rescale: bool) -> None:
    keys = {"MAX_ITER": 4, "WARMUP_ITERS": 9, "WARMUP_METHOD": warmup_method, "RESCALE_INTERVAL": rescale}
    cfg = _cfg({f"SOLVER.{k}": v for k, v in keys.items()} | {"SOLVER.WARMUP_FACTOR": 0.5, "SOLVER.STEPS": ()})
    optimizer = _optimizer(1.0)
    assert _rates(optimizer, build_lr_scheduler(cfg, optimizer), 4) == (
        [0.5, 0.625, 0.75, 0.875] if warmup_method == "linear" else [0.5] * 4
    )


@pytest.mark.parametrize(
    ("name", "arguments"), [("ConstantParamScheduler", (0.5,)), ("StepParamScheduler", (4, [0.5, 0.5]))]
)
@pytest.mark.parametrize("warmup_iters", [0, 4])
def test_functions_that_have_no_value_at_the_end(name: str, arguments: tuple, warmup_iters: int) -> None:
    """A Python configuration may name any of fvcore's functions."""
    theirs = pytest.importorskip("fvcore.common.param_scheduler", reason="runs fvcore's functions; it is not installed")
    function = getattr(theirs, name)(*arguments)
    with pytest.raises((RuntimeError, IndexError)):
        function(1.0)
    optimizer = _optimizer(1.0)
    function = with_warmup(function, max_iter=4, warmup_iters=warmup_iters, warmup_factor=1)
    assert _rates(optimizer, LRMultiplier(optimizer, function, 4), 4) == [0.5] * 4
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"NESTEROV": True, "MOMENTUM": 0.0}, "SOLVER.NESTEROV: expected SOLVER.MOMENTUM above 0"),
        ({"CLIP_GRADIENTS.ENABLED": True, "CLIP_GRADIENTS.CLIP_VALUE": 0.0}, "CLIP_GRADIENTS.CLIP_VALUE: .* above 0"),
        ({"CLIP_GRADIENTS.ENABLED": True, "CLIP_GRADIENTS.NORM_TYPE": -1.0}, "CLIP_GRADIENTS.NORM_TYPE: .* above 0"),
        ({"STEPS": (0, 5)}, r"SOLVER.STEPS: expected rising iterations of at least 1, found \[0, 5\]"),
        ({"GAMMA": -1.0}, "SOLVER.GAMMA: expected a number above 0"),
        ({"WARMUP_FACTOR": -1.0}, "SOLVER.WARMUP_FACTOR: expected a number of at least 0 and of at most 1"),
        ({"WARMUP_ITERS": -1}, "SOLVER.WARMUP_ITERS: expected a whole number of at least 0"),
    ],
)
def test_wrong_numbers_of_the_solver_are_refused(keys: dict, words: str) -> None:
    cfg = _cfg({f"SOLVER.{k}": v for k, v in keys.items()})
    with pytest.raises(ArgumentError, match=words):
        build_lr_scheduler(cfg, build_optimizer(cfg, nn.Linear(1, 1)))
        build_gradient_clipper(cfg)


def test_functions_name_their_argument() -> None:
    with pytest.raises(UserError, match=r"^SOLVER.CLIP_GRADIENTS.CLIP_TYPE: unknown value 'nrom'; did you mean 'norm'"):
        build_gradient_clipper(_cfg({"SOLVER.CLIP_GRADIENTS.ENABLED": True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "nrom"}))
    with pytest.raises(ArgumentError, match=r"^clip_type: unknown value 'nrom'; did you mean 'norm'"):
        gradient_clipper("nrom", 1.0)
    with pytest.raises(ArgumentError, match=r"^steps: expected rising iterations"):
        multi_step([5, 3], 10)
    with pytest.raises(ArgumentError, match=r"^warmup_method: unknown value 'linaer'; did you mean 'linear'"):
        with_warmup(multi_step([], 10), max_iter=10, warmup_method="linaer")


def test_the_weight_decay_of_norms_may_be_that_of_the_others() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.WEIGHT_DECAY", 0.01, "SOLVER.WEIGHT_DECAY_NORM", None])
    check_ranges(cfg)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    (group,) = build_optimizer(cfg, model).param_groups
    assert group["weight_decay"] == 0.01 and len(group["params"]) == 4
