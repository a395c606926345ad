"""Training on a GPU: checkpoints between devices, the gradient scaler, repeatability, memory and several processes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gpu_comparison import HALF, assert_close, moved
from torch.nn.parallel import DistributedDataParallel

from golden_detectron2 import CASES, inputs, model
from small_runs import WHOLE_BATCH
from sn2fpn.config import CfgNode
from sn2fpn.engine import Trainer
from sn2fpn.study.measure.timing import resident_mib

pytestmark = pytest.mark.gpu
MakeCfg = Callable[..., CfgNode]
ROOT = Path(__file__).parents[2]


def trainer(cfg: CfgNode, resume: bool = False) -> Trainer:
    """Return a trainer that has loaded its weights."""
    made = Trainer(cfg)
    made.resume_or_load(resume=resume)
    return made


def totals(folder: Path) -> dict[int, float]:
    """Return the logged total losses of a run by iteration."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {d["iteration"]: d["total_loss"] for d in lines if "total_loss" in d}


def state(made: Trainer) -> list[torch.Tensor]:
    """Return the tensors of the model and of the optimizer on the CPU, in their order."""
    momenta = [v for s in made.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    return [t.detach().cpu() for t in [*made.model.state_dict().values(), *momenta]]


@pytest.mark.parametrize("dtype", [None, *HALF], ids=str)
def test_a_run_learns_evaluates_and_reports_its_memory(
    dtype: torch.dtype | None, tiny_cfg: MakeCfg, tmp_path: Path
) -> None:
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 21, "TEST.EVAL_PERIOD": 20})
    if dtype is not None:
        cfg.merge_from_list(["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", str(dtype).removeprefix("torch.")])
    results = trainer(cfg).train()
    assert 0 <= results["tiny_gpu_val"]["bbox"]["AP50"] <= 100
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.json").read_text().splitlines()]
    losses = {d["iteration"]: d["total_loss"] for d in lines if "total_loss" in d}
    assert losses[20] < losses[0]
    peaks = [d["peak_memory_mib"] for d in lines if "peak_memory_mib" in d]
    assert peaks and all(peak > 1 for peak in peaks)


@pytest.mark.parametrize("direction", ["to the CPU", "from the CPU"])
def test_a_run_changes_devices(direction: str, device: torch.device, tiny_cfg: MakeCfg) -> None:
    """Weights, momenta and the schedule are the same on both devices, and the run goes on."""
    devices = [str(device), "cpu"] if direction == "to the CPU" else ["cpu", str(device)]
    first = trainer(tiny_cfg({"MODEL.DEVICE": devices[0], "SOLVER.MAX_ITER": 3, "DATASETS.TEST": ()}))
    first.train()
    second = trainer(tiny_cfg({"MODEL.DEVICE": devices[1], "SOLVER.MAX_ITER": 5, "DATASETS.TEST": ()}), resume=True)
    assert next(second.model.parameters()).device.type == torch.device(devices[1]).type
    assert all(torch.equal(a, b) for a, b in zip(state(first), state(second), strict=True))
    assert second.start_iter == 3 and second.scheduler.last_epoch == first.scheduler.last_epoch
    second.train()
    assert second.iter == 4 and all(t.isfinite().all() for t in state(second))


def test_checkpoints_hold_the_gradient_scaler(tiny_cfg: MakeCfg) -> None:
    keys = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "float16", "DATASETS.TEST": ()}
    first = trainer(tiny_cfg(keys))
    first._scaler.scale(torch.ones((), device=first.options.device))  # makes the scale
    first._scaler.update(512.0)  # as if earlier gradients had overflown
    first.train()
    kept = first._scaler.state_dict()
    assert kept["scale"] <= 512.0 and kept["_growth_tracker"] > 0
    second = trainer(tiny_cfg(keys), resume=True)
    assert second._scaler.state_dict() == kept


