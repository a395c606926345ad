"""How fast the variants of a study are and how much memory they take, measured back to back in one process."""

from __future__ import annotations

import json
import logging
import platform
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..atomic import atomic_write
from ..checkpoint import load_trained
from ..config import CfgNode
from ..engine import Trainer
from .cost import evaluation_size
from .timing import Neighbours, resident_mib, take_turns
from .workload import fill_weights, fix_work, make_images, model_inputs

if TYPE_CHECKING:
    from .file import Study, Variant

__all__ = ["measure_speed"]

logger = logging.getLogger(__name__)

_BATCH = 2  # images per training step: what one GPU has in the usual schedules


def measure_speed(study: Study, folder: str | Path, rounds: int = 7) -> dict[str, Any]:
    """Time inference (one image) and training steps (two images) of all variants, and write `speed.json`.

    The variants take turns, on the native engine and the baseline's MODEL.DEVICE. All do the same work (`fix_work`) on
    the same images of the test size, with the weights that the first seed ended with, or made-up ones where there are
    none. Peak memory is that of a process which runs one variant alone: what it allocates on a GPU, or by how much
    it grows on a CPU.

    Returns:
        `{"device", "threads", "rounds", "image_size": [h, w], "batch", "proposals", "detections", "cores",
        "cores_used_by_others", "reliable", "variants": {"<variant>": {"weights", "inference_s": [per round …],
        "train_step_s": [per round …], "peak_memory_mib": {"inference", "training"}}}}`. The timings are not
        `reliable` when other processes took cores away from them. Memory is None where the process died.

    Raises:
        UserError: a variant that cannot be built, weights that do not fit it, or see `evaluation_size`.
    """
    folder = Path(folder)
    base = study.config(study.baseline, study.seeds[0])
    size = evaluation_size(base)
    setups = {v.name: _Setup(_config(study, v, base), _weights(study, v, folder), size) for v in study.variants}
    with _free_of_determinism():
        memory = {name: _in_a_process(_peak_memory, setup, study.imports) for name, setup in setups.items()}
        runs = {name: _Run(setup) for name, setup in setups.items()}
        logger.info("timing %d variants, %d rounds", len(runs), rounds)
        neighbours = Neighbours()
        inference = take_turns({name: run.infer for name, run in runs.items()}, rounds)
        training = take_turns({name: run.train for name, run in runs.items()}, rounds)  # last: norm statistics move
        neighbours.stop()
    if neighbours.disturb:
        logger.warning(
            "other processes used %.1f of the %d cores meanwhile: these timings are unreliable, measure "
            "again when the machine is idle",
            neighbours.used,
            neighbours.cores,
        )
    work = {(run.proposals, run.detections) for run in runs.values()}
    if len(work) > 1:
        logger.warning("unequal work (proposals, detections): %s", sorted(work))
    proposals, detections = max(work)
    speed = {
        "device": _device_name(base.MODEL.DEVICE),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "image_size": list(size),
        "batch": _BATCH,
        "proposals": proposals,
        "detections": detections,
        "cores": neighbours.cores,
        "cores_used_by_others": round(neighbours.used, 2),
        "reliable": not neighbours.disturb,
        "variants": {
            name: {
                "weights": "trained" if setup.weights else "made up",
                "inference_s": inference[name],
                "train_step_s": training[name],
                "peak_memory_mib": memory[name],
            }
            for name, setup in setups.items()
        },
    }
    with atomic_write(folder / "speed.json") as file:
        json.dump(speed, file, indent=2)
    return speed


class _Setup:
    """What makes a `_Run`, also in another process."""

    def __init__(self, cfg: CfgNode, weights: str, size: tuple[int, int]) -> None:
        self.cfg, self.weights, self.size = cfg, weights, size


class _Run:
    """A variant that infers and trains on images of its own, with fixed work."""

    def __init__(self, setup: _Setup) -> None:
        with tempfile.TemporaryDirectory() as folder:  # a trainer wants one; steps alone write nothing
            setup.cfg.OUTPUT_DIR = folder
            self._trainer = Trainer(setup.cfg)
        self._model = self._trainer.model
        if setup.weights:
            load_trained(self._model, setup.weights)
        else:
            self._model.load_state_dict(fill_weights(self._model.state_dict()))
        self._batch = model_inputs(make_images(_BATCH, *setup.size), self._model.roi_heads.num_classes)
        self._image = self._batch[:1]
        self.proposals = self.detections = 0
        fix_work(self._model, self._image[0])
        self._model.roi_heads.register_forward_hook(self._count)

    def _count(self, _: Any, inputs: tuple[Any, ...], output: tuple[list[Any], Any]) -> None:
        if not self._model.training:
            self.proposals, self.detections = len(inputs[2][0]), len(output[0][0])

    def infer(self) -> None:
        self._model.eval()
        with torch.no_grad():
            self._model(self._image)

    def train(self) -> None:
        self._model.train()
        torch.manual_seed(0)  # equal samples of anchors and proposals
        self._trainer.run_step(iter([self._batch]))


def _config(study: Study, variant: Variant, base: CfgNode) -> CfgNode:
    """The variant's configuration for steps that change nothing: no weights moved, no data read."""
    cfg = study.config(variant, study.seeds[0]).clone()
    cfg.defrost()
    cfg.merge_from_list(
        [
            "MODEL.DEVICE",
            base.MODEL.DEVICE,
            "MODEL.WEIGHTS",
            "",
            "SEED",
            -1,
            "SOLVER.BASE_LR",
            1e-12,
            "SOLVER.BASE_LR_END",
            0.0,
            "SOLVER.REFERENCE_WORLD_SIZE",
            0,
            "SOLVER.ACCUMULATE_STEPS",
            1,
            "SOLVER.EMA.ENABLED",
            False,
            "INPUT.MASK_FORMAT",
            "polygon",
        ]
    )
    return cfg


def _weights(study: Study, variant: Variant, folder: Path) -> str:
    file = folder / "cells" / variant.name / f"seed{study.seeds[0]}" / "model_final.pth"
    return str(file) if file.is_file() else ""


def _in_a_process(function: Any, *args: Any) -> Any:
    """`function(*args)` in a fresh process; None when that dies, for lack of memory say."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args, torch.get_num_threads()).result()
        except BrokenProcessPool:
            logger.warning("the process that measures memory died, perhaps for lack of it")
            return None


def _peak_memory(setup: _Setup, imports: Sequence[Path], threads: int) -> dict[str, float]:
    """Peak memory of inference and of training, in MiB."""
    if imports:
        from ..engine.imports import import_files

        import_files(imports)
    torch.set_num_threads(threads)
    on_gpu = setup.cfg.MODEL.DEVICE.startswith("cuda")
    empty = resident_mib()
    run = _Run(setup)
    out = {}
    for name, action in (("inference", run.infer), ("training", run.train)):
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(2):  # the optimizer's state appears with the first step
            action()
        out[name] = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resident_mib(peak=True) - empty
    return out


@contextmanager
def _free_of_determinism() -> Iterator[None]:
    """Training with a seed asks for deterministic algorithms, some of which are slow; what others use is timed."""
    before, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    random_state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)
        torch.backends.cudnn.deterministic = cudnn
        torch.set_rng_state(random_state)


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"cpu ({names[0] if names else platform.machine()})"
