"""The picture at the end of a run: what a model finds on its test images, beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import build_mapper, class_names, get_dataset_dicts, read_image
from ..data.augmentation import TransformList
from ..data.mapper import annotations_to_instances
from ..evaluation.evaluator import evaluation_mode
from .grid import Sample, predictions_beside_ground_truth

__all__ = ["draw_predictions"]


def draw_predictions(
    cfg: Any, model: nn.Module, path: str | Path, images: int = 8, score_threshold: float = 0.5
) -> Path:
    """Draw predictions beside ground truth for images spread evenly over the first set of `DATASETS.TEST`.

    Images with objects are preferred. The model keeps its mode. With `MODEL.MASK_ON` masks are drawn, too.

    Args:
        path: the PNG; replaced in one step.
        images: how many, at most.
        score_threshold: predictions with lower scores are not drawn.

    Returns:
        `path`.
    """
    name = cfg.DATASETS.TEST[0]
    records = get_dataset_dicts(name, where="DATASETS.TEST")
    records = [record for record in records if record["annotations"]] or records
    chosen = np.unique(np.linspace(0, len(records) - 1, min(images, len(records))).round().astype(int))
    mapper = build_mapper(cfg, is_train=False)
    samples = []
    with evaluation_mode(model), torch.no_grad():
        for record in (records[i] for i in chosen):
            image = read_image(record["file_name"], "RGB")
            truth = annotations_to_instances(record["annotations"], TransformList([]), image.shape[:2],
                                             "bitmask" if cfg.MODEL.MASK_ON else None)
            (output,) = model([mapper(record, np.random.default_rng(0))])
            samples.append(Sample(image, truth, output["instances"].to("cpu"), Path(record["file_name"]).name))
    return predictions_beside_ground_truth(samples, path, class_names(name), score_threshold)
