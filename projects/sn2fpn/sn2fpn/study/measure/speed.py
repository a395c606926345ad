"""The speed and memory use of a study's variants, measured back to back in one process."""

from __future__ import annotations

import logging
import platform
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...checkpoint import load_trained
from ...config import CfgNode
from ...engine import Trainer
from ...errors import argument_names
from ...imports import import_files
from ...precision import autocast
from ...program import STOP_SIGNALS
from ..files import write_json
from ..folder import CellFolder, trained_cells
from ..spec.study import Study
from .cost import evaluation_size
from .timing import Neighbours, forget_peak, resident_mib, take_turns
from .workload import fill_weights, fix_work, make_images, model_inputs

__all__ = ["measure_speed"]

logger = logging.getLogger(__name__)

_BATCH = 2  # images per training step, as one GPU has in the usual schedules
# Training steps with these keys move no weight and read no data.
_STILL = {
    "MODEL.WEIGHTS": "",
    "SEED": -1,
    "SOLVER.BASE_LR": 1e-12,
    "SOLVER.BASE_LR_END": 0.0,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "SOLVER.ACCUMULATE_STEPS": 1,
    "SOLVER.EMA.ENABLED": False,
    "INPUT.MASK_FORMAT": "polygon",
    "INPUT.COPY_PASTE.PROB": 0.0,
    "INPUT.FUNCTION": "",
}


def measure_speed(study: Study, folder: str | Path, rounds: int = 7) -> dict[str, Any]:
    """Time inference (one image) and training steps (two images) of all variants and write `speed.json`.

    The variants take turns on the native engine and on the baseline's MODEL.DEVICE. Each does a fixed amount of work
    (`fix_work`) on the same images, resized to its test size; the work is the same unless an axis changes it. Their
    weights are those of `trained_cells`, or made up where there are none. The peak memory is that of a process that
    runs one variant alone: what it allocates on a GPU, or by how much it grows on a CPU.

    Returns:
        The content of the file, `{"device", "threads", "rounds", "batch", "cores", "cores_used_by_others", "reliable",
        "variants": {"<variant>": {"weights", "image_size": [height, width], "proposals", "detections", "inference_s":
        [per round …], "train_step_s": [per round …], "peak_memory_mib": {"inference", "training"}}}}`. Timings are not
        `reliable` when other processes left too few cores. The memory is None where its process died.
    """
    base = study.config(study.baseline)
    cells = trained_cells(study, folder)
    setups = {v.name: _Setup.of(study.config(v), cells.get(v.name), base.MODEL.DEVICE) for v in study.variants}
    with _without_determinism():
        memory = {
            name: _in_new_process(_peak_memory, setup, study.imports, torch.get_num_threads())
            for name, setup in setups.items()
        }
        runs = {name: _Run(setup) for name, setup in setups.items()}
        logger.info("timing %d variants in %d rounds", len(runs), rounds)
        neighbours = Neighbours()
        inference = take_turns({name: run.infer for name, run in runs.items()}, rounds)
        training = take_turns({name: run.train for name, run in runs.items()}, rounds)  # last: it moves norm statistics
        load = neighbours.stop()
    about = {"device": _device_name(base.MODEL.DEVICE), "threads": torch.get_num_threads(), "rounds": rounds}
    speed = about | {"batch": _BATCH} | load
    speed["variants"] = {
        name: {
            "weights": "trained" if setup.weights else "made up",
            "image_size": list(setup.size),
            "proposals": runs[name].proposals,
            "detections": runs[name].detections,
            "inference_s": inference[name],
            "train_step_s": training[name],
            "peak_memory_mib": memory[name],
        }
        for name, setup in setups.items()
    }
    write_json(Path(folder) / "speed.json", speed)
    return speed


class _Setup(NamedTuple):
    """What another process needs to build a `_Run`."""

    cfg: CfgNode
    weights: Path | None
    size: tuple[int, int]

    @classmethod
    def of(cls, cfg: CfgNode, trained: CellFolder | None, device: str) -> _Setup:
        cfg.merge_from_list([item for pair in (_STILL | {"MODEL.DEVICE": device}).items() for item in pair])
        return cls(cfg, trained and trained.weights, evaluation_size(cfg))


class _Run:
    """One variant that infers and trains on images of its own, with fixed work."""

    def __init__(self, setup: _Setup) -> None:
        with tempfile.TemporaryDirectory() as folder:  # a trainer needs a folder, but its steps write nothing
            setup.cfg.OUTPUT_DIR = folder
            self._trainer = Trainer(setup.cfg)
        self._model = self._trainer.model
        if setup.weights:
            with argument_names({"path": "MODEL.WEIGHTS"}):
                load_trained(self._model, str(setup.weights))
        else:
            self._model.load_state_dict(fill_weights(self._model.state_dict()))
        self._batch = model_inputs(make_images(_BATCH, *setup.size), self._model.roi_heads.num_classes)
        self.proposals = self.detections = 0
        fix_work(self._model, self._batch[0])
        self._model.roi_heads.register_forward_hook(self._count)

    def _count(self, _: Any, inputs: tuple[Any, ...], output: tuple[list[Any], Any]) -> None:
        if not self._model.training:
            self.proposals, self.detections = len(inputs[2][0]), len(output[0][0])

    def infer(self) -> None:
        self._model.eval()
        options = self._trainer.options
        with torch.no_grad(), autocast(options.device, options.precision):  # as in an evaluation
            self._model(self._batch[:1])

    def train(self) -> None:
        self._model.train()
        torch.manual_seed(0)  # the same anchors and proposals are sampled in all variants
        self._trainer.run_step(iter([self._batch]))


def _in_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)` of a new process, or None when that process dies.

    `STOP_SIGNALS` reach this process alone, which then ends the other one.
    """
    others = set(active_children())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            with _blocked_signals():
                result = pool.submit(function, *args)
            return result.result()
        except BrokenProcessPool:
            logger.warning("the process that measures memory died, perhaps because it ran out of memory")
            return None
        except KeyboardInterrupt:
            for process in set(active_children()) - others:
                process.kill()
            raise


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block `STOP_SIGNALS` while a process is started, which inherits this; they are heard afterwards.

    Ctrl-C reaches all processes of a terminal, and one that is being started would print a traceback.
    """
    resource_tracker.ensure_running()  # its start, which comes before that of the first process, unblocks signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _peak_memory(setup: _Setup, imports: tuple[Path, ...], threads: int) -> dict[str, float]:
    """Return the peak memory of inference and of training in MiB."""
    import_files(imports)
    torch.set_num_threads(threads)
    on_gpu = setup.cfg.MODEL.DEVICE.startswith("cuda")
    empty = resident_mib()
    run = _Run(setup)
    out = {}
    for name, action in (("inference", run.infer), ("training", run.train)):
        forget_peak()  # to build a model and to read its weights takes memory for a moment
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(2):  # the optimizer's state appears with the first step
            action()
        out[name] = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resident_mib(peak=True) - empty
    return out


@contextmanager
def _without_determinism() -> Iterator[None]:
    """Allow fast algorithms inside: training with a seed asks for deterministic ones, some of which are slow."""
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
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({names[0] if names else platform.machine()})"
