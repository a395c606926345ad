"""The fingerprint of a data set, by which results tell whether they come from the same images and annotations."""

from __future__ import annotations

import hashlib
import json

from .records import DatasetDicts

__all__ = ["dataset_fingerprint"]

_OF_OBJECT = ("bbox", "bbox_mode", "category_id", "iscrowd", "difficult")


def dataset_fingerprint(dataset_dicts: DatasetDicts) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a data set's images and boxes.

    The ids and sizes of the images, and the boxes, classes and flags of their objects count, in their order. Masks,
    pixels and the place of the files do not count. Coordinates count to a thousandth of a pixel.
    """
    digest = hashlib.sha256()
    for record in dataset_dicts:
        objects = [[_plain(a.get(key)) for key in _OF_OBJECT] for a in record.get("annotations", ())]
        line = [str(record["image_id"]), record["height"], record["width"], objects]
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()[:16]


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int)):
        return int(value or 0)
    return [round(float(v), 3) + 0.0 for v in value]  # type: ignore[union-attr]  # + 0.0 turns -0.0 into 0.0
