"""The annotations or predictions of one image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["Instances"]


class Instances:
    """Fields of equal length that belong to one image, such as boxes, classes and scores.

    Fields are attributes: `instances.pred_boxes = Boxes(...)`. Indexing with an integer, a slice, or a tensor of
    integers or bools picks from all fields at once.

    Args:
        image_size: the (height, width) of the image in pixels.
        **fields: the initial fields.
    """

    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        self._image_size = tuple(image_size)
        self._fields: dict[str, Any] = {}
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """The (height, width) of the image in pixels."""
        return self._image_size

    def set(self, name: str, value: Any) -> None:
        """Set a field.

        Raises:
            ValueError: its length is not that of the other fields.
        """
        if self._fields and len(value) != len(self):
            raise ValueError(f"{name}: expected {len(self)} entries like the other fields, found {len(value)}")
        self._fields[name] = value

    def get(self, name: str) -> Any:
        """Return a field."""
        return self._fields[name]

    def has(self, name: str) -> bool:
        """Return whether there is a field of that name."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Remove a field."""
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Return all fields by name."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """Return the instances with each field moved that has a method `to`; the other fields are kept as they are."""
        moved = {k: v.to(*args, **kwargs) if hasattr(v, "to") else v for k, v in self._fields.items()}
        return Instances(self._image_size, **moved)

    @staticmethod
    def cat(instance_lists: list[Instances]) -> Instances:
        """Concatenate instances of one image, field by field.

        Raises:
            ValueError: they belong to images of different sizes.
        """
        if len(instance_lists) == 1:
            return instance_lists[0]
        first = instance_lists[0]
        if any(i.image_size != first.image_size for i in instance_lists):
            sizes = [i.image_size for i in instance_lists]
            raise ValueError(f"expected instances of one image size, found {sizes}")
        out = Instances(first.image_size)
        for name, value in first.get_fields().items():
            values = [i.get(name) for i in instance_lists]
            if isinstance(value, torch.Tensor):
                out.set(name, torch.cat(values))
            elif isinstance(value, list):
                out.set(name, list(itertools.chain(*values)))
            else:
                out.set(name, type(value).cat(values))
        return out

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "_fields" or name not in self._fields:
            known = sorted(self.__dict__.get("_fields", ()))
            raise AttributeError(f"Instances has no field {name!r}; it has {known}")
        return self._fields[name]

    def __getitem__(self, item: int | slice | torch.Tensor) -> Instances:
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"there are {len(self)} instances, found index {item}")
            item = slice(item, None if item == -1 else item + 1)
        if isinstance(item, torch.Tensor) and item.dtype == torch.bool and self._fields:
            if len(item) != len(self):
                raise IndexError(f"there are {len(self)} instances, found a mask of {len(item)}")
            item = item.nonzero().squeeze(1)  # once for all fields, because each search would wait for a GPU
        out = Instances(self._image_size)
        for name, value in self._fields.items():
            out.set(name, _pick(value, item))
        return out

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without fields have no length")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("Instances cannot be iterated over; index them or read a field")

    def __repr__(self) -> str:
        count = len(self) if self._fields else 0
        return f"Instances(n={count}, image_size={self._image_size}, fields={list(self._fields)})"


def _pick(value: Any, item: slice | torch.Tensor) -> Any:
    """Return `value[item]`, for lists too."""
    if not isinstance(value, list) or isinstance(item, slice):
        return value[item]
    index = torch.as_tensor(item)
    index = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
    return [value[i] for i in index.tolist()]
