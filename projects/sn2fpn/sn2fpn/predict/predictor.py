"""Run a trained model on single pictures."""

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
from ..errors import ArgumentError, argument_names
from ..evaluation.evaluator import evaluation_mode
from ..modeling import build_model

__all__ = ["Predictor", "load_whole"]

logger = logging.getLogger(__name__)


class Predictor:
    """Calls a trained detector on one picture at a time, like Detectron2's `DefaultPredictor`.

    A picture is resized as `INPUT.MIN_SIZE_TEST` and `INPUT.MAX_SIZE_TEST` say and brought into the model's channel
    order. The detections are in the pixels of the given picture and equal those of an evaluation.

    Args:
        model: a configuration, from which the detector is built on `MODEL.DEVICE` with the weights of
            `MODEL.WEIGHTS`; or a detector that is ready. The detector keeps its mode (training or evaluation).
        resize: with a detector, how pictures are resized; None keeps their size. A configuration has its own resizing.

    Raises:
        UserError: see `build_model` and `load_trained`; or the file lacks weights of the model.

    Example:
        >>> import numpy as np
        >>> from sn2fpn.config import get_cfg
        >>> from sn2fpn.predict import Predictor
        >>> cfg = get_cfg()
        >>> cfg.merge_from_file("configs/quick/faster_rcnn_R18_sni_shapes.yaml")
        >>> predictor = Predictor(cfg)  # MODEL.WEIGHTS is empty, so the weights are random.
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
            with argument_names({"path": "MODEL.WEIGHTS", "average": "SOLVER.EMA.ENABLED"}):
                load_whole(self.model, cfg.MODEL.WEIGHTS, cfg.SOLVER.EMA.ENABLED)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Detect objects in one picture.

        Args:
            image: the picture in BGR order (array [H, W, 3]), as OpenCV reads it, of uint8 or of floats in the same
                range.

        Returns:
            A dict whose "instances" have the size (H, W) and the fields `pred_boxes`, `scores`, `pred_classes` and,
            if the model has a mask head, `pred_masks`, best first.

        Raises:
            ValueError: the array has another shape or type, or no pixels.
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype.kind not in "uf":
            raise ValueError(f"expected a BGR array (height, width, 3) of uint8, found {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        if self.model.input_format == "RGB":
            image = image[:, :, ::-1]
        if self.resize is not None:
            transforms = plan_transforms([self.resize], (height, width), np.random.default_rng(0))
            image = transforms.apply_image(image)
        pixels = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        with evaluation_mode(self.model):
            return self.model([{"image": pixels, "height": height, "width": width}])[0]


def load_whole(model: nn.Module, path: str, average: bool) -> None:
    """Load the weights of a checkpoint as `load_trained` does, and require them for the whole model.

    Raises:
        ArgumentError: see `load_trained`; or the file lacks weights of the model.
    """
    report = load_trained(model, path, average)
    if report is None:
        logger.warning("No weights are given, so the model has random weights and its detections mean nothing")
    elif not report.complete:
        lacking = report.missing | {m.name for m in report.mismatched}
        shown = compact_names(lacking, lacking | report.loaded)
        raise ArgumentError(
            "path",
            f"{report.path} lacks {len(lacking)} of this model's tensors or has them in other shapes "
            f"({', '.join(shown[:5])}{', ...' if len(shown) > 5 else ''}); predicting needs a model that was trained "
            "with this configuration",
        )
