"""Detectron2's `checkpoint`: the reading and writing of a model and its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoint import Checkpointer
from .absent import absent

__all__ = ["Checkpointer", "DetectionCheckpointer"]

__getattr__ = absent(__name__, __all__)


class DetectionCheckpointer(Checkpointer):
    """A `Checkpointer` with Detectron2's arguments. It reads all files that `MODEL.WEIGHTS` can name.

    Args:
        model: the model whose parameters and buffers are saved and loaded.
        save_dir: the folder of the files; with "" nothing is saved.
        save_to_disk: False saves nothing. None lets the main process save.
        checkpointables: objects with `state_dict()` and `load_state_dict()`, by their name in the file.
    """

    _with_iteration = False  # a script may save without one

    def __init__(
        self, model: nn.Module, save_dir: str | Path = "", *, save_to_disk: bool | None = None, **checkpointables: Any
    ) -> None:
        super().__init__(model, "" if save_to_disk is False else save_dir, **checkpointables)

    def load(self, path: str | Path, checkpointables: list[str] | None = None, **options: Any) -> dict[str, Any]:
        """Load a file; see `Checkpointer.load`. Names are matched by this package's rules in any case."""
        return super().load(str(path).removesuffix("?matching_heuristics=True"), checkpointables, **options)

    def add_checkpointable(self, key: str, checkpointable: Any) -> None:
        """Add an object to save and load under the name `key`."""
        self.checkpointables[key] = checkpointable

    def resume_or_load(self, path: str | Path, *, resume: bool = True) -> dict[str, Any]:
        """Continue from the last checkpoint in `save_dir`, or load weights; see `Checkpointer.resume_or_load`."""
        return super().resume_or_load(path, resume)

    def get_all_checkpoint_files(self) -> list[str]:
        """Return the paths of all checkpoints in `save_dir`."""
        return sorted(map(str, Path(self.save_dir).glob("*.pth"))) if self.save_dir else []
