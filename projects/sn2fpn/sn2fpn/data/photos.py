"""The data set `photos`: COCO's validation photographs with a person, small enough to train on without a GPU.

    python -m sn2fpn.data.photos COCO_FOLDER --output datasets/photos

makes the set from an official download of COCO val2017. The photographs that show a person are resized to a long side
of 320 pixels and split into train, tune and test by the MD5 of their ids. The annotations exist with 1 class (person),
12 (COCO's supercategories), 20 (the most frequent classes) and 80 classes. Learning rates and other choices belong to
`tune`; `test` measures the result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

from ..atomic import atomic_path, atomic_write
from ..command_line import CommandLineParser
from ..errors import UserError
from ..program import run_program
from .fingerprint import dataset_fingerprint
from .formats.coco import load_coco_json

__all__ = ["CLASS_SETS", "SPLITS", "build_photos", "main"]

CLASS_SETS = (1, 12, 20, 80)
"""The numbers of classes of the annotations that are written."""

SPLITS = ("train", "tune", "test")

_PERSON = 1  # COCO's category id
_TWENTY = (1, 2, 3, 4, 10, 15, 27, 28, 31, 32, 37, 38, 42, 44, 46, 47, 51, 62, 67, 84)  # the most frequent in the set
_TEST, _TUNE = 693, 200  # numbers of photographs; the others are for training
_LONG_SIDE = 320
_QUALITY = 82


def build_photos(coco: Path, output: Path) -> dict[str, str]:
    """Make the data set from an official download of COCO val2017.

    Boxes, areas and polygons are scaled with the photographs and keep their fractions of a pixel. The run-length
    encoded masks of crowd regions are resized.

    Args:
        coco: the folder with `val2017/` and `annotations/instances_val2017.json`.
        output: the folder to write `images/` and `photos<classes>_<split>.json` to.

    Returns:
        The fingerprint of each file of annotations (see `dataset_fingerprint`) by its name.

    Raises:
        UserError: a file is missing or unreadable, or the output cannot be written.
    """
    source = coco / "annotations" / "instances_val2017.json"
    for path in (source, coco / "val2017"):
        if not path.exists():
            raise UserError(f"{path} does not exist; expected the folder of an official download of COCO val2017")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        objects = _objects_by_image(content)
        images = {image["id"]: image for image in content["images"] if image["id"] in objects}
        categories = content["categories"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise UserError(f"{source}: expected COCO's instances of val2017, but it cannot be read: {e!r}") from None
    sizes = _write_images(images, coco / "val2017", output / "images")
    scaled = {i: [_scaled(o, images[i], sizes[i]) for o in objects[i]] for i in images}
    fingerprints = {}
    for count in CLASS_SETS:
        mapping, names = _class_set(count, categories)
        for split, ids in split_ids(images).items():
            path = output / f"photos{count}_{split}.json"
            _write_annotations(path, ids, sizes, scaled, mapping, names)
            fingerprints[path.stem] = dataset_fingerprint(load_coco_json(path, output / "images"))
    return fingerprints


def split_ids(ids: Mapping[int, Any]) -> dict[str, list[int]]:
    """Return the ids of each split, sorted: the first by MD5 are for the test, the next for tuning, the rest to train.

    The MD5 is that of the id as 12 digits. Sets with fewer photographs are split in the same proportions.
    """
    order = sorted(ids, key=lambda i: hashlib.md5(f"{i:012d}".encode(), usedforsecurity=False).hexdigest())
    test, tune = (round(n * len(order) / 2693) for n in (_TEST, _TUNE))
    parts = {"train": order[test + tune :], "tune": order[test : test + tune], "test": order[:test]}
    return {split: sorted(part) for split, part in parts.items()}


def _objects_by_image(content: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Return the annotations of every photograph that shows a person."""
    objects: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        objects.setdefault(annotation["image_id"], []).append(annotation)
    return {i: found for i, found in objects.items() if any(o["category_id"] == _PERSON for o in found)}


