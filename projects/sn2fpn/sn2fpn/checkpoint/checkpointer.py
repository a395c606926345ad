"""Saves and restores a training run; loads weights into a model."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..atomic import atomic_write
from ..distributed import is_main_process
from ..errors import UserError
from .matching import MatchReport, load_weights
from .reading import load_file

__all__ = ["Checkpointer", "atomic_save"]

logger = logging.getLogger(__name__)
_LAST = "last_checkpoint"
_PERIODIC = re.compile(r"model_\d+\.pth")  # those that `delete_old` may delete


class Checkpointer:
    """Saves and restores a model and what else makes up a run, in Detectron2's layout.

    A file is `{"model": state dict, <checkpointable>: its state dict, …, "iteration": n, …}`: tensors and
    plain types only, so that it loads in torch's safe mode. `last_checkpoint` beside the files holds the name
    of the newest. Only the main process writes.

    Args:
        model: its parameters and buffers are saved and loaded; DistributedDataParallel is looked through.
        save_dir: the folder of the files; "" saves nothing.
        checkpointables: objects with `state_dict()` and `load_state_dict()`, by their name in the file.

    Attributes:
        report: of the last `load`; None before.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from sn2fpn.checkpoint import Checkpointer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpointer = Checkpointer(nn.Linear(2, 3), folder)
        ...     checkpointer.save("model_final", iteration=9)
        ...     checkpointer.resume_or_load("")["iteration"]
        9
    """

    def __init__(self, model: nn.Module, save_dir: str | Path = "", **checkpointables: Any) -> None:
        self.model = model.module if isinstance(model, DistributedDataParallel | DataParallel) else model
        self.save_dir = str(save_dir)
        self.checkpointables = checkpointables
        self.report: MatchReport | None = None

    # ---------------------------------------------------------------- writing

    def save(self, name: str, *, tag_last: bool = True, **extra: Any) -> None:
        """Write `{save_dir}/{name}.pth`: complete, or not at all.

        Args:
            name: file name without `.pth`.
            tag_last: whether `--resume` shall go on from this file (not so for "the best so far").
            extra: further plain values and tensors, such as `iteration`.

        Raises:
            UserError: the file cannot be written (disk full …); older files are intact.
        """
        if not self.save_dir or not is_main_process():
            return
        data = {"model": dict(self.model.state_dict())}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        file = Path(self.save_dir) / f"{name}.pth"
        logger.info("saving %s", file)
        atomic_save(data | extra, file)
        if tag_last:
            with atomic_write(file.with_name(_LAST)) as stream:
                stream.write(file.name)

    def delete_old(self, keep: int) -> None:
        """Delete periodic checkpoints (`model_0004999.pth`) but the newest `keep` ones; 0 keeps all."""
        if keep <= 0 or not self.save_dir or not is_main_process():
            return
        periodic = sorted(p for p in Path(self.save_dir).glob("model_*.pth") if _PERIODIC.fullmatch(p.name))
        for file in periodic[:-keep]:
            if str(file) != self.get_checkpoint_file():
                file.unlink(missing_ok=True)

    # ---------------------------------------------------------------- reading

    def load(
        self, path: str | Path, checkpointables: list[str] | None = None, *, where: str = "MODEL.WEIGHTS"
    ) -> dict[str, Any]:
        """Load a file of any known format into the model, and log what matched.

        Args:
            path: file or URL (see `load_file`); "" loads nothing.
            checkpointables: names of those to restore too; None: all that the file has; []: the model alone.
            where: the key or flag that names the file, for messages.

        Returns:
            What else the file holds, such as `iteration`.

        Raises:
            UserError: see `load_file` and `load_weights`; or a state does not fit its checkpointable.
        """
        if not path:
            logger.info("%s is empty: the model keeps its initial weights", where)
            return {}
        checkpoint = load_file(path, where)
        self.report = load_weights(self.model, checkpoint, where)
        log = logger.info if self.report.complete else logger.warning
        log("weights from %s", self.report)
        if checkpoint.format == "torchvision":
            logger.info(_TORCHVISION_INPUT)
        rest = _training_state(checkpoint.rest)
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in rest:
                _restore(key, self.checkpointables[key], rest.pop(key), checkpoint.path)
        return rest

    def resume_or_load(self, path: str | Path, resume: bool = True) -> dict[str, Any]:
        """Go on from the last checkpoint of `save_dir` if `resume` and there is one; else load weights.

        Returns:
            What else the file holds; {} when nothing is resumed, so that a run starts at iteration 0.

        Raises:
            UserError: as `load`; and when the last checkpoint is of another model than this.
        """
        if not (resume and self.has_checkpoint()):
            if resume:
                logger.info("nothing to resume in %s", self.save_dir or "the (empty) output folder")
            self.load(path, checkpointables=[])
            return {}
        file = self.get_checkpoint_file()
        where = f"--resume ({Path(self.save_dir) / _LAST})"
        rest = self.load(file, where=where)
        if self.report is not None and not self.report.complete:
            raise UserError(
                f"{where}: {file} is of another model than the configuration describes: {self.report}\n"
                "Resume with the run's own configuration, or start anew with MODEL.WEIGHTS set to this file"
            )
        return rest

    def has_checkpoint(self) -> bool:
        """Whether `save_dir` names a last checkpoint."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """The last checkpoint's path; "" when there is none."""
        tag = Path(self.save_dir) / _LAST
        name = tag.read_text().strip() if self.save_dir and tag.is_file() else ""
        return str(tag.with_name(Path(name).name)) if name else ""


