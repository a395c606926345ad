"""Detectron2's `utils.visualizer`: pictures of predictions and of annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, unique
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from ...data.catalog import Metadata
from ...data.masks import check_segmentation, draw_segmentation
from ...data.transforms import TransformList
from ...structures import BitMasks, Boxes, Instances, PolygonMasks, RunLengthMasks, box_of
from ...visualization import class_color, draw_boxes, draw_masks, fit_image, scale_instances
from ..absent import absent, refuse

__all__ = ["ColorMode", "VisImage", "Visualizer"]

__getattr__ = absent(__name__, __all__)

_GRAY = np.array([0.299, 0.587, 0.114])  # the luma of ITU-R BT.601


@unique
class ColorMode(Enum):
    """What colours the objects of a picture have.

    `IMAGE` and `SEGMENTATION` give each class a colour, which `thing_colors` of the metadata can choose. `IMAGE_BW` is
    `IMAGE` on a gray picture, in which the pixels of the masks keep their colours.
    """

    IMAGE = 0
    SEGMENTATION = 1
    IMAGE_BW = 2


class VisImage:
    """A picture (H, W, 3), uint8 RGB; `scale` must be 1, because the picture has its size already."""

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        refuse(1.0, scale=float(scale))
        self._img = img

    def get_image(self) -> np.ndarray:
        """Return the picture (H, W, 3), uint8 RGB."""
        return self._img

    def save(self, filepath: str | Path) -> None:
        """Write the picture to a file, whose name says the format."""
        Image.fromarray(self._img).save(filepath)


class Visualizer:
    """Draws on an image with the functions of `sn2fpn.visualization`.

    Args:
        img_rgb: (H, W, 3) with numbers from 0 to 255, in RGB order.
        metadata: the metadata of the data set, whose `thing_classes` name the classes.
        scale: the size of the picture, relative to the image.
        instance_mode: the colours, see `ColorMode`.
        font_size_scale: must be 1, because texts have one size.

    Raises:
        ArgumentError: `font_size_scale` has another value.

    Attributes:
        output: the picture so far.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Metadata | None = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
    ) -> None:
        refuse(1.0, font_size_scale=float(font_size_scale))
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = Metadata("") if metadata is None else metadata
        self.instance_mode = instance_mode
        size = max(1, round(max(self.img.shape[:2]) * scale))
        self.output = VisImage(self.img if scale == 1 else fit_image(self.img, size)[0])

    def get_output(self) -> VisImage:
        """Return the picture."""
        return self.output

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw predictions.

        Args:
            predictions: with any of `pred_boxes`, `pred_masks`, `pred_classes` and `scores`, in pixels of the image.
            jittering: has no effect, because equal classes have equal colours.
        """
        found = predictions.to("cpu").get_fields()
        classes = found["pred_classes"].tolist() if "pred_classes" in found else None
        scores = found["scores"].tolist() if "scores" in found else None
        boxes, masks = found.get("pred_boxes"), found.get("pred_masks")
        if self.instance_mode == ColorMode.IMAGE_BW:
            self._turn_gray(masks)
        labels = self._labels(classes, scores)
        return self.overlay_instances(boxes=boxes, masks=masks, labels=labels, assigned_colors=self._colors(classes))

    def draw_dataset_dict(self, dic: dict[str, Any]) -> VisImage:
        """Draw the annotations of a data set dict. Crowd regions are named so."""
        annotations = dic.get("annotations") or []
        if not annotations:
            return self.output
        classes = [a["category_id"] for a in annotations]
        labels = [
            f"{label} (crowd)" if a.get("iscrowd", 0) else label
            for label, a in zip(self._labels(classes) or [], annotations)
        ]
        boxes = np.array([box_of(a) for a in annotations])
        masks = None
        if all(a.get("segmentation") for a in annotations):
            size = self.img.shape[:2]
            masks = [
                draw_segmentation(check_segmentation(a["segmentation"], *size), TransformList(), size)
                for a in annotations
            ]
        return self.overlay_instances(boxes=boxes, masks=masks, labels=labels, assigned_colors=self._colors(classes))

    def overlay_instances(
        self,
        *,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        masks: Any = None,
        assigned_colors: Sequence[Sequence[float]] | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw boxes, masks and labels.

        Args:
            boxes: `Boxes`, or (N, 4) `(x1, y1, x2, y2)` in pixels of the image.
            labels: N texts.
            masks: `BitMasks`, `PolygonMasks`, (N, H, W) bool, or a list of N masks, which are polygons or (H, W).
            assigned_colors: N RGB colours with numbers from 0 to 1.
            alpha: the opacity of the masks, from 0 to 1.
        """
        drawn = Instances(self.img.shape[:2])
        if masks is not None:
            drawn.pred_masks = self._bitmaps(masks)
        if boxes is not None:
            drawn.pred_boxes = boxes if isinstance(boxes, Boxes) else Boxes(np.asarray(boxes))
        elif masks is not None and labels is not None:  # a label stands at a box
            drawn.pred_boxes = _boxes_of(drawn.pred_masks)
        if not drawn.get_fields():
            return self.output
        image = self.output.get_image()
        colors = self._rgb(assigned_colors, len(drawn))
        drawn = scale_instances(drawn, image.shape[:2])
        if drawn.has("pred_masks"):
            image = draw_masks(image, drawn.pred_masks.numpy(), colors, opacity=alpha)
        if drawn.has("pred_boxes"):
            image = draw_boxes(image, drawn.pred_boxes.tensor.numpy(), labels, colors)
        self.output = VisImage(image)
        return self.output

    def draw_binary_mask(
        self, binary_mask: np.ndarray, color: Any = None, *, text: str | None = None, alpha: float = 0.5
    ) -> VisImage:
        """Draw one mask (H, W) and, if wanted, a text; `color` is one of matplotlib, such as "red" or (1, 0, 0)."""
        colors = None if color is None else [to_rgb(color)]
        labels = None if text is None else [text]
        return self.overlay_instances(masks=[binary_mask], labels=labels, assigned_colors=colors, alpha=alpha)

    def draw_box(self, box_coord: Sequence[float], alpha: float = 1.0, edge_color: Any = "g") -> VisImage:
        """Draw one box (x1, y1, x2, y2) in pixels of the image; `alpha` has no effect, the lines are opaque."""
        return self.overlay_instances(boxes=[box_coord], assigned_colors=[to_rgb(edge_color)])

    def _bitmaps(self, masks: Any) -> Any:
        """Return masks as `RunLengthMasks`, or as (N, H, W) bool."""
        size = self.img.shape[:2]
        if isinstance(masks, RunLengthMasks):
            return masks
        if isinstance(masks, PolygonMasks):
            masks = masks.polygons
        if isinstance(masks, BitMasks):
            masks = masks.tensor
        if isinstance(masks, torch.Tensor | np.ndarray):
            return torch.as_tensor(masks).bool()
        drawn = [m if isinstance(m, np.ndarray) and m.ndim == 2 else _of_polygons(m, size) for m in masks]
        return torch.as_tensor(np.array(drawn, dtype=bool).reshape(-1, *size))

    def _turn_gray(self, masks: Any) -> None:
        image = self.output.get_image()
        gray = np.repeat((image @ _GRAY).round().astype(np.uint8)[..., None], 3, axis=2)
        if masks is not None and len(masks):
            scaled = scale_instances(Instances(self.img.shape[:2], pred_masks=self._bitmaps(masks)), image.shape[:2])
            inside = scaled.pred_masks.any(dim=0).numpy()
            gray[inside] = image[inside]
        self.output = VisImage(gray)

    def _labels(self, classes: Sequence[int] | None, scores: Sequence[float] | None = None) -> list[str] | None:
        """Return a text for each object: the name of its class and its score in percent, as far as they are known."""
        names = dict(enumerate(self.metadata.get("thing_classes") or ()))
        named = None if classes is None else [names.get(c, f"class {c}") for c in classes]
        if scores is None:
            return named
        return [f"{name} {score:.0%}".strip() for name, score in zip(named or [""] * len(scores), scores)]

    def _colors(self, classes: Sequence[int] | None) -> list[list[float]] | None:
        if classes is None:
            return None
        chosen = dict(enumerate(self.metadata.get("thing_colors") or ()))
        return [[part / 255 for part in chosen.get(c, class_color(c))] for c in classes]

    @staticmethod
    def _rgb(colors: Sequence[Sequence[float]] | None, count: int) -> list[tuple[int, int, int]]:
        if colors is None:
            return [class_color(i) for i in range(count)]
        return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colors]


def _boxes_of(masks: torch.Tensor | RunLengthMasks) -> Boxes:
    bitmaps = masks if isinstance(masks, torch.Tensor) else torch.from_numpy(np.stack([*masks]))
    return BitMasks(bitmaps).get_bounding_boxes()


def _of_polygons(polygons: Any, size: tuple[int, int]) -> np.ndarray:
    """Draw the polygons of one object."""
    return draw_segmentation([np.asarray(p).reshape(-1) for p in polygons], TransformList(), size)  # type: ignore[misc]
