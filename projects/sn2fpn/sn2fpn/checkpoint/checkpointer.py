"""Save and restore a training run, and load weights into a model."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..distributed import call_on_main, is_main_process
from ..errors import ArgumentError, UserError, argument_names
from .last import LAST, check_sums, good_checkpoint, read_last, write_last
from .matching import MatchReport, load_weights
from .preprocessing import preprocessing_warning
from .reading import find_file, load_file
from .trainer_state import check_optimizer, from_detectron2, parameter_names, reordered, to_detectron2
from .writing import atomic_save

__all__ = ["Checkpointer"]

logger = logging.getLogger(__name__)
_PERIODIC = re.compile(r"model_\d+\.pth")
_OTHER_MODEL = "Resume with the run's own configuration, or start a new run with this file as its initial weights"
_LIST = "periodic_checkpoints"


class Checkpointer:
    """Saves and restores a model and everything else that a run consists of, in Detectron2's layout.

    A file is `{"model": state dict, "trainer": {...}, <checkpointable>: its state dict, ..., "iteration": n, ...}`. It
    holds tensors and plain types only, so that it loads in torch's safe mode. `trainer` holds the states of the
    optimizer, the learning-rate schedule and the gradient scaler, see `trainer_state`. torch's format stores a CRC-32
    sum of each tensor, which is checked when a file is loaded. The file `last_checkpoint` in the same folder holds the
    name of the newest file. Only the main process writes.

    Args:
        model: the model whose parameters and buffers are saved and loaded. DistributedDataParallel is unwrapped.
        save_dir: the folder of the files; with "" nothing is saved.
        checkpointables: objects with `state_dict()` and `load_state_dict()`, by their name in the file. A state that is
            None is left out.

    Attributes:
        report: what matched in the last `load`, or None before the first.

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

    _with_iteration = True  # whether a run can only be continued from a file with an iteration

    def __init__(self, model: nn.Module, save_dir: str | Path = "", **checkpointables: Any) -> None:
        self.model = model.module if isinstance(model, DistributedDataParallel | DataParallel) else model
        self.save_dir = str(save_dir)
        self.checkpointables = checkpointables
        self.report: MatchReport | None = None
        self._periodic: list[str] = []  # the periodic files of this run that were not deleted, the newest last

    def save(self, name: str, *, tag_last: bool = True, **extra: Any) -> None:
        """Write `{save_dir}/{name}.pth` completely or not at all.

        Args:
            name: the name of the file without `.pth`.
            tag_last: whether `resume_or_load` continues from this file. The best checkpoint so far is not tagged.
            extra: further plain values and tensors to save, such as `iteration`.

        Raises:
            UserError: the file cannot be written, for instance because the disk is full. Older files are intact.
        """
        if not self.save_dir or not is_main_process():
            return
        states = {k: s for k, obj in self.checkpointables.items() if (s := obj.state_dict()) is not None}
        if "optimizer" in states and "iteration" in extra:
            states["parameter_names"] = parameter_names(self.checkpointables["optimizer"], self.model)
            states = to_detectron2(states, extra["iteration"])
        data = {"model": dict(self.model.state_dict())} | states
        file = Path(self.save_dir) / f"{name}.pth"
        if _PERIODIC.fullmatch(file.name):
            self._periodic = [other for other in self._periodic if other != file.name] + [file.name]
        if self._periodic:
            extra[_LIST] = self._periodic
        logger.info("Saving %s", file)
        atomic_save(data | extra, file)
        if tag_last:
            write_last(self.save_dir, file.name)

    def delete_old(self, keep: int | None) -> None:
        """Delete all but the newest `keep` periodic checkpoints (`model_0004999.pth`) of this run; 0 and None keep all.

        Checkpoints hold the list of those that were written before them, so that the files of a resumed run are known.
        Other files are never deleted, whatever their names are, and neither is the one that `last_checkpoint` names.
        """
        if not keep or keep < 0 or not self.save_dir or not is_main_process():
            return
        last = read_last(self.save_dir)
        old = [name for name in self._periodic[:-keep] if name != last]
        self._periodic = [name for name in self._periodic if name not in old]
        for name in old:
            (Path(self.save_dir) / name).unlink(missing_ok=True)

    def load(
        self, path: str | Path, checkpointables: list[str] | None = None, *, complete: bool = False, advice: str = ""
    ) -> dict[str, Any]:
        """Load a file of any known format into the model and log what matched.

        Args:
            path: a file or URL, see `load_file`; with "" nothing is loaded.
            checkpointables: names of the checkpointables to restore too. None restores all that the file has, and []
                loads the model only.
            complete: whether every tensor of the model must come from the file.
            advice: what the message says to do if the file is not complete.

        Returns:
            Everything else that the file holds, such as `iteration`.

        Raises:
            ArgumentError: see `load_file` and `load_weights`; or tensors are missing although `complete` is set.
            UserError: a state does not fit its checkpointable.
        """
        if not path:
            logger.info("No weights file is given, so the model keeps its initial weights")
            return {}
        file = find_file(path)
        check_sums(file)
        checkpoint = load_file(file)
        with argument_names({"checkpoint": "path"}):
            self.report = load_weights(self.model, checkpoint)
        if complete and not self.report.complete:
            raise ArgumentError(
                "path",
                f"{checkpoint.path} belongs to another model than the configuration describes: {self.report}\n{advice}",
            )
        log = logger.info if self.report.complete else logger.warning
        log("Weights from %s", self.report)
        if warning := preprocessing_warning(self.model, checkpoint):
            logger.warning("%s", warning)
        rest = dict(checkpoint.rest)
        wanted = list(self.checkpointables) if checkpointables is None else checkpointables
        if isinstance(rest.get("trainer"), dict) and "optimizer" not in rest:
            rest = from_detectron2(rest)
            theirs = rest.pop("parameter_names", None)
            if "optimizer" in wanted and rest.get("optimizer"):
                mine = parameter_names(self.checkpointables["optimizer"], self.model)
                with _fitting("optimizer", checkpoint.path):
                    rest["optimizer"] = reordered(rest["optimizer"], mine, theirs, list(checkpoint.model))
        for key in wanted:
            if key in rest:
                _restore(key, self.checkpointables[key], rest.pop(key), checkpoint.path)
        return rest

    def resume_or_load(self, path: str | Path, resume: bool = True) -> dict[str, Any]:
        """Continue from the last good checkpoint in `save_dir`, see `good_checkpoint`, or load weights.

        Args:
            path: the weights to load when nothing is resumed.
            resume: whether to continue from the last checkpoint if there is one.

        Returns:
            Everything else that the last checkpoint holds. It is empty when nothing is resumed, so that a run starts
            at iteration 0.

        Raises:
            ArgumentError: see `load`; or the last checkpoint belongs to another model.
            UserError: there are checkpoints, but all of them are damaged.
        """
        last = ""
        if resume and self.save_dir:
            last = call_on_main(lambda: good_checkpoint(self.save_dir, with_iteration=self._with_iteration))
        if not last:
            if resume:
                logger.info("There is nothing to resume in %s", self.save_dir or "the (empty) output folder")
            self.load(path, checkpointables=[])
            return {}
        with argument_names({"path": f"--resume ({Path(self.save_dir) / LAST})"}):
            rest = self.load(last, complete=True, advice=_OTHER_MODEL)
        self._periodic = _periodic_names(rest.pop(_LIST, None))
        return rest

    def has_checkpoint(self) -> bool:
        """Return whether `save_dir` names a last checkpoint."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """Return the path of the last checkpoint, or "" if there is none."""
        name = read_last(self.save_dir) if self.save_dir else ""
        return str(Path(self.save_dir) / name) if name else ""


def _periodic_names(found: Any) -> list[str]:
    """Return the names of periodic checkpoints in a list of a file, which may come from anybody and hold anything."""
    names = found if isinstance(found, list) else []
    return [n for n in names if isinstance(n, str) and _PERIODIC.fullmatch(n)]


def _restore(key: str, obj: Any, state: Any, path: Path) -> None:
    logger.info("Restoring the state of the %s", key)
    with _fitting(key, path):
        if isinstance(obj, torch.optim.Optimizer):
            check_optimizer(obj, state)
        obj.load_state_dict(state)


@contextmanager
def _fitting(key: str, path: Path) -> Iterator[None]:
    """Turn the error of a state that does not fit into one message."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: the state of the {key} does not fit this configuration: {error}") from error