def test_a_step_whose_gradients_overflow_changes_nothing(tiny_cfg: MakeCfg) -> None:
    made = trainer(tiny_cfg({"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "float16"}))
    batches = iter(made.recipe.build_train_loader(0, 0))
    made.model.train()
    made._scaler.scale(torch.ones((), device=made.options.device))  # makes the scale
    made._scaler.update(3e38)  # so that no gradient stays finite
    before = [p.detach().clone() for p in made.model.parameters()]
    made.run_step(batches)
    assert all(torch.equal(a, b) for a, b in zip(before, made.model.parameters()))
    assert made._scaler.get_scale() < 3e38 and not made.optimizer.state
    made._scaler.update(256.0)
    made.run_step(batches)
    assert made.optimizer.state and all(t.isfinite().all() for t in state(made))


def test_runs_with_a_seed_are_equal(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    """They are bitwise equal, unless torch warns of an operation that has no deterministic form."""
    runs, said = [], []
    for name in ("a", "b"):
        made = trainer(tiny_cfg({"SEED": 3, "OUTPUT_DIR": str(tmp_path / name), "DATASETS.TEST": ()}))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made.train()
        said += [str(w.message) for w in caught if "determinis" in str(w.message)]
        runs.append((totals(tmp_path / name), state(made)))
    (losses, weights), (again, weights_again) = runs
    assert again[0] == losses[0]
    if said:
        assert again == pytest.approx(losses, rel=1e-3), said
    else:
        assert again == losses and all(torch.equal(a, b) for a, b in zip(weights, weights_again, strict=True))


@pytest.mark.parametrize("keys", [{}, {"MODEL.FPN.NORM": "BN", "MODEL.RESNETS.NORM": "BN"}], ids=["frozen", "BN"])
@pytest.mark.parametrize("upsampling", ["nearest", "carafe", "dysample", "sni:learned"])
def test_cuda_graphs_change_nothing(
    upsampling: str, keys: dict[str, Any], tiny_cfg: MakeCfg, device: torch.device, tmp_path: Path
) -> None:
    """The same batch gives the same losses, gradients and statistics, before a graph is recorded and afterwards."""
    keys = keys | {"MODEL.BACKBONE.NAME": "build_sn2_fpn_backbone", "MODEL.FPN.UPSAMPLE": upsampling, "SEED": 3}
    keys |= {"SOLVER.BASE_LR": 1e-12, "DATASETS.TEST": ()}
    found = []
    for on in (False, True):
        made = trainer(tiny_cfg(keys | {"MODEL.CUDA_GRAPHS": on, "OUTPUT_DIR": str(tmp_path / str(on))}))
        made.model.train()
        batch = next(iter(made.recipe.build_train_loader(0, 0)))
        for _ in range(4):  # the second one is recorded
            torch.manual_seed(0)  # the same samples of anchors and proposals
            losses, _ = made._gradients.add(batch, made._scaler)
            grads = {f"gradient of {n}": p.grad for n, p in made.model.named_parameters() if p.grad is not None}
            made.model.zero_grad(set_to_none=True)
        statistics = {n: b for n, b in made.model.backbone.named_buffers() if b.is_floating_point()}
        found.append({k: v.detach() for k, v in losses.items()} | grads | statistics)
        if on and device.type == "cuda":
            assert len(made._gradients.graphs._recorded) == 1
    assert_close(found[1], found[0], values=1e-4, gradients=1e-3)


@pytest.mark.slow
def test_memory_does_not_grow(device: torch.device, tiny_cfg: MakeCfg) -> None:
    made = trainer(tiny_cfg())
    made.model.train()
    batch = next(iter(made.recipe.build_train_loader(0, 0)))

    def after(steps: int) -> float:
        for _ in range(steps):
            made.run_step(iter([batch]))
        gc.collect()
        return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else resident_mib()

    early = after(20)
    assert after(200 if device.type == "cuda" else 20) <= early + (1 if device.type == "cuda" else 64)


@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
def test_one_process_over_the_devices_backend(device: torch.device, tmp_path: Path) -> None:
    """DistributedDataParallel of one process, over NCCL on a GPU, has the losses and gradients of the model itself."""
    case = CASES["train_faster_r18"]
    plain, batch = moved(model(case), device), inputs(case)
    wrapped = moved(plain, device)
    store = f"file://{tmp_path / 'rendezvous'}"
    index = {"device_id": torch.device("cuda", torch.cuda.current_device())} if device.type == "cuda" else {}
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=store, rank=0, world_size=1, **index)
    try:
        parallel = DistributedDataParallel(wrapped)
        losses = parallel(batch)
        sum(losses.values()).backward()
    finally:
        dist.destroy_process_group()
    expected = plain(batch)
    sum(expected.values()).backward()
    found, right = ({k: v.item() for k, v in some.items()} for some in (losses, expected))
    assert found == pytest.approx(right, rel=1e-4)
    grads = [
        {f"gradient of {n}": p.grad for n, p in m.named_parameters() if p.grad is not None} for m in (wrapped, plain)
    ]
    assert_close(*grads, values=0, gradients=1e-3)


def run(flags: list[str], keys: dict[str, Any], torchrun: int = 0) -> None:
    """Train with train_net.py, without TF32, in as many processes as the flags or torchrun start."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(torchrun)] if torchrun else []
    config = str(ROOT / "configs/quick/faster_rcnn_R18_sni_shapes.yaml")
    program = [str(ROOT / "train_net.py"), "--engine", "native", "--config-file", config]
    command = [sys.executable, *launcher, *program, *flags, *(str(x) for pair in keys.items() for x in pair)]
    environment = os.environ | {"NVIDIA_TF32_OVERRIDE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_several_processes_give_the_losses_of_one(
    device: torch.device, tiny_keys: dict[str, Any], tmp_path: Path
) -> None:
    """torchrun with one process joins a group of one; two processes need two GPUs."""
    keys = tiny_keys | WHOLE_BATCH | {"MODEL.DEVICE": device}
    run([], keys | {"OUTPUT_DIR": tmp_path / "single"})
    run([], keys | {"OUTPUT_DIR": tmp_path / "torchrun"}, torchrun=1)
    expected = totals(tmp_path / "single")
    assert set(expected) == {0, 3}
    assert totals(tmp_path / "torchrun") == pytest.approx(expected, rel=1e-3)
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("one GPU is visible: torchrun with one process was compared, and two processes need two GPUs")
    run(["--num-gpus", "2"], keys | {"OUTPUT_DIR": tmp_path / "two"})
    assert totals(tmp_path / "two") == pytest.approx(expected, rel=1e-3)
