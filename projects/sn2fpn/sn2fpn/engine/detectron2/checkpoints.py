"""The checkpoints of Detectron2's trainer: written completely or not at all, and resumed from the newest good one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import MetadataCatalog

from ... import distributed as comm
from ...atomic import atomic_write
from ...checkpoint import load_file
from ...checkpoint.last import good_checkpoint, write_last
from ...errors import ArgumentError
from ..options import YAML_KEYS
from ..record import ClassNames, Configuration
from ..writers import cut_rows

__all__ = ["Checkpointer", "choose_last", "records"]

_KEPT_ON_RESUME = "the optimizer's settings, also the learning rate,"


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with atomic files.

    Args:
        model: the model.
        save_dir: the folder of the files.
        complete: whether every tensor of the model must come from a file that is loaded.
        checkpointables: objects with `state_dict()` and `load_state_dict()`, by their name in the file.
    """

    def __init__(self, model: torch.nn.Module, save_dir: str, complete: bool = False, **checkpointables: Any) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._complete = complete

    def save(self, name: str, remember: bool = True, **kwargs: Any) -> None:
        """Write `{save_dir}/{name}.pth`; a UserError says that it cannot be written, and older files are intact.

        Args:
            name: the file's name without its ending.
            remember: whether a resumed run continues from this file.
            kwargs: more entries of the file.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: state for key, o in self.checkpointables.items() if (state := o.state_dict()) is not None}
        file = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving %s", file)
        with atomic_write(file, "wb") as stream:
            torch.save({"model": self.model.state_dict()} | states | kwargs, stream)
        if remember:
            write_last(self.save_dir, file.name)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Return the content of a file; that of formats which Detectron2 does not know in Detectron2's names."""
        checkpoint = load_file(filename)
        if checkpoint.format in ("detectron2", "caffe2") and Path(filename).suffix in (".pth", ".pkl"):
            return super()._load_file(filename)
        return {"model": checkpoint.model, "matching_heuristics": True}

    def _load_model(self, checkpoint: Any) -> Any:
        found = super()._load_model(checkpoint)
        lacking = [name for name in found.missing_keys if not name.endswith(".num_batches_tracked")]
        lacking += [name for name, *_ in found.incorrect_shapes]
        if self._complete and lacking:
            raise ArgumentError(
                "path",
                "the checkpoint belongs to another model than the configuration describes: it lacks "
                f"{len(lacking)} of the model's tensors or has them in other shapes ({', '.join(lacking[:3])}, ...). "
                "Name a checkpoint of this model, or add --allow-partial to go on with random values for the missing "
                "weights",
            )
        return found


def records(cfg: Any) -> dict[str, Any]:
    """Return what the checkpoints of a run hold besides weights and states."""

    def class_names() -> list[str]:
        names = cfg.DATASETS.TRAIN
        return list(MetadataCatalog.get(names[0]).get("thing_classes", [])) if names else []

    configuration = Configuration(cfg.dump(), YAML_KEYS, _KEPT_ON_RESUME)
    return {"config": configuration, "class_names": ClassNames(class_names)}


def choose_last(output_dir: str, train: bool) -> str:
    """Let `last_checkpoint` name a good checkpoint; before a training, remove later rows from metrics.json.

    Without a checkpoint, all rows are of an earlier run, whose file is kept as `metrics.json.1`.

    Returns:
        The path of the checkpoint, "" if there is none.
    """

    def choose() -> str:
        last = good_checkpoint(output_dir)
        metrics = Path(output_dir) / "metrics.json"
        if train and metrics.is_file():
            cut_rows(metrics, load_file(last).rest["iteration"] + 1 if last else 0)
        return last

    return comm.call_on_main(choose)