def _write_images(images: dict[int, dict[str, Any]], source: Path, target: Path) -> dict[int, tuple[int, int]]:
    """Write the resized photographs that do not exist yet, and return the (width, height) of each."""
    target.mkdir(parents=True, exist_ok=True)

    def write(image: dict[str, Any]) -> tuple[int, int]:
        scale = _LONG_SIDE / max(image["width"], image["height"])
        size = round(image["width"] * scale), round(image["height"] * scale)
        if not (target / image["file_name"]).is_file():
            with Image.open(source / image["file_name"]) as opened, atomic_path(target / image["file_name"]) as path:
                opened.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(path, "JPEG", quality=_QUALITY)
        return size

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            return dict(zip(images, pool.map(write, images.values())))
        except OSError as e:
            raise UserError(f"a photograph cannot be read or written: {e}") from None


def _scaled(annotation: dict[str, Any], image: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return an annotation in the pixels of the resized photograph."""
    x, y = size[0] / image["width"], size[1] / image["height"]
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        segmentation = _resized_rle(segmentation, size)
    else:
        segmentation = [np.round(np.reshape(p, (-1, 2)) * (x, y), 2).reshape(-1).tolist() for p in segmentation]
    return annotation | {
        "bbox": [round(v * s, 3) for v, s in zip(annotation["bbox"], (x, y, x, y))],
        "area": round(annotation["area"] * x * y, 3),
        "segmentation": segmentation,
    }


def _resized_rle(rle: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    counts = rle["counts"]
    packed = mask_api.frPyObjects(rle, *rle["size"]) if isinstance(counts, list) else rle
    resized = cv2.resize(mask_api.decode(packed), size, interpolation=cv2.INTER_NEAREST)
    encoded = mask_api.encode(np.asfortranarray(resized))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def _class_set(count: int, categories: list[dict[str, Any]]) -> tuple[dict[int, int], dict[int, str]]:
    """Return the new id of each of COCO's category ids that is kept, and the name of each new id."""
    by_id = {c["id"]: c for c in categories}
    if count == 12:
        groups = list(dict.fromkeys(c["supercategory"] for c in categories))
        return {i: groups.index(c["supercategory"]) + 1 for i, c in by_id.items()}, dict(enumerate(groups, 1))
    kept = {1: (_PERSON,), 20: _TWENTY}.get(count, tuple(by_id))
    return {i: i for i in kept}, {i: by_id[i]["name"] for i in kept if i in by_id}


def _write_annotations(
    path: Path,
    ids: Sequence[int],
    sizes: dict[int, tuple[int, int]],
    objects: dict[int, list[dict[str, Any]]],
    mapping: dict[int, int],
    names: dict[int, str],
) -> None:
    chosen = [
        o | {"category_id": mapping[o["category_id"]]} for i in ids for o in objects[i] if o["category_id"] in mapping
    ]
    content = {
        "info": {"description": "COCO val2017 with a person, 320 pixels", "version": "1"},
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": sizes[i][0], "height": sizes[i][1]} for i in ids],
        "annotations": chosen,
        "categories": [{"id": i, "name": name} for i, name in names.items()],
    }
    with atomic_write(path) as file:
        json.dump(content, file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = CommandLineParser(
        prog="python -m sn2fpn.data.photos",
        description="Make the data set 'photos' from an official download of COCO val2017.",
    )
    parser.add_argument("coco", type=Path, help="the folder with val2017/ and annotations/instances_val2017.json")
    parser.add_argument(
        "--output", type=Path, default=Path("datasets/photos"), help="the folder to write to (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    return run_program(lambda: _build(args))


def _build(args: argparse.Namespace) -> None:
    for name, fingerprint in build_photos(args.coco, args.output).items():
        print(f"{name}: fingerprint {fingerprint}")
    print(f"Set DETECTRON2_DATASETS to {args.output.parent} if it is not ./datasets.")


if __name__ == "__main__":
    sys.exit(main())