_TORCHVISION_INPUT = (
    "torchvision's weights are for INPUT.FORMAT RGB, MODEL.PIXEL_MEAN [123.675, 116.280, 103.530], "
    "MODEL.PIXEL_STD [58.395, 57.120, 57.375] and MODEL.RESNETS.STRIDE_IN_1X1 False"
)


def atomic_save(data: Any, path: str | Path) -> None:
    """`torch.save` of tensors and plain types, complete or not at all.

    numpy scalars become Python's and numpy arrays tensors, so that the file loads with `weights_only=True`.

    Raises:
        UserError: the file cannot be written; an older one of this name is intact.
        TypeError: `data` holds another type (a bug in the caller).
    """
    plain = _plain(data, "")
    try:
        with atomic_write(path, "wb") as file:
            torch.save(plain, file)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise UserError(f"cannot write {path}: {reason}. What was there before is intact") from error


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, dict):
        return {k: _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    kind = type(value).__name__
    raise TypeError(f"a checkpoint holds tensors and plain types, found {kind} at {where[1:]}")


def _training_state(rest: dict[str, Any]) -> dict[str, Any]:
    """Detectron2's trainer keeps optimizer and scheduler deeper in the file; bring them to the top."""
    trainer = rest.get("trainer")
    if not isinstance(trainer, dict) or "optimizer" in rest:
        return dict(rest)
    inner, hooks = trainer.get("_trainer", {}), trainer.get("hooks", {})
    found = {
        "optimizer": inner.get("optimizer"),
        "scheduler": hooks.get("LRScheduler"),
        "iteration": trainer.get("iteration"),
    }
    others = {k: v for k, v in rest.items() if k != "trainer"}
    return {k: v for k, v in found.items() if v is not None} | others


def _restore(key: str, obj: Any, state: Any, path: Path) -> None:
    logger.info("restoring %s", key)
    try:
        if isinstance(obj, torch.optim.Optimizer):
            _check_optimizer(obj, state)
        obj.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: the {key}'s state does not fit this configuration: {error}") from error


def _check_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """An optimizer's state goes by position: refuse momentum made for parameters of other shapes."""
    mine, theirs = optimizer.param_groups, state["param_groups"]
    sizes = [len(g["params"]) for g in mine], [len(g["params"]) for g in theirs]
    if sizes[0] != sizes[1]:
        raise ValueError(f"parameter groups of {sizes[1]} tensors in the file, {sizes[0]} here")
    ids = [i for group in theirs for i in group["params"]]
    params = [p for group in mine for p in group["params"]]
    for i, param in zip(ids, params):
        for name, value in state["state"].get(i, {}).items():
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape != param.shape:
                raise ValueError(f"{name} of {tuple(value.shape)} for a parameter of {tuple(param.shape)}")
