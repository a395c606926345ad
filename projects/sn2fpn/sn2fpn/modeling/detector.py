"""The two-stage detector: backbone, proposals, RoI heads, and the ways in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..layers.cpu.layout import channels_last_on_cpu
from ..structures import ImageList, Instances, ShapeSpec
from .features import pick_shapes
from .postprocess import rescale_detections
from .roi_heads import StandardROIHeads
from .rpn import RPN

__all__ = ["GeneralizedRCNN"]


class GeneralizedRCNN(nn.Module):
    """Faster R-CNN and, with a mask branch in its RoI heads, Mask R-CNN; with Detectron2's calling convention.

    Args:
        backbone: image batch -> pyramid maps by name; has `size_divisibility` and `output_shape()`.
        proposal_generator: maps -> proposals.
        roi_heads: maps and proposals -> detections.
        pixel_mean, pixel_std: per channel, in the order of `input_format`; images are (x - mean) / std.
        input_format: channel order of the images, "BGR" or "RGB".

    Raises:
        UserError: a mean and a deviation of different channels, or parts that want other maps than the backbone's.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        proposal_generator: RPN,
        roi_heads: StandardROIHeads,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "BGR",
    ) -> None:
        super().__init__()
        shapes = backbone.output_shape()
        _check_strides("proposal_generator", proposal_generator, proposal_generator.anchor_generator, shapes)
        _check_strides("roi_heads", roi_heads, roi_heads.box_pooler, shapes)
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format
        if len(pixel_mean) != len(pixel_std):
            raise UserError(f"MODEL.PIXEL_MEAN has {len(pixel_mean)} channels, MODEL.PIXEL_STD {len(pixel_std)}")
        for name, value in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Losses (training mode) or detections (evaluation mode) of a batch.

        Args:
            batched_inputs: one dict per image:
                `image`: (C, H, W), uint8 or float of the same range, channels in `input_format`;
                `height`, `width`: size that detections are wanted in (default: the image's);
                `instances`: in training, ground truth with `gt_boxes`, `gt_classes` and for masks `gt_masks`.

        Returns:
            Training: {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"} and for masks "loss_mask".
            Evaluation: per image {"instances": `pred_boxes`, `scores`, `pred_classes` and for masks `pred_masks`
            (bool Tensor[N, height, width]), best first}.

        Raises:
            UserError: ground truth is missing or unusable, or an image has the wrong shape.
            FloatingPointError: predictions are not finite in training.
        """
        if not self.training:
            return self.inference(batched_inputs)
        targets = [self._target(x) for x in batched_inputs]
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, losses = self.proposal_generator(images, features, targets)
        return {**losses, **self.roi_heads(images, features, proposals, targets)[1]}

    @torch.no_grad()
    def inference(
        self, batched_inputs: Sequence[dict[str, Any]], do_postprocess: bool = True
    ) -> list[dict[str, Instances]] | list[Instances]:
        """Detections of a batch; without `do_postprocess`, in the pixels of the images as given.

        Returns:
            See `forward`; without `do_postprocess`, the Instances themselves, whose `pred_masks` are
            probabilities within the boxes, (N, 1, M, M).
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features)
        detections, _ = self.roi_heads(images, features, proposals)
        if not do_postprocess:
            return detections
        return [
            {"instances": rescale_detections(d, x.get("height", d.image_size[0]), x.get("width", d.image_size[1]))}
            for d, x in zip(detections, batched_inputs)
        ]

    def preprocess_image(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """Images normalised, then padded with zeros to one size that suits the backbone."""
        channels = len(self.pixel_mean)
        for x in batched_inputs:
            if x["image"].dim() != 3 or x["image"].shape[0] != channels:
                raise UserError(
                    f"{_name(x)}: `image` expects shape ({channels}, height, width), found {tuple(x['image'].shape)}"
                )
        images = [(x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs]
        batch = ImageList.from_tensors(images, self.backbone.size_divisibility)
        batch.tensor = channels_last_on_cpu(batch.tensor)
        return batch

    def _target(self, x: dict[str, Any]) -> Instances:
        """The checked ground truth of one input, on the model's device."""
        target = x.get("instances")
        if target is None:
            raise UserError(
                f"{_name(x)}: training needs `instances` with gt_boxes and gt_classes, "
                f"found only {sorted(x)}; call model.eval() for detections"
            )
        missing = [field for field in ("gt_boxes", "gt_classes") if not target.has(field)]
        if missing:
            raise UserError(
                f"{_name(x)}: `instances` lacks {' and '.join(missing)}; it has {sorted(target.get_fields())}"
            )
        boxes, classes = target.gt_boxes.tensor, target.gt_classes
        if len(boxes) and not (boxes.isfinite().all() and (boxes[:, 2:] > boxes[:, :2]).all()):
            bad = ~(boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1))
            raise UserError(f"{_name(x)}: gt_boxes expects finite x1 < x2 and y1 < y2, found {boxes[bad][0].tolist()}")
        num_classes = self.roi_heads.num_classes
        if len(classes) and not (int(classes.min()) >= 0 and int(classes.max()) < num_classes):
            raise UserError(
                f"{_name(x)}: gt_classes expects ids from 0 to {num_classes - 1} "
                f"(the model's {num_classes} classes), found {sorted(set(classes.tolist()))}"
            )
        if self.roi_heads.mask_head is not None and len(boxes):
            _check_masks(x, target)
        return target.to(self.device)


def _check_strides(name: str, part: Any, user: Any, shapes: dict[str, ShapeSpec]) -> None:
    """Anchors and RoI pooling must know the strides of the maps that they are used on."""
    strides = [s.stride for s in pick_shapes(shapes, part.in_features, f"{name}.in_features")]
    if list(user.strides) != strides:
        raise UserError(
            f"{name}: {type(user).__name__} has strides {list(user.strides)}, but {list(part.in_features)} "
            f"have {strides}"
        )


def _check_masks(x: dict[str, Any], target: Instances) -> None:
    if not target.has("gt_masks"):
        raise UserError(
            f"{_name(x)}: the mask branch learns from `instances` with gt_masks, "
            f"found only {sorted(target.get_fields())}"
        )
    size = getattr(target.gt_masks, "image_size", target.image_size)  # polygons have none
    if tuple(size) != target.image_size:
        raise UserError(f"{_name(x)}: gt_masks are {tuple(size)}, the image is {target.image_size} (height, width)")


def _name(x: dict[str, Any]) -> str:
    """What an input is called in messages."""
    return str(x.get("file_name") or (f"image {x['image_id']}" if "image_id" in x else "model input"))
