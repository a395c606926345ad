"""The two-stage detector, from images to losses or detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, UserError, argument_names, check_choice
from ..ranges import check_each, check_number
from ..structures import ImageList, Instances, ShapeSpec
from .features import pick_shapes
from .roi_heads import StandardROIHeads
from .roi_heads.postprocess import rescale_detections
from .rpn import RPN

__all__ = ["GeneralizedRCNN"]


class GeneralizedRCNN(nn.Module):
    """A two-stage detector: Faster R-CNN, Cascade R-CNN and, with a mask branch in their RoI heads, Mask R-CNN.

    It is called as Detectron2's class of the same name.

    Args:
        backbone: maps a batch of images to pyramid maps by name. It has `size_divisibility` and `output_shape()`.
        proposal_generator: maps pyramid maps to proposals.
        roi_heads: map pyramid maps and proposals to detections.
        pixel_mean: the mean of each channel, in the order of `input_format`.
        pixel_std: the standard deviation of each channel. Images are normalised as (x - mean) / std.
        input_format: order of the images' channels, "BGR" or "RGB".

    Raises:
        ArgumentError: the mean and the standard deviation have different numbers of channels or hold a number out of
            its range, the format is unknown, or a part expects other maps than the backbone's.
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
        _check_channels("proposal_generator.head", proposal_generator.rpn_head, proposal_generator, shapes)
        for stage in roi_heads.stages:
            _check_channels("roi_heads.box_head", stage.head, roi_heads, shapes)
        _check_channels("roi_heads.mask_head", roi_heads.mask_head, roi_heads, shapes)
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = check_choice("input_format", input_format, ("BGR", "RGB"))
        check_each("pixel_mean", pixel_mean, check_number)
        check_each("pixel_std", pixel_std, check_number, above=0)
        if len(pixel_mean) != len(pixel_std):
            raise ArgumentError(
                "pixel_std", f"expected {len(pixel_mean)} numbers, one for each mean, found {len(pixel_std)}"
            )
        for name, value in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Return the losses of a batch in training mode, or its detections in evaluation mode.

        Args:
            batched_inputs: one dict per image with these entries:
                `image`: Tensor[C, H, W] of uint8, or of floats in the same range, with channels in `input_format`.
                `height`, `width`: the size in whose pixels detections are returned; by default that of the image.
                `instances`: in training, the ground truth with `gt_boxes`, `gt_classes` and for masks `gt_masks`.

        Returns:
            In training the losses "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg" and for masks "loss_mask";
            those of Cascade R-CNN are named by stage, see `loss_names`. In evaluation one dict per image, whose
            "instances" have `pred_boxes`, `scores`, `pred_classes` and for masks `pred_masks`
            (Tensor[N, height, width], bool), best first.

        Raises:
            UserError: ground truth is missing or unusable, or an image has the wrong shape.
            FloatingPointError: the detector is in training mode on a CPU and predictions are not finite, see `RPN`; a
                Cascade R-CNN raises it on a GPU, too.
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
        """Return the detections of a batch.

        Args:
            batched_inputs: see `forward`.
            do_postprocess: whether detections are rescaled to the `height` and `width` of each input.

        Returns:
            The same as `forward` in evaluation mode. Without `do_postprocess`, the Instances themselves in the pixels
            of the given images; their `pred_masks` are probabilities within the boxes (Tensor[N, 1, M, M]).
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
        """Normalise the images and pad them with zeros to one size that the backbone takes."""
        channels = len(self.pixel_mean)
        for x in batched_inputs:
            if x["image"].dim() != 3 or x["image"].shape[0] != channels:
                raise UserError(
                    f"{_name(x)}: `image` must have the shape ({channels}, height, width), "
                    f"found {tuple(x['image'].shape)}"
                )
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        padded = ImageList.padded_size(sizes, self.backbone.size_divisibility)
        # One buffer and few kernels: the padding is the mean, and so becomes zero together with the images.
        batch = self.pixel_mean.expand(len(images), -1, *padded).clone(memory_format=torch.contiguous_format)
        for slot, image, (height, width) in zip(batch, images, sizes):
            slot[:, :height, :width].copy_(image)
        batch.sub_(self.pixel_mean).div_(self.pixel_std)
        return ImageList(batch.contiguous(memory_format=self._memory_format()), sizes)

    def _memory_format(self) -> torch.memory_format:
        """Return the layout of the images, which all maps of the backbone inherit.

        Channels-last is faster on a CPU, and in half precision on a GPU.
        """
        autocast = torch.is_autocast_enabled(self.pixel_mean.device.type)
        if self.pixel_mean.is_cpu:
            fast = autocast or not (self.training and _has_statistics(self.backbone))
        else:
            fast = self.pixel_mean.is_cuda and autocast
        return torch.channels_last if fast else torch.contiguous_format

    def _target(self, x: dict[str, Any]) -> Instances:
        """Check the ground truth of one input and return it on the device of the model."""
        target = x.get("instances")
        if target is None:
            raise UserError(
                f"{_name(x)}: training needs `instances` with gt_boxes and gt_classes, found only {sorted(x)}; "
                "call model.eval() to get detections"
            )
        missing = [field for field in ("gt_boxes", "gt_classes") if not target.has(field)]
        if missing:
            raise UserError(
                f"{_name(x)}: `instances` lacks {' and '.join(missing)}; it has {sorted(target.get_fields())}"
            )
        boxes, classes = target.gt_boxes.tensor, target.gt_classes
        valid = boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        if not valid.all():
            found = boxes[~valid][0].tolist()
            raise UserError(f"{_name(x)}: gt_boxes must be finite with x1 < x2 and y1 < y2, found {found}")
        num_classes = self.roi_heads.num_classes
        if len(classes) and not (int(classes.min()) >= 0 and int(classes.max()) < num_classes):
            raise UserError(
                f"{_name(x)}: gt_classes must be ids from 0 to {num_classes - 1} "
                f"(the model's {num_classes} classes), found {sorted(set(classes.tolist()))}"
            )
        if self.roi_heads.mask_head is not None and len(boxes):
            _check_masks(x, target)
        return target.to(self.device, non_blocking=True)


def _has_statistics(module: nn.Module) -> bool:
    """Return whether norms in `module` compute statistics of their maps in training.

    Such norms amplify the rounding of the layers before them. In contiguous layout PyTorch's 3x3 convolutions round
    less than in channels-last layout, and as Detectron2's, so that training in float32 follows Detectron2's. Frozen
    norms do not amplify, under autocast the rounding to half precision is far larger, and channels-last is faster.
    """
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm | nn.GroupNorm) for m in module.modules())


def _check_strides(argument: str, part: Any, user: Any, shapes: dict[str, ShapeSpec]) -> None:
    """Check that anchors or RoI pooling have the strides of the maps that they are used on."""
    with argument_names({"in_features": f"{argument}.in_features"}):
        strides = [s.stride for s in pick_shapes(shapes, part.in_features)]
    if list(user.strides) != strides:
        raise ArgumentError(
            argument,
            f"{type(user).__name__} has strides {list(user.strides)}, but the maps {list(part.in_features)} "
            f"have {strides}",
        )


def _check_channels(argument: str, head: Any, part: Any, shapes: dict[str, ShapeSpec]) -> None:
    """Check that a head, if it says for which channels it is made, reads maps of these channels."""
    for name in part.in_features:
        channels = shapes[name].channels
        found = getattr(head, "in_channels", channels)
        if None not in (channels, found) and found != channels:
            raise ArgumentError(f"{argument}.in_channels", f"expected {channels} like the map {name!r}, found {found}")


def _check_masks(x: dict[str, Any], target: Instances) -> None:
    """Check that there are ground-truth masks and that they have the size of the image."""
    if not target.has("gt_masks"):
        raise UserError(
            f"{_name(x)}: the mask branch needs `instances` with gt_masks, found only {sorted(target.get_fields())}"
        )
    size = getattr(target.gt_masks, "image_size", target.image_size)  # Polygons have no size.
    if tuple(size) != target.image_size:
        raise UserError(
            f"{_name(x)}: gt_masks must have the image's (height, width) {target.image_size}, found {tuple(size)}"
        )


def _name(x: dict[str, Any]) -> str:
    """Return the name of an input in messages."""
    return str(x.get("file_name") or (f"image {x['image_id']}" if "image_id" in x else "model input"))
