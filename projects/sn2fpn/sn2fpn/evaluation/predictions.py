"""A picture of a model's predictions beside the ground truth, for some images of a data set."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import DatasetMapper, build_mapper, class_names, evenly_spread, get_dataset_dicts, read_image
from ..data.targets import annotations_to_instances, with_checked_mask
from ..data.transforms import TransformList
from ..errors import UserError, counted
from ..structures import Instances
from ..visualization import Sample, predictions_beside_ground_truth, shown_detections
from .evaluator import evaluation_mode

__all__ = ["draw_predictions", "draw_set", "objects_of"]

logger = logging.getLogger(__name__)


def draw_predictions(
    cfg: Any, model: nn.Module, path: str | Path, images: int = 8, score_threshold: float = 0.5
) -> Path:
    """Draw predictions for the first data set of `DATASETS.TEST`; see `draw_set` for the arguments."""
    mapper, limit = build_mapper(cfg, is_train=False), cfg.TEST.DETECTIONS_PER_IMAGE
    return draw_set(cfg.DATASETS.TEST[0], mapper, model, path, images, score_threshold, limit)


def draw_set(
    name: str,
    mapper: DatasetMapper,
    model: nn.Module,
    path: str | Path,
    images: int = 8,
    score_threshold: float = 0.5,
    limit: int = -1,
) -> Path:
    """Draw predictions beside the ground truth for images that are spread evenly over a data set.

    Images with objects are preferred. If the model predicts masks, the masks are drawn too. The model keeps its mode.
    If no prediction for an image reaches the threshold, the best few are drawn in gray.

    Args:
        name: name of the data set.
        mapper: turns its images into model inputs.
        model: a detector that returns one dict with `instances` per image.
        path: the PNG file to write or replace.
        images: maximal number of images.
        score_threshold: predictions with lower scores are not drawn.
        limit: largest number of detections per image, for a warning about images with more objects; a negative number
            means no limit.

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
            truth = objects_of(record, image.shape[:2], mask_format)
            samples.append(Sample(image, truth, found, Path(record["file_name"]).name))
    _report(samples, path, score_threshold, limit)
    return predictions_beside_ground_truth(samples, path, class_names(name), score_threshold)


def objects_of(record: dict[str, Any], size: tuple[int, int], mask_format: str | None) -> Instances:
    """Return the objects of an image to draw, whose masks may have any form that the training takes.

    Args:
        record: the data set dict of the image.
        size: its height and width in pixels.
        mask_format: "bitmask" for masks beside the boxes, or None.

    Raises:
        UserError: a mask is malformed.
    """
    objects = [a for a in record.get("annotations", []) if not a.get("iscrowd", 0)]
    try:
        objects = [with_checked_mask(a, size) for a in objects] if mask_format else objects
        return annotations_to_instances(objects, TransformList(), size, mask_format)
    except ValueError as e:
        raise UserError(f"{record['file_name']}: {e}") from None


def _report(samples: list[Sample], path: str | Path, score_threshold: float, limit: int) -> None:
    """Say what a reader of the picture could misunderstand."""
    reached = [shown_detections(s.prediction, score_threshold).reach for s in samples]
    found = sum(len(s.prediction) for s in samples)
    if samples and not found:
        images = counted(len(samples), "image")
        logger.warning("%s: the model detects nothing in %s, so no boxes are drawn there", path, images)
    elif samples and not any(reached):
        logger.warning(
            "%s: 0 of %d detections in %d images reach %g, so the best few of each image are drawn in gray",
            path,
            found,
            len(samples),
            score_threshold,
        )
    for sample in samples:
        if 0 <= limit < len(sample.truth):
            logger.warning(
                "%s has %s, but TEST.DETECTIONS_PER_IMAGE (max_detections of the RoI heads) allows only %s per image, "
                "so not every object can be found",
                sample.title,
                counted(len(sample.truth), "object"),
                counted(limit, "detection"),
            )
