"""The reader of COCO JSON files, which checks every item and returns data set dicts."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from ..errors import UserError, nearby_files
from ..structures import BoxMode
from .catalog import DatasetCatalog, DatasetDicts, MetadataCatalog
from .images import read_image_size
from .masks import check_segmentation
from .problems import BUILT_IN_HINT, Problems

__all__ = ["load_coco_json", "read_categories", "register_coco_instances", "clip_box"]

logger = logging.getLogger(__name__)

# Annotated boxes often cross the border by a rounding error. Only boxes that are further outside are clipped.
BORDER_TOLERANCE_PX = 1.0


def register_coco_instances(name: str, metadata: dict[str, Any], json_file: str | Path, image_root: str | Path) -> None:
    """Register a data set in COCO's JSON format. Its files are read when the data set is used.

    Args:
        name: the name of the data set, for instance for `DATASETS.TRAIN`.
        metadata: additional metadata; may be empty.
        json_file: the annotation file.
        image_root: the folder that the file names in the annotation file are relative to.

    Raises:
        KeyError: the name is taken.
    """
    DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="coco", **metadata
    )


def load_coco_json(json_file: str | Path, image_root: str | Path, dataset_name: str | None = None) -> DatasetDicts:
    """Read a COCO instances file.

    Category ids are mapped to contiguous ids 0, 1, … in their order, and images are sorted by id. Boxes without a valid
    position and boxes of unknown images or categories are skipped with a warning. Boxes that reach beyond the image are
    clipped with a warning. A malformed mask is dropped with a warning, and its box is kept. Errors that make images or
    boxes ambiguous are refused.

    Args:
        json_file: the annotation file.
        image_root: the folder that the file names in the annotation file are relative to.
        dataset_name: the data set whose metadata receives `thing_classes` and the mapping of ids.

    Raises:
        UserError: the file is missing or truncated, a part is missing or wrong, or ids of images or categories repeat.
    """
    path = Path(json_file)
    content = _read_json(path)
    parts = ("images", "annotations", "categories")
    images_in, annotations_in, categories = (_part(content, key, path) for key in parts)
    id_map, names = _categories(categories, path)
    if dataset_name is not None:
        MetadataCatalog.get(dataset_name).set(thing_classes=names, thing_dataset_id_to_contiguous_id=id_map)
    with Problems(f"data set {dataset_name or path.name!r}") as problems:
        records = _images(images_in, Path(image_root), path, problems)
        kept = _annotations(annotations_in, records, id_map, path, problems)
    if annotations_in and not kept:
        raise UserError(
            f"{path}: none of its {len(annotations_in)} annotations is usable; "
            "check that its images, categories and annotations belong together"
        )
    logger.info("%s: %d images, %d boxes, %d classes", path, len(records), kept, len(names))
    return [records[i] for i in sorted(records, key=lambda i: (isinstance(i, str), i))]


def read_categories(json_file: str | Path) -> tuple[dict[int, int], list[str]]:
    """Read the mapping from category ids to contiguous ids of a COCO instances file, and the class names in that order.

    Raises:
        UserError: the file is missing or truncated, or the categories are missing or wrong.
    """
    path = Path(json_file)
    return _categories(_part(_read_json(path), "categories", path), path)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        hint = nearby_files(path, "*.json") or BUILT_IN_HINT
        raise UserError(f"{path}: annotation file does not exist{hint}")
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as e:
        raise UserError(
            f"{path}: not readable as JSON at line {e.lineno}, column {e.colno} (character {e.pos}): "
            f"{e.msg}; is the file truncated?"
        ) from None
    except (UnicodeDecodeError, RecursionError) as e:
        raise UserError(f"{path}: not readable as JSON: {e}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected a COCO file, which is an object with images, annotations and categories; "
            f"found {type(content).__name__}"
        )
    return content


def _part(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    if not isinstance(content.get(key), list):
        found = type(content[key]).__name__ if key in content else f"keys {sorted(content)}"
        raise UserError(f"{path}: expected a COCO instances file with a list {key!r}, found {found}")
    for i, item in enumerate(content[key]):
        if not isinstance(item, dict):
            raise UserError(f"{path}: {key}[{i}] is {type(item).__name__}, expected an object")
    return content[key]


def _categories(categories: list[dict[str, Any]], path: Path) -> tuple[dict[int, int], list[str]]:
    """Return the mapping from category ids to contiguous ids, and the class names in that order."""
    names: dict[int, str] = {}
    for i, category in enumerate(categories):
        cid, name = category.get("id"), category.get("name")
        if type(cid) is not int or not isinstance(name, str):
            raise UserError(f"{path}: categories[{i}] needs an integer 'id' and a 'name', found {category}")
        if cid in names:
            raise UserError(f"{path}: category id {cid} is given to both {names[cid]!r} and {name!r}")
        names[cid] = name
    if not names:
        raise UserError(f"{path}: has no categories")
    return {cid: i for i, cid in enumerate(sorted(names))}, [names[cid] for cid in sorted(names)]


def _images(images: list[dict[str, Any]], root: Path, path: Path, problems: Problems) -> dict[Any, dict[str, Any]]:
    """Return the data set dicts without annotations, by image id."""
    records: dict[Any, dict[str, Any]] = {}
    for i, image in enumerate(images):
        try:
            record = _image(image, f"images[{i}]", root)
            other = records.setdefault(record["image_id"], record)
            if other is not record:
                names = f"{other['file_name']} and {record['file_name']}"
                raise ValueError(f"image id {record['image_id']!r} is given to both {names}")
        except ValueError as e:
            problems.refuse(path, str(e))
    return records


def _image(image: dict[str, Any], label: str, root: Path) -> dict[str, Any]:
    """Convert one image. A ValueError says why it is unusable."""
    image_id, file_name = image.get("id"), image.get("file_name")
    if type(image_id) not in (int, str) or not isinstance(file_name, str) or not file_name:
        raise ValueError(f"{label} needs 'id' and 'file_name', found id {image_id!r}, file_name {file_name!r}")
    full_name = str(root / file_name)
    height, width = image.get("height"), image.get("width")
    if height is None and width is None:
        height, width = read_image_size(full_name)
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        found = f"has width {width!r} and height {height!r}"
        raise ValueError(f"image {image_id!r} ({file_name}) {found}, expected positive integers")
    return {"file_name": full_name, "height": height, "width": width, "image_id": image_id, "annotations": []}


def _annotations(
    annotations: list[dict[str, Any]],
    records: dict[Any, dict[str, Any]],
    id_map: dict[int, int],
    path: Path,
    problems: Problems,
) -> int:
    """Append the valid annotations to the records of their images, and return their number."""
    seen: set[Any] = set()
    kept = 0
    for i, annotation in enumerate(annotations):
        ann_id, image_id = annotation.get("id"), annotation.get("image_id")
        label = f"annotation {ann_id}" if ann_id is not None else f"annotations[{i}]"
        if isinstance(ann_id, (int, str)):
            if ann_id in seen:
                problems.skip(path, f"{label}: the id occurs more than once; all boxes with it are kept")
            seen.add(ann_id)
        record = records.get(image_id) if isinstance(image_id, (int, str)) else None
        if record is None:
            problems.skip(path, f"{label} skipped: refers to image {image_id!r}, which is not in 'images'")
            continue
        label = f"{label} (image {image_id!r}, {record['file_name']})"
        try:
            converted, warnings = _annotation(annotation, id_map, record["height"], record["width"])
        except ValueError as e:
            problems.skip(path, f"{label} skipped: {e}")
            continue
        for warning in warnings:
            problems.skip(path, f"{label}: {warning}")
        record["annotations"].append(converted)
        kept += 1
    return kept


def _annotation(
    annotation: dict[str, Any], id_map: dict[int, int], height: int, width: int
) -> tuple[dict[str, Any], list[str]]:
    """Convert one annotation, and return it with warnings. A ValueError says why it is unusable."""
    category_id, bbox = annotation.get("category_id"), annotation.get("bbox")
    if type(category_id) is not int or category_id not in id_map:
        raise ValueError(f"category {category_id!r} is not in 'categories'")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(v) for v in bbox):
        raise ValueError(f"bbox {bbox} is not [x, y, width, height] of four finite numbers")
    if bbox[2] <= 0 or bbox[3] <= 0:
        raise ValueError(f"bbox {bbox} has no area: width {bbox[2]}, height {bbox[3]}")
    warnings = []
    corners = (bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3])
    x1, y1, x2, y2 = clip_box(corners, height, width)
    if (x1, y1, x2, y2) != corners:
        clipped = [x1, y1, x2 - x1, y2 - y1]
        warnings.append(f"bbox {bbox} reaches beyond the {width}x{height} image and is clipped to {clipped}")
        bbox = clipped
    out: dict[str, Any] = {
        "iscrowd": int(bool(annotation.get("iscrowd", 0))),
        "bbox": bbox,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": id_map[category_id],
    }
    if _is_number(annotation.get("area")):
        out["area"] = annotation["area"]
    if annotation.get("segmentation"):
        try:
            out["segmentation"] = check_segmentation(annotation["segmentation"], height, width)
        except ValueError as e:
            warnings.append(f"{e}; the box is kept without its mask")
    return out, warnings


def clip_box(box_xyxy: tuple[float, ...], height: int, width: int) -> tuple[float, ...]:
    """Clip a box to its image, unless it only reaches beyond the image by a rounding error.

    Raises:
        ValueError: no part of the box lies in the image.
    """
    x1, y1, x2, y2 = box_xyxy
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise ValueError(f"box {list(box_xyxy)} (x1, y1, x2, y2) lies outside the {width}x{height} image")
    t = BORDER_TOLERANCE_PX
    if x1 >= -t and y1 >= -t and x2 <= width + t and y2 <= height + t:
        return box_xyxy
    return max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
