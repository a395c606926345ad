"""The scores of an exported file on a data set, from the evaluation that models have."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import CfgNode
from ..data import DatasetCatalog
from ..data.selection import require_annotations
from ..engine.recipe import CfgRecipe
from ..evaluation import inference_on_dataset
from ..modeling.roi_heads.postprocess import rescale_detections
from ..structures import Boxes, Instances

__all__ = ["as_model", "recipe_on", "score"]

Runnable = Callable[[Tensor], Sequence[Tensor]]


def as_model(run: Runnable, dtype: torch.dtype) -> Callable[[Sequence[dict[str, Any]]], list[dict[str, Instances]]]:
    """Return an exported file as a model that evaluation can call.

    Args:
        run: maps an image (Tensor[C, H, W]) to the outputs of the file.
        dtype: the dtype of the file's input.
    """

    def model(batch: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        return [{"instances": _detect(run, x, dtype)} for x in batch]

    return model


def _detect(run: Runnable, x: dict[str, Any], dtype: torch.dtype) -> Instances:
    """Return the detections of one input in the pixels of the original image."""
    boxes, scores, classes, *masks = run(x["image"].to(dtype))
    fields = {"pred_masks": masks[0][:, None]} if masks else {}
    size = (x["image"].shape[1], x["image"].shape[2])
    found = Instances(size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes, **fields)
    return rescale_detections(found, x.get("height", size[0]), x.get("width", size[1]))


def recipe_on(cfg: CfgNode, name: str, flag: str) -> CfgRecipe:
    """Return the recipe that evaluates the model of a configuration on a data set.

    Args:
        cfg: the configuration.
        name: the data set; a slice such as "coco_2017_val[:100]" is allowed.
        flag: the flag that names the data set, for messages.

    Raises:
        UserError: the data set is unknown or cannot be read, has no annotations, or has other classes than the model.
    """
    require_annotations(DatasetCatalog.read(name, flag), f"{flag} {name}")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = (name,)
    recipe = CfgRecipe(cfg)
    recipe.check_data(eval_only=True)
    return recipe


def score(model: Any, recipe: CfgRecipe) -> dict[str, float]:
    """Return the AP of a detector, or of the result of `as_model`, by task, such as {"bbox": 38.1}."""
    (test_set,) = recipe.test_sets()
    with tempfile.TemporaryDirectory() as folder:
        results = inference_on_dataset(model, test_set.loader(), test_set.evaluator(Path(folder)))
    return {task: scores["AP"] for task, scores in results.items()}
