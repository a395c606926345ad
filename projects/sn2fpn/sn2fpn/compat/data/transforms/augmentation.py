"""Augmentations, which draw transforms, and what they are applied to."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....errors import ArgumentError
from ....ranges import check_number
from ...absent import absent
from .transform import NoOpTransform, Transform, TransformList

__all__ = ["AugInput", "Augmentation", "AugmentationList", "RandomApply", "apply_augmentations"]

__getattr__ = absent(__name__, __all__)


class Augmentation:
    """A rule that draws transforms.

    `get_transform` receives the attributes of the `AugInput` that its arguments are named after; a single argument,
    whatever its name is, is the image. It returns a `Transform`.
    """

    def get_transform(self, *args: Any) -> Transform:
        raise NotImplementedError(f"{type(self).__name__}.get_transform")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Transform `aug_input` in place and return the transform.

        Raises:
            AttributeError: `get_transform` asks for something that `aug_input` does not have.
            TypeError: `get_transform` returns no transform.
        """
        names = list(inspect.signature(self.get_transform).parameters)
        names = ["image"] if len(names) == 1 else names
        transform = self.get_transform(*(getattr(aug_input, name) for name in names))
        if not isinstance(transform, Transform):
            kind = type(transform).__name__
            raise TypeError(f"{type(self).__name__}.get_transform: expected a Transform, found {kind}")
        aug_input.transform(transform)
        return transform

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Store the arguments of a constructor, given as its `locals()`, as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def _rand_range(self, low: float = 1.0, high: float | None = None, size: Any = None) -> Any:
        """Return a random number from `low` to `high`, or from 0 to `low`."""
        return np.random.uniform(0, low, size) if high is None else np.random.uniform(low, high, size)

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self).__init__).parameters.values()
        given = [(p.name, getattr(self, p.name, p.default)) for p in parameters if p.name != "self"]
        defaults = {p.name: p.default for p in parameters}
        shown = ", ".join(f"{name}={value!r}" for name, value in given if value is not defaults[name])
        return f"{type(self).__name__}({shown})"


class AugInput:
    """An image, with boxes and a label map if there are any, that augmentations change in place.

    Args:
        image: (H, W) or (H, W, C), uint8 or floats.
        boxes: (N, 4) boxes (x1, y1, x2, y2) in pixels.
        sem_seg: (H, W) labels.
    """

    def __init__(
        self, image: np.ndarray, *, boxes: np.ndarray | None = None, sem_seg: np.ndarray | None = None
    ) -> None:
        self.image, self.boxes, self.sem_seg = image, boxes, sem_seg

    def transform(self, tfm: Transform) -> None:
        """Transform the image and what belongs to it."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations: Sequence[Augmentation | Transform]) -> TransformList:
        """Apply augmentations one after the other and return their transforms."""
        return AugmentationList(augmentations)(self)


class _Always(Augmentation):
    """An augmentation that always returns the same transform."""

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, image: np.ndarray) -> Transform:
        return self.tfm


def _as_augmentation(argument: str, found: Any) -> Any:
    if isinstance(found, Augmentation):
        return found
    if isinstance(found, Transform):
        return _Always(found)
    raise ArgumentError(argument, f"expected an Augmentation or a Transform, found {type(found).__name__}")


class AugmentationList(Augmentation):
    """Augmentations that are applied one after the other; each sees what the ones before it have made."""

    def __init__(self, augs: Sequence[Augmentation | Transform]) -> None:
        self.augs = [_as_augmentation(f"augs[{i}]", aug) for i, aug in enumerate(augs)]

    def __call__(self, aug_input: AugInput) -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(repr, self.augs))}]"


def apply_augmentations(
    augmentations: Sequence[Augmentation | Transform], inputs: np.ndarray | AugInput
) -> tuple[Any, TransformList]:
    """Apply augmentations to an image or an `AugInput`, and return the result and the transforms."""
    aug_input = AugInput(inputs) if isinstance(inputs, np.ndarray) else inputs
    transforms = AugmentationList(augmentations)(aug_input)
    return (aug_input.image if isinstance(inputs, np.ndarray) else aug_input), transforms


class RandomApply(Augmentation):
    """An augmentation or a transform that is applied with the probability `prob`."""

    def __init__(self, tfm_or_aug: Augmentation | Transform, prob: float = 0.5) -> None:
        self.prob = check_number("prob", prob, at_least=0, at_most=1)
        self.aug = _as_augmentation("tfm_or_aug", tfm_or_aug)

    def get_transform(self, *args: Any) -> Transform:
        return self.aug.get_transform(*args) if self._rand_range() < self.prob else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        return self.aug(aug_input) if self._rand_range() < self.prob else NoOpTransform()
