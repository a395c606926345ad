"""The picture at the end of a run: what a model finds on its test images, beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import DatasetMapper, build_mapper, class_names, evenly_spread, get_dataset_dicts, read_image
from ..data.augmentation import TransformList
from ..data.mapper import annotations_to_instances
from ..evaluation.evaluator import evaluation_mode
from .grid import Sample, predictions_beside_ground_truth

__all__ = ["draw_predictions", "draw_set"]


def draw_predictions(
    cfg: Any, model: nn.Module, path: str | Path, images: int = 8, score_threshold: float = 0.5
) -> Path:
    """As `draw_set`, for the first set of `DATASETS.TEST`."""
    return draw_set(cfg.DATASETS.TEST[0], build_mapper(cfg, is_train=False), model, path, images, score_threshold)


def draw_set(
    name: str, mapper: DatasetMapper, model: nn.Module, path: str | Path, images: int = 8, score_threshold: float = 0.5
) -> Path:
    """Draw predictions beside ground truth for images spread evenly over a set.

    Images with objects are preferred. The model keeps its mode. Of a model with masks, masks are drawn, too.

    Args:
        name: of the set.
        mapper: makes model inputs of its images.
        path: the PNG; replaced in one step.
        images: how many, at most.
        score_threshold: predictions with lower scores are not drawn.

    Returns:
        `path`.
    """
    records = get_dataset_dicts(name, where="DATASETS.TEST")
    records = [record for record in records if record["annotations"]] or records
    samples = []
    with evaluation_mode(model), torch.no_grad():
        for record in evenly_spread(records, images):
            image = read_image(record["file_name"], "RGB")
            (output,) = model([mapper(record, np.random.default_rng(0))])
            found = output["instances"].to("cpu")
            truth = annotations_to_instances(
                record["annotations"],
                TransformList([]),
                image.shape[:2],
                "bitmask" if found.has("pred_masks") else None,
            )
            samples.append(Sample(image, truth, found, Path(record["file_name"]).name))
    return predictions_beside_ground_truth(samples, path, class_names(name), score_threshold)
