"""The mapper that turns a data set dict into a model input: it reads, augments and converts the annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..errors import ArgumentError, UserError, argument_names, check_choice
from ..ranges import check_number
from ..structures import Instances
from .augmentation import build_augmentations, plan_transforms
from .functions import UserFunction
from .images import FORMATS, as_array, as_planes, check_image_size, decode_image
from .masks import MASK_FORMATS
from .mixing import CopyPaste, Mosaic, Window, build_copy_paste, build_mosaic
from .photometric import build_photometric
from .seeding import seeded
from .selection import mask_format_of
from .targets import annotations_to_instances, with_checked_mask
from .transforms import FILL, ON_PIL, Size, TransformList

__all__ = ["DatasetMapper", "build_mapper"]


class _Part(NamedTuple):
    """A picture of the data set as a part of the image that is augmented."""

    record: dict[str, Any]
    size: Size  # (height, width) of the picture
    transforms: TransformList  # which move the picture into the image
    window: Window  # the part of the image that it covers


class DatasetMapper:
    """A callable that maps a data set dict to a model input in Detectron2's format.

    The steps of the augmentation are, in this order: the colours of each picture that is read (`photometric`), the
    mosaic, the geometric `augmentations`, copy-paste, and the function of the user's own.

    Args:
        augmentations: objects with a method `plan(size, rng)`, applied in order.
        image_format: channel order of the image, see `read_image`.
        with_targets: add `instances` to the input, without crowd regions and without boxes that became empty.
        mask_format: "polygon" or "bitmask" adds `gt_masks` to the targets and leaves out objects without a mask,
            including those whose mask was cropped away; None leaves masks out.
        boxes_from_masks: compute the boxes from the transformed masks, because the transformed box of a cropped object
            may be larger than the visible part.
        photometric: maps PIL's image to one of the same size, such as `PhotometricDistortion` or a transform of
            `torchvision.transforms.v2`. The global generators are seeded before each call.
        mosaic: makes one image of four pictures.
        copy_paste: pastes objects of another picture.
        function: a function that changes an image with its objects, or its name; see `UserFunction`.
        min_visible: the share of its box that an object must keep in the image, and of its mask where others cover
            it. An object of which less is left is dropped; with 0, only objects of which nothing is left are.

    Raises:
        ArgumentError: `image_format`, `mask_format` or `function` is unknown, `min_visible` is no share, or the others
            do not go together: polygons cannot be pasted or given to functions, and both need targets.
    """

    def __init__(
        self,
        augmentations: Sequence[Any],
        image_format: str = "BGR",
        with_targets: bool = True,
        mask_format: str | None = None,
        boxes_from_masks: bool = False,
        *,
        photometric: Callable[[Image.Image], Image.Image] | None = None,
        mosaic: Mosaic | None = None,
        copy_paste: CopyPaste | None = None,
        function: Callable[..., Mapping[str, Any]] | str | None = None,
        min_visible: float = 0.0,
    ) -> None:
        self.augmentations = list(augmentations)
        self.image_format = check_choice("image_format", image_format, FORMATS)
        self.with_targets = with_targets
        self.mask_format = None if mask_format is None else check_choice("mask_format", mask_format, MASK_FORMATS)
        self.boxes_from_masks = boxes_from_masks
        self.photometric, self.mosaic, self.copy_paste = photometric, mosaic, copy_paste
        self.function = UserFunction(function) if function else None
        self.min_visible = check_number("min_visible", min_visible, at_least=0, at_most=1)
        used = [name for name in ("copy_paste", "function") if getattr(self, name)]
        if used and not with_targets:
            raise ArgumentError("with_targets", f"expected True because there is {used[0]}, found {with_targets}")
        if used and mask_format == "polygon":
            problem = "expected 'bitmask' with copy-paste or a function, which do not keep polygons, found 'polygon'"
            raise ArgumentError("mask_format", problem)

    @property
    def mixes(self) -> bool:
        """Whether an image may be made of several pictures, so that the mapper needs the whole data set."""
        return bool(self.mosaic or self.copy_paste)

    @property
    def reads_masks(self) -> bool:
        """Whether the mapper uses the masks of data set dicts."""
        return bool(self.with_targets and (self.mask_format or self.copy_paste))

    def __call__(
        self, record: dict[str, Any], rng: np.random.Generator, records: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        """Read and augment the image of a data set dict.

        Args:
            record: the data set dict.
            rng: draws all random numbers.
            records: the data set, from which a mosaic and copy-paste draw other pictures.

        Returns:
            A dict with `image` (uint8 Tensor[C, H, W]), `height` and `width` (of the file), `file_name`, `image_id`
            and, if targets are wanted, `instances` with `gt_boxes`, `gt_classes` and `gt_masks` in pixels of `image`.

        Raises:
            ArgumentError: `records` is empty where it is needed.
            UserError: the file cannot be decoded, its size differs from the annotated one, a box does not fit its
                format, a mask does not fit the image or `mask_format`, or the user's function fails.
        """
        if self.mixes and not records:
            raise ArgumentError("records", "expected the data set that a mosaic and copy-paste draw from, found none")
        pasting = self.copy_paste is not None and self.copy_paste.is_drawn(rng)
        canvas, parts = self._canvas(record, rng, records)
        image, instances = self._augmented(canvas, parts, rng, pasting)
        if pasting:
            image, instances = self._with_pasted(image, instances, _drawn(records, rng), rng)
        if self.function:
            image, instances = self.function.apply(image, instances, self.image_format, rng)
        out = {key: value for key, value in record.items() if key != "annotations"}
        out["image"] = torch.from_numpy(image)
        if self.with_targets:
            out["instances"] = instances
        return out

    def _canvas(
        self, record: dict[str, Any], rng: np.random.Generator, records: Sequence[dict[str, Any]]
    ) -> tuple[Image.Image, list[_Part]]:
        """Return the image to augment, which is the picture or a mosaic, and the pictures that it is made of."""
        if self.mosaic is None or not self.mosaic.is_drawn(rng):
            return self._read(record, rng)
        first, *others = self.mosaic.windows(rng)
        parts, (height, width) = [], self.mosaic.size
        mode = "L" if self.image_format == "L" else "RGB"
        canvas = Image.new(mode, (width, height), (FILL,) * len(self.image_format))
        for window in (first, *others):
            chosen = record if window is first else _drawn(records, rng)
            picture, (part,) = self._read(chosen, rng)
            transforms = self.mosaic.plan(part.size, window, rng)
            for t in transforms[:-1]:  # the last one pads it
                picture = t.apply_pil(picture)
            canvas.paste(picture, (window.x0, window.y0))
            parts.append(_Part(chosen, part.size, transforms, window))
        return canvas, parts

    def _read(self, record: dict[str, Any], rng: np.random.Generator) -> tuple[Image.Image, list[_Part]]:
        picture = decode_image(record["file_name"], self.image_format)
        check_image_size(record, picture)
        if self.photometric is not None:
            with seeded(rng):
                picture = _same_kind(self.photometric(picture), picture)
        size = picture.height, picture.width
        return picture, [_Part(record, size, TransformList(), Window(0, 0, size))]

    def _augmented(
        self, canvas: Image.Image, parts: Sequence[_Part], rng: np.random.Generator, pasting: bool
    ) -> tuple[np.ndarray, Instances | None]:
        """Return the augmented image (C, H, W) and its objects, with bitmaps as masks for copy-paste."""
        transforms = plan_transforms(self.augmentations, (canvas.height, canvas.width), rng)
        image = self._transformed(canvas, transforms)
        if not self.with_targets:
            return image, None
        mask_format = "bitmask" if pasting else self.mask_format
        found = [self._targets(part, transforms, image.shape[1:], mask_format) for part in parts]
        return image, Instances.cat(found)

    def _transformed(self, image: Image.Image, transforms: TransformList) -> np.ndarray:
        """Return the transformed image (C, H, W)."""
        if all(type(t) in ON_PIL for t in transforms):  # an array on the way takes a fifth of the mapper's time
            for t in transforms:
                image = t.apply_pil(image)
            return as_planes(image, self.image_format)
        pixels = transforms.apply_image(as_array(image, self.image_format))
        return np.array(pixels.transpose(2, 0, 1), order="C")

    def _with_pasted(
        self, image: np.ndarray, instances: Instances, record: dict[str, Any], rng: np.random.Generator
    ) -> tuple[np.ndarray, Instances]:
        """Return the image with objects of another picture, which is augmented in the same way."""
        other, others = self._augmented(*self._read(record, rng), rng, pasting=True)
        image, instances = self.copy_paste.paste(image, instances, other, others, rng, self.min_visible)
        if self.mask_format is None:
            instances.remove("gt_masks")
        return image, instances

    def _targets(self, part: _Part, transforms: TransformList, image_size: Size, mask_format: str | None) -> Instances:
        annotations, whole = part.record["annotations"], TransformList([*part.transforms, *transforms])
        corners = transforms.apply_boxes(np.array([part.window.as_box()], dtype=np.float64))
        try:
            if mask_format is not None:
                annotations = [a if a.get("iscrowd", 0) else with_checked_mask(a, part.size) for a in annotations]
            instances = annotations_to_instances(
                annotations,
                whole,
                image_size,
                mask_format,
                self.boxes_from_masks and self.mask_format is not None,
                window=corners[0],
                min_visible=self.min_visible,
            )
        except ValueError as e:
            raise UserError(f"{part.record['file_name']}: {e}") from None
        return instances if self.mask_format is None else instances[instances.gt_masks.nonempty()]


def _same_kind(found: Any, picture: Image.Image) -> Image.Image:
    """Return what `photometric` has returned, after a check that it is a picture of the same mode and size."""
    if not isinstance(found, Image.Image) or (found.mode, found.size) != (picture.mode, picture.size):
        expected = f"expected an image of mode {picture.mode} and size {picture.size} in return"
        raise ArgumentError("photometric", f"{expected}, found {found!r}")
    return found


def _drawn(records: Sequence[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    return records[int(rng.integers(len(records)))]


def build_mapper(cfg: Any, is_train: bool, with_targets: bool | None = None) -> DatasetMapper:
    """Build the mapper of a configuration; `with_targets` defaults to `is_train`.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    augmentations, c = build_augmentations(cfg, is_train), cfg.INPUT
    mixing: dict[str, Any] = {}
    if is_train:
        mixing = {"photometric": build_photometric(cfg), "mosaic": build_mosaic(cfg)}
        mixing |= {"copy_paste": build_copy_paste(cfg), "function": c.FUNCTION, "min_visible": c.MIN_VISIBLE}
    cuts = is_train and (c.CROP.ENABLED or c.SCALE_JITTER.ENABLED or mixing["mosaic"] is not None)
    keys = {
        "image_format": "FORMAT",
        "mask_format": "MASK_FORMAT",
        "function": "FUNCTION",
        "min_visible": "MIN_VISIBLE",
    }
    with argument_names({argument: f"INPUT.{key}" for argument, key in keys.items()}):
        return DatasetMapper(
            augmentations,
            c.FORMAT,
            is_train if with_targets is None else with_targets,
            mask_format_of(cfg),
            boxes_from_masks=cfg.MODEL.MASK_ON and cuts,
            **mixing,
        )
