"""Tests that training and inference seldom wait for a GPU: the calls that would wait are counted, on a CPU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sn2fpn import distributed as comm
from sn2fpn.config import CfgNode
from sn2fpn.data import register_custom
from sn2fpn.engine import Trainer
from sn2fpn.engine.hooks import EMA
from sn2fpn.engine.prefetch import one_ahead, prefetched
from sn2fpn.engine.step_log import NotFinite, StepLog
from sn2fpn.engine.writers import MetricStorage
from sn2fpn.errors import UserError

MakeCfg = Callable[..., CfgNode]

_OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive", "unique_dim", "nms")
_METHODS = ("tolist", "cpu", "numpy", "new_tensor", "__array__")


class _Calls(TorchFunctionMode):
    """Counts the calls that make a program wait for a GPU, by name.

    They are the operators whose result has a size that depends on the numbers, among them indexing by truth values,
    and all that reads numbers or makes a tensor on a GPU of numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._inner = _Operators(self.counts)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in _METHODS or (name in ("tensor", "as_tensor") and (kwargs or {}).get("device") is not None):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))

    def __enter__(self) -> _Calls:
        self._inner.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._inner.__exit__(*error)


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in _OPERATORS:
            self.counts[name] += 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            self.counts["index by truth values"] += any(i is not None and i.dtype == torch.bool for i in args[1])
        return function(*args, **(kwargs or {}))


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all tensors say that they do not lie on a CPU, so that the model goes the way of a GPU."""
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)


def _trainer(cfg: CfgNode, period: int) -> Trainer:
    register_custom(cfg.DATASETS.CUSTOM)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True, parents=True)
    trainer = Trainer(cfg)
    trainer._read_period = period  # as it is set on a GPU
    trainer.resume_or_load(False)
    return trainer


def _fpn(masks: bool = False) -> dict[str, Any]:
    return {
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.MASK_ON": masks,
        "INPUT.MASK_FORMAT": "bitmask",
        "SEED": 2,
        "SOLVER.EMA.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    }


@pytest.mark.usefixtures("like_a_gpu")
@pytest.mark.parametrize("masks", [False, True])
def test_a_training_step_reads_no_number_but_those_of_the_samplers(tiny_cfg: MakeCfg, masks: bool) -> None:
    trainer = _trainer(tiny_cfg(_fpn(masks)), period=20)
    batches = iter(trainer.recipe.build_train_loader(0, 2))
    trainer.run_step(batches)
    trainer.iter = 1
    batch = next(batches)
    trainer.model._target = lambda x: x["instances"]  # the ground truth is checked on the CPU, before it is copied
    (ema,) = (hook for hook in trainer.hooks if isinstance(hook, EMA))
    with _Calls() as calls:
        trainer.run_step(iter([batch]))
        ema.after_step()
    images, levels_of_boxes = len(batch), 2 if masks else 1
    assert +calls.counts == {
        # per image: the proposals that are not empty, and twice in each of two samplers; once, the foreground
        "nonzero": images * (1 + 2 + 2) + 1 + (images if masks else 0),
        "nms": images,
        "tolist": 1 + levels_of_boxes,  # which of the sampled anchors, and of the boxes, belong to which level
    }
    with _Calls() as calls:
        trainer.read_metrics()
    assert +calls.counts == {"tolist": 1}


@pytest.mark.usefixtures("like_a_gpu")
def test_inference_reads_few_numbers(tiny_cfg: MakeCfg) -> None:
    trainer = _trainer(tiny_cfg(_fpn()), period=20)
    batch = next(iter(trainer.recipe.build_train_loader(0, 2)))
    model = trainer.model.eval()
    with torch.no_grad(), _Calls() as calls:
        model(batch)
    images = len(batch)
    assert +calls.counts == {
        # the proposals that are not empty, the classes above the threshold, and the detections that are not empty
        "nonzero": 3 * images,
        "nms": 2 * images,  # of proposals and of detections
        "_local_scalar_dense": images,  # whether all detections are finite
        "tolist": 1,
    }


def test_the_way_of_a_gpu_gives_the_same_losses(tiny_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for gpu in (False, True):
        if gpu:
            monkeypatch.setattr(torch.Tensor, "is_cpu", False)
        trainer = _trainer(tiny_cfg(_fpn()), period=1)
        trainer.run_step(iter(trainer.recipe.build_train_loader(0, 2)))
        losses.append({k: v for k, v in trainer.storage.smoothed().items() if "time" not in k})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_metrics_that_are_read_late_are_the_same(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    states = []
    for period in (1, 3):
        out = str(tmp_path / f"period{period}")
        trainer = _trainer(tiny_cfg({"SEED": 2, "SOLVER.MAX_ITER": 5, "DATASETS.TEST": [], "OUTPUT_DIR": out}), period)
        trainer.train()
        states.append({k: v for k, v in trainer.storage.state_dict().items() if "time" not in k})
        assert len(trainer.storage.state_dict()["time"]) == 5
    assert states[0] == states[1] and len(states[0]["total_loss"]) == 5


@pytest.mark.parametrize("cause", ["checkpoint", "evaluation", "period"])
def test_a_loss_that_is_not_finite_is_named_late_but_exactly(tiny_cfg: MakeCfg, cause: str) -> None:
    """The second step is spoilt, and no number is read until the fourth one."""
    keys: dict[str, Any] = {"SOLVER.MAX_ITER": 8, "SEED": 1, "DATASETS.TEST": []}
    keys |= {"SOLVER.CHECKPOINT_PERIOD": 4} if cause == "checkpoint" else {}
    keys |= {"TEST.EVAL_PERIOD": 4, "DATASETS.TEST": ["tiny_val"]} if cause == "evaluation" else {}
    trainer = _trainer(tiny_cfg(keys), period=4 if cause == "period" else 20)
    images: dict[int, list[str]] = {}

    def spoil(_: Any, args: Any, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        images[trainer.iter] = [str(x["image_id"]) for x in args[0]]
        factor = math.nan if trainer.iter == 1 else 1.0
        return {k: (v * factor).detach().requires_grad_() if k == "loss_cls" else v for k, v in losses.items()}

    trainer.model.register_forward_hook(spoil)
    with pytest.raises(UserError, match=r"diverged at iteration 2: .*'loss_cls': nan.* on images ") as e:
        trainer.train()
    assert f"on images {', '.join(images[1])};" in str(e.value) and trainer.iter == 3
    assert "no checkpoint was saved yet" in str(e.value) and not list(Path(trainer.options.output_dir).glob("*.pth"))


def test_predictions_of_a_gpu_that_are_not_finite_spoil_a_loss(tiny_cfg: MakeCfg, like_a_gpu: None) -> None:
    trainer = _trainer(tiny_cfg(_fpn()), period=1)
    rpn = trainer.model.proposal_generator
    best = rpn.rpn_head.best

    def spoilt(*args: Any) -> Any:
        top = best(*args)
        top.deltas[0, 0, 0] = math.inf
        return top

    rpn.rpn_head.best = spoilt
    with pytest.raises(UserError, match=r"iteration 1: .*'loss_rpn_cls': nan"):
        trainer.train()


def test_steps_without_a_value_and_metrics_of_other_types() -> None:
    storage = MetricStorage()
    log = StepLog(storage)
    for i, metric in enumerate([torch.tensor(3), math.nan, torch.tensor(math.nan), 0.5]):
        log.add(i, ["a"], {"loss": torch.tensor(1.0 + i)}, {"x": metric}, started=0.0, lr=0.1)
    log.read()
    log.read()  # there is nothing left
    assert {k: v for k, v in storage.state_dict().items() if k != "time"} == {
        "loss": [1.0, 2.0, 3.0, 4.0],
        "total_loss": [1.0, 2.0, 3.0, 4.0],
        "x": [3.0, 0.5],
        "lr": [0.1] * 4,
    }


@pytest.mark.parametrize("here", [False, True])
def test_the_first_step_that_diverged_in_any_process_is_named(here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 3 diverges in this process; step 1 in the other one or, with `here`, in both."""
    spoilt = torch.tensor([0.0, math.nan, 0.0, 0.0])
    monkeypatch.setattr(comm, "reduce_mean", lambda losses: {k: v + spoilt for k, v in losses.items()})
    monkeypatch.setattr(comm, "all_gather", lambda mine: [mine, "{'loss': nan} on images theirs"])
    log = StepLog(MetricStorage())
    for i in range(4):
        loss = math.nan if i == 3 or (here and i == 1) else 1.0
        log.add(i, [f"mine{i}"], {"loss": torch.tensor(loss)}, {}, started=0.0)
    with pytest.raises(NotFinite, match="on images theirs") as error:
        log.read()
    assert error.value.iteration == 1 and ("mine1" in str(error.value)) == here


def test_batches_are_copied_one_ahead() -> None:
    events: list[str] = []

    def items() -> Iterator[int]:
        for i in range(3):
            events.append(f"made {i}")
            yield i
        raise UserError("no more")

    def start(item: int) -> Callable[[], int]:
        events.append(f"started {item}")
        return lambda: item * 10

    with pytest.raises(UserError, match="no more"):
        for item in one_ahead(items(), start):
            events.append(f"trained on {item}")
    assert events == [
        *("made 0", "started 0", "made 1", "started 1", "trained on 0"),
        *("made 2", "started 2", "trained on 10"),
    ]
    assert list(one_ahead([1, 2], start)) == [10, 20] and not list(one_ahead([], start))
    batches = [[{"image": torch.zeros(3, 2, 2)}]]
    assert prefetched(batches, torch.device("cpu")) is batches
