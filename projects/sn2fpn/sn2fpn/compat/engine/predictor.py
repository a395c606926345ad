"""Detectron2's `DefaultPredictor`, which Detectron2 has in `engine.defaults`, as this package does, too."""

from __future__ import annotations

import numpy as np

from ...config import CfgNode
from ...data import MetadataCatalog
from ...predict import Predictor
from ..data.transforms import ResizeShortestEdge

__all__ = ["DefaultPredictor"]


class DefaultPredictor(Predictor):
    """The detector of a configuration, which is called on one picture at a time.

    It computes in single precision and without test-time augmentation, as Detectron2's class does whatever the
    configuration says.

    Args:
        cfg: the configuration; `MODEL.WEIGHTS` names the weights, which must be those of the whole model.

    Attributes:
        cfg: a copy of the configuration.
        model: the detector, in evaluation mode.
        metadata: the metadata of the first data set of `DATASETS.TEST`, if there is one.
        aug: the augmentation that resizes pictures, in whose place a script can put another one.

    Example:
        >>> import numpy as np
        >>> from sn2fpn.compat import model_zoo
        >>> from sn2fpn.compat.engine import DefaultPredictor
        >>> cfg = model_zoo.get_config("quick/faster_rcnn_R18_fpn_shapes.yaml")
        >>> predictor = DefaultPredictor(cfg)  # MODEL.WEIGHTS is empty, so the weights are random.
        >>> predictor(np.zeros((48, 64, 3), np.uint8))["instances"].image_size
        (48, 64)
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg.clone()
        super().__init__(self.cfg)
        self.model.eval()
        self._precision = None
        self.augmented = None
        self.input_format = cfg.INPUT.FORMAT
        self.aug = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST, "choice")
        if cfg.DATASETS.TEST:
            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return self.aug.get_transform(image).apply_image(image)
