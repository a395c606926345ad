"""A picture of a model's predictions beside the ground truth, for some images of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import DatasetMapper, build_mapper, class_names, evenly_spread, get_dataset_dicts, read_image
from ..data.mapper import annotations_to_instances
from ..data.transforms import TransformList
from ..visualization import Sample, predictions_beside_ground_truth
from .evaluator import evaluation_mode

__all__ = ["draw_predictions", "draw_set"]


def draw_predictions(
    cfg: Any, model: nn.Module, path: str | Path, images: int = 8, score_threshold: float = 0.5
) -> Path:
    """Draw predictions for the first data set of `DATASETS.TEST`; see `draw_set` for the arguments."""
    return draw_set(cfg.DATASETS.TEST[0], build_mapper(cfg, is_train=False), model, path, images, score_threshold)


def draw_set(
    name: str, mapper: DatasetMapper, model: nn.Module, path: str | Path, images: int = 8, score_threshold: float = 0.5
) -> Path:
    """Draw predictions beside the ground truth for images that are spread evenly over a data set.

    Images with objects are preferred. If the model predicts masks, the masks are drawn too. The model keeps its mode.

    Args:
        name: name of the data set.
        mapper: turns its images into model inputs.
        model: a detector that returns one dict with `instances` per image.
        path: the PNG file to write or replace.
        images: maximal number of images.
        score_threshold: predictions with lower scores are not drawn.

    Returns:
        `path`.
    """
    records = get_dataset_dicts(name)
    records = [record for record in records if record.get("annotations")] or records
    samples = []
    with evaluation_mode(model), torch.no_grad():
        for record in evenly_spread(records, images):
            image = read_image(record["file_name"], "RGB")
            (output,) = model([mapper(record, np.random.default_rng(0))])
            found = output["instances"].to("cpu")
            mask_format = "bitmask" if found.has("pred_masks") else None
            objects = record.get("annotations", [])
            truth = annotations_to_instances(objects, TransformList(), image.shape[:2], mask_format)
            samples.append(Sample(image, truth, found, Path(record["file_name"]).name))
    return predictions_beside_ground_truth(samples, path, class_names(name), score_threshold)
