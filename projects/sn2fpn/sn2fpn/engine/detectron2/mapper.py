"""Detectron2's mapper, which refuses what Detectron2 reads wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.data import DatasetMapper

from ...data.images import is_deep_gray
from ...errors import UserError

__all__ = ["Mapper"]


class Mapper(DatasetMapper):
    """Detectron2's mapper for images with 8 bits.

    Raises:
        UserError: an image is gray with 16 bits, of which Detectron2 makes a white one.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return the input of the model for a data set dict."""
        path = Path(dataset_dict["file_name"])
        if path.is_file() and is_deep_gray(path):  # Detectron2 may also fetch a file by its own kinds of path
            raise UserError(
                f"{path}: Detectron2 reads gray images of 16 bits as white; save them with 8 bits, or add "
                "--engine native, which scales them"
            )
        return super().__call__(dataset_dict)
