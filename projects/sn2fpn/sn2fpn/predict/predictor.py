"""A trained model on single pictures."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import nn

from ..checkpoint import load_trained
from ..checkpoint.matching import compact_names
from ..config import CfgNode
from ..data.augmentation import ResizeShortestEdge, build_augmentations, plan_transforms
from ..errors import UserError
from ..evaluation.evaluator import evaluation_mode
from ..modeling import build_model

__all__ = ["Predictor", "load_whole"]

logger = logging.getLogger(__name__)


class Predictor:
    """Calls a trained detector on one picture at a time, as Detectron2's `DefaultPredictor`.

    A picture is resized as `INPUT.MIN_SIZE_TEST` and `INPUT.MAX_SIZE_TEST` say and brought into the model's channel
    order; the detections are in the picture's own pixels, and the same numbers as in an evaluation of the picture.

    Args:
        model: a configuration, whose detector is built on `MODEL.DEVICE` with `MODEL.WEIGHTS`; or a detector that
            is ready. It keeps its mode (training or evaluation).
        resize: with a detector, the resizing; None: pictures keep their size. A configuration has its own.

    Raises:
        UserError: see `build_model` and `load_trained`; or the file lacks weights of the model.

    Example:
        >>> import numpy as np
        >>> from sn2fpn.config import get_cfg
        >>> from sn2fpn.predict import Predictor
        >>> cfg = get_cfg()
        >>> cfg.merge_from_file("configs/quick/faster_rcnn_R18_sni_shapes.yaml")
        >>> predictor = Predictor(cfg)  # MODEL.WEIGHTS is empty: a model that knows nothing
        >>> predictor(np.zeros((48, 64, 3), np.uint8))["instances"].image_size
        (48, 64)
    """

    def __init__(self, model: CfgNode | nn.Module, resize: ResizeShortestEdge | None = None) -> None:
        if isinstance(model, nn.Module):
            self.model, self.resize = model, resize
        else:
            cfg = model
            self.model = build_model(cfg)
            (self.resize,) = build_augmentations(cfg, is_train=False)
            load_whole(self.model, cfg.MODEL.WEIGHTS, cfg.SOLVER.EMA.ENABLED, "MODEL.WEIGHTS", "SOLVER.EMA.ENABLED")

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Detections in one picture.

        Args:
            image: (H, W, 3), BGR as OpenCV reads it; uint8, or floats of the same range.

        Returns:
            {"instances": Instances of size (H, W): `pred_boxes`, `scores`, `pred_classes`, best first; `pred_masks`
            if the model has a mask head}.

        Raises:
            ValueError: an array of another shape or type, or without pixels.
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype.kind not in "uf":
            raise ValueError(f"a picture is a BGR array (height, width, 3) of uint8, found {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        if self.model.input_format == "RGB":
            image = image[:, :, ::-1]
        if self.resize is not None:
            transforms = plan_transforms([self.resize], (height, width), np.random.default_rng(0))
            image = transforms.apply_image(image)
        pixels = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        with evaluation_mode(self.model):
            return self.model([{"image": pixels, "height": height, "width": width}])[0]


def load_whole(model: nn.Module, weights: str, average: bool, where: str, average_key: str) -> None:
    """As `load_trained`, but weights that are not of the whole model are a UserError."""
    report = load_trained(model, weights, average, where, average_key)
    if report is None:
        logger.warning("%s is empty: this model has random weights and its detections mean nothing", where)
    elif not report.complete:
        lacking = report.missing | {m.name for m in report.mismatched}
        shown = compact_names(lacking, lacking | report.loaded)
        raise UserError(
            f"{where}: {report.path} lacks {len(lacking)} of this model's tensors or has them in another "
            f"shape ({', '.join(shown[:5])}{', …' if len(shown) > 5 else ''}); predicting needs a model "
            "that was trained with this configuration"
        )
