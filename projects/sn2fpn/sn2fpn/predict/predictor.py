"""Run a trained model on single pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from ..checkpoint import load_trained
from ..checkpoint.compact import compact_names
from ..config import CfgNode
from ..config.ranges import check_ranges
from ..data import known_categories, register_custom
from ..data.augmentation import ResizeShortestEdge, build_augmentations, plan_transforms
from ..data.categories import Category
from ..engine.options import YAML_KEYS, read_options
from ..engine.record import check_same_model
from ..errors import ArgumentError, argument_names
from ..evaluation.evaluator import evaluation_mode
from ..modeling import MultiViewDetector, build_model, build_multi_view
from ..modeling.roi_heads.mask_pasting import paste_run_lengths
from ..modeling.roi_heads.postprocess import rescale_boxes
from ..precision import autocast
from ..structures import Boxes, Instances
from .pixels import as_pixels

__all__ = ["LONGEST_VIEW", "Predictor", "load_whole"]

LONGEST_VIEW = 4000
"""The limit of the long edge of a picture that test-time augmentation resizes, where no configuration says it."""

logger = logging.getLogger(__name__)


class Predictor:
    """Calls a trained detector on one picture at a time, like Detectron2's `DefaultPredictor`.

    A picture is resized as `INPUT.MIN_SIZE_TEST` and `INPUT.MAX_SIZE_TEST` say and brought into the model's channel
    order. The detections are in the pixels of the given picture and equal those of an evaluation, which has test-time
    augmentation if `TEST.AUG.ENABLED` is set.

    Args:
        model: a configuration, from which the detector is built on `MODEL.DEVICE` with the weights of
            `MODEL.WEIGHTS`; or a detector that is ready. The detector keeps its mode (training or evaluation), which
            must be evaluation for calls from several threads.
        resize: with a detector, how pictures are resized; None keeps their size. A configuration has its own resizing.
        categories: with a detector, its classes by contiguous id, as dicts with "id" and "name". By default they are
            called "class 0", "class 1" and so on.
        precision: with a detector, the dtype of mixed precision, such as `torch.bfloat16`. A configuration has its own,
            `SOLVER.AMP`.
        augmented: with a detector, the same one with test-time augmentation. A configuration has its own, `TEST.AUG`.

    Attributes:
        model: the detector.
        resize: how pictures are resized, or None.
        augmented: the detector with test-time augmentation, which is used if it is not None.
        categories: the classes by contiguous id, see `known_categories`. Those of a configuration have the names that
            the checkpoint carries, or else those of its data sets.
        trained_names: the class names by contiguous id that the checkpoint carries, or [].
        longest_view: the limit of the long edge of pictures that test-time augmentation resizes, `TEST.AUG.MAX_SIZE`.

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
        >>> predictor.class_names[:2]
        ['circle', 'square']
    """

    def __init__(
        self,
        model: CfgNode | nn.Module,
        resize: ResizeShortestEdge | None = None,
        categories: Sequence[Category] | None = None,
        precision: torch.dtype | None = None,
        augmented: MultiViewDetector | None = None,
    ) -> None:
        self._precision = precision
        self._sets: tuple[Sequence[Any], list[str]] = (), []
        self.trained_names: list[str] = []
        self.longest_view = LONGEST_VIEW
        if isinstance(model, nn.Module):
            self.model, self.resize, self.augmented = model, resize, augmented
            if categories is not None:
                self.categories = list(categories)
        else:
            cfg = model
            check_ranges(cfg)
            self.model = build_model(cfg).eval()  # calls from several threads then never change its mode
            self._precision = read_options(cfg, YAML_KEYS).precision
            (self.resize,) = build_augmentations(cfg, is_train=False)
            with argument_names({"path": "MODEL.WEIGHTS", "average": "SOLVER.EMA.ENABLED"}):
                self.trained_names = load_whole(self.model, cfg.MODEL.WEIGHTS, cfg.SOLVER.EMA.ENABLED, cfg.dump())
            self.augmented = build_multi_view(cfg, self.model) if cfg.TEST.AUG.ENABLED else None
            self.longest_view = cfg.TEST.AUG.MAX_SIZE
            self._sets = cfg.DATASETS.CUSTOM, [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]

    @cached_property
    def categories(self) -> list[Category]:
        # The data sets are looked at only when the names are asked for, because that may read an annotation file.
        custom, names = self._sets
        register_custom(custom)
        return known_categories(names, self.model.roi_heads.num_classes, self.trained_names)

    @property
    def class_names(self) -> list[str]:
        """The class names by contiguous id, as in `pred_classes`."""
        return [c["name"] for c in self.categories]

    @torch.no_grad()
    def __call__(self, image: Any) -> dict[str, Any]:
        """Detect objects in one picture.

        Args:
            image: the picture in BGR order, as OpenCV reads it: an array, a tensor or nested lists (H, W, C) with
                numbers from 0 to 255. Whole numbers of any type give the same detections. Floats are resized without
                antialiasing, as in Detectron2. Tensors too have their channels at the end. A model whose
                `MODEL.PIXEL_MEAN` has another number of channels than three reads them in the given order.

        Returns:
            A dict whose "instances" have the size (H, W) and the fields `pred_boxes`, `scores`, `pred_classes` and,
            if the model has a mask head, `pred_masks`, best first.

        Raises:
            ArgumentError: `image` has another shape or another kind of numbers, has no pixels, or has numbers beyond
                0..255.
        """
        x = self._input(image)
        with evaluation_mode(self.model), autocast(self.model.pixel_mean.device, self._precision):
            return (self.augmented or self.model)([x])[0]

    @torch.no_grad()
    def detect_in_window(self, image: Any, corner: tuple[int, int], size: tuple[int, int]) -> Instances:
        """Detect objects in a part of a picture, and return them in the pixels of the picture.

        The memory that this takes does not grow with the size of the picture.

        Args:
            image: the part, as `__call__` takes it.
            corner: the column x and the row y of the top left pixel of the part.
            size: the (height, width) of the picture.

        Returns:
            The same fields as those of `__call__` on the CPU; `pred_masks` are `RunLengthMasks`.

        Raises:
            ArgumentError: see `__call__`.
        """
        x = self._input(image, is_part=True)
        with evaluation_mode(self.model), autocast(self.model.pixel_mean.device, self._precision):
            (found,) = (self.augmented or self.model).inference([x], do_postprocess=False)
        found = rescale_boxes(found, x["height"], x["width"]).to("cpu")
        boxes = Boxes(found.pred_boxes.tensor + torch.tensor([*corner, *corner]))
        fields = {**found.get_fields(), "pred_boxes": boxes}
        if found.has("pred_masks"):
            fields["pred_masks"] = paste_run_lengths(found.pred_masks[:, 0], boxes.tensor, size)
        return Instances(size, **fields)

    def _input(self, image: Any, is_part: bool = False) -> dict[str, Any]:
        """Return a picture, or a part of one, as the model reads it."""
        image = as_pixels(image, len(self.model.pixel_mean), is_part)
        height, width = image.shape[:2]
        if self.model.input_format == "RGB" and image.shape[2] == 3:
            image = image[:, :, ::-1]
        pixels = torch.from_numpy(np.array(self._resized(image).transpose(2, 0, 1), order="C"))
        return {"image": pixels, "height": height, "width": width}

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self.resize is None:
            return image
        return plan_transforms([self.resize], image.shape[:2], np.random.default_rng(0)).apply_image(image)


def load_whole(model: nn.Module, path: str, average: bool, config: str) -> list[str]:
    """Load the weights of a checkpoint as `load_trained` does, and require them for the whole model.

    Args:
        model: the model.
        path: a file or URL; with "" nothing is loaded.
        average: whether to take the moving average of the weights.
        config: the configuration of the model as YAML; the checkpoint's must describe the same model.

    Returns:
        The class names by contiguous id that the checkpoint carries, or [].

    Raises:
        ArgumentError: see `load_trained`; or the file lacks weights of the model, or was trained as another model.
    """
    report = load_trained(model, path, average)
    if report is None:
        logger.warning("No weights are given, so the model has random weights and its detections mean nothing")
        return []
    if not report.complete:
        lacking = report.missing | {m.name for m in report.mismatched}
        shown = compact_names(lacking, lacking | report.loaded)
        raise ArgumentError(
            "path",
            f"{report.path} lacks {len(lacking)} of this model's tensors or has them in other shapes "
            f"({', '.join(shown[:5])}{', ...' if len(shown) > 5 else ''}); predicting needs a model that was trained "
            "with this configuration",
        )
    check_same_model(report.config, config, path)
    return report.class_names
