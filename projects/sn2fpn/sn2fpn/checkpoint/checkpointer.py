"""Saves and restores a training run; loads weights into a model."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..atomic import atomic_write
from ..distributed import is_main_process
from ..errors import UserError
from .matching import MatchReport, load_weights
from .reading import load_file
from .writing import atomic_save

__all__ = ["Checkpointer"]

logger = logging.getLogger(__name__)
_LAST = "last_checkpoint"
_PERIODIC = re.compile(r"model_\d+\.pth")  # those that `delete_old` may delete


class Checkpointer:
    """Saves and restores a model and what else makes up a run, in Detectron2's layout.

    A file is `{"model": state dict, "trainer": {…}, <checkpointable>: its state dict, …, "iteration": n, …}`:
    tensors and plain types only, so that it loads in torch's safe mode. `trainer` holds the optimizer's, the
    scheduler's and the gradient scaler's states where Detectron2's trainer looks for them, so either engine
    resumes from the other's files. `last_checkpoint` beside the files holds the name of the newest. Only the
    main process writes.

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
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        if "optimizer" in states and "iteration" in extra:
            states = _for_detectron2(states, extra["iteration"])
        data = {"model": dict(self.model.state_dict())} | states
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
        self,
        path: str | Path,
        checkpointables: list[str] | None = None,
        *,
        complete: bool = False,
        where: str = "MODEL.WEIGHTS",
    ) -> dict[str, Any]:
        """Load a file of any known format into the model, and log what matched.

        Args:
            path: file or URL (see `load_file`); "" loads nothing.
            checkpointables: names of those to restore too; None: all that the file has; []: the model alone.
            complete: every tensor of the model must come from the file.
            where: the key or flag that names the file, for messages.

        Returns:
            What else the file holds, such as `iteration`.

        Raises:
            UserError: see `load_file` and `load_weights`; not `complete`; a state does not fit its checkpointable.
        """
        if not path:
            logger.info("%s is empty: the model keeps its initial weights", where)
            return {}
        checkpoint = load_file(path, where)
        self.report = load_weights(self.model, checkpoint, where)
        if complete and not self.report.complete:
            raise UserError(
                f"{where}: {checkpoint.path} is of another model than the configuration describes: {self.report}\n"
                "Resume with the run's own configuration, or start anew with MODEL.WEIGHTS set to this file"
            )
        log = logger.info if self.report.complete else logger.warning
        log("weights from %s", self.report)
        if checkpoint.format == "torchvision":
            logger.info(_TORCHVISION_INPUT)
        rest = dict(checkpoint.rest)
        if "trainer" in rest and "optimizer" not in rest:
            rest = self._from_detectron2(rest, list(checkpoint.model))
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in rest:
                _restore(key, self.checkpointables[key], rest.pop(key), checkpoint.path)
        return rest

    def resume_or_load(self, path: str | Path, resume: bool = True, where: str = "MODEL.WEIGHTS") -> dict[str, Any]:
        """Go on from the last checkpoint of `save_dir` if `resume` and there is one; else load weights.

        Args:
            where: the key that names `path`, for messages.

        Returns:
            What else the file holds; {} when nothing is resumed, so that a run starts at iteration 0.

        Raises:
            UserError: as `load`; and when the last checkpoint is of another model than this.
        """
        if not (resume and self.has_checkpoint()):
            if resume:
                logger.info("nothing to resume in %s", self.save_dir or "the (empty) output folder")
            self.load(path, checkpointables=[], where=where)
            return {}
        last = f"--resume ({Path(self.save_dir) / _LAST})"
        return self.load(self.get_checkpoint_file(), complete=True, where=last)

    def _from_detectron2(self, rest: dict[str, Any], names_in_file: list[str]) -> dict[str, Any]:
        """Detectron2's trainer keeps optimizer and scheduler deeper in the file; bring them to the top."""
        trainer = rest["trainer"]
        inner = trainer.get("_trainer", trainer)
        state = {
            "optimizer": inner.get("optimizer"),
            "grad_scaler": inner.get("grad_scaler"),
            "scheduler": trainer.get("hooks", {}).get("LRScheduler"),
            "iteration": trainer.get("iteration"),
        }
        optimizer = self.checkpointables.get("optimizer")
        if state["optimizer"] and optimizer is not None:
            state["optimizer"] = _reordered(state["optimizer"], optimizer, self.model, names_in_file)
        others = {k: v for k, v in rest.items() if k != "trainer"}
        return {k: v for k, v in state.items() if v is not None} | others

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


def _for_detectron2(states: dict[str, Any], iteration: int) -> dict[str, Any]:
    """`states` with those that Detectron2's trainer knows in the places where it looks for them."""
    inner = {"iteration": iteration} | {k: states[k] for k in ("optimizer", "grad_scaler") if k in states}
    trainer: dict[str, Any] = {"iteration": iteration, "_trainer": inner}
    if "scheduler" in states:
        trainer["hooks"] = {"LRScheduler": states["scheduler"]}
    others = {k: v for k, v in states.items() if k not in ("optimizer", "grad_scaler", "scheduler")}
    return {"trainer": trainer} | others


def _reordered(
    state: dict[str, Any], optimizer: torch.optim.Optimizer, model: nn.Module, names_in_file: list[str]
) -> dict[str, Any]:
    """`state` with each group's entries in this optimizer's order instead of the order of the file's names.

    An optimizer's state goes by position, and two programs may list the same parameters in another order.
    """
    rank = {name: i for i, name in enumerate(names_in_file)}
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = []
    for mine, theirs in zip(optimizer.param_groups, state["param_groups"]):
        my_names = [names[parameter] for parameter in mine["params"]]
        as_in_file = sorted(my_names, key=lambda name: rank.get(name, len(rank)))
        entry = dict(zip(as_in_file, theirs["params"]))
        groups.append(theirs | {"params": [entry[name] for name in my_names if name in entry]})
    groups += state["param_groups"][len(groups) :]
    return state | {"param_groups": groups}


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
