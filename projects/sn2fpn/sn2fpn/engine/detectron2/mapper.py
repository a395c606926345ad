"""Detectron2's mapper, which refuses what Detectron2 reads wrongly, and keeps the fractions of resized boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetMapper

from ...data.images import is_deep_gray
from ...errors import UserError

__all__ = ["Mapper"]


class Mapper(DatasetMapper):
    """Detectron2's mapper for images with 8 bits, with boxes and polygons in floats.

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
        if "annotations" in dataset_dict:
            dataset_dict = {**dataset_dict, "annotations": [_in_floats(a) for a in dataset_dict["annotations"]]}
        return super().__call__(dataset_dict)


def _in_floats(annotation: dict[str, Any]) -> dict[str, Any]:
    """Return an object whose coordinates are floats, since Detectron2 cuts the fractions off whole numbers it resizes.

    Run lengths are left as they are.
    """
    changed: dict[str, Any] = {"bbox": [float(x) for x in annotation["bbox"]]}
    if isinstance(polygons := annotation.get("segmentation"), list):
        changed["segmentation"] = [np.asarray(polygon, dtype=np.float64) for polygon in polygons]
    return {**annotation, **changed}
