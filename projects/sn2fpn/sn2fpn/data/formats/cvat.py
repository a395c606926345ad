"""The reader of XML files that CVAT exports as "CVAT for images 1.1"."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from pycocotools import mask as mask_api

from ...errors import ArgumentError, UserError, did_you_mean
from ...structures import BoxMode, box_of
from ..files import PictureFolder, path_inside
from ..problems import Problems, Unusable
from ..records import DatasetDicts
from ..values import clean_name, read_flag, read_whole
from .found import Found, FoundObject, add_objects, check_size, finish, join_groups, names_in_use
from .source import Source
from .voc_xml import parse_xml

__all__ = ["cvat_splits", "read_cvat"]

_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_MOST_PIXELS = 2**28  # of an image with masks, which takes a byte for each of them
_NOT_SHAPES = ("tag", "attribute")
_FLAGS = {"difficult": "difficult", "iscrowd": "iscrowd", "is_crowd": "iscrowd"}  # the names that CVAT's users give


def read_cvat(source: Source) -> tuple[DatasetDicts, dict[str, Any]]:
    """Return data set dicts, and the classes as metadata.

    Boxes, polygons and masks are objects, and polygons of one image with the same label and `group_id` are the parts of
    one object. A rotated box stands for the smallest upright box around it. Other shapes are left out with a warning.
    The attributes `difficult` and `is_crowd` of a shape are kept.

    Args:
        source: its `annotations` are the XML file. `images` are by default the folder `images` beside it, or else its
            own folder. They may lie there in a folder for each subset, and names of frames may lack the ending. `split`
            selects the images of a subset. Without `classes`, the classes are the labels of the task or project in
            their order, or else all labels that occur, sorted.

    Raises:
        UserError: the file is missing or broken, holds a video, or has no image; or a name leads outside of the folder.
    """
    path, tree = source.annotations, _parse(source)
    folder = source.images or next(p for p in (path.parent / "images", path.parent) if p.is_dir())
    records: DatasetDicts = []
    found: list[list[Found]] = []
    seen: set[str] = set()
    pictures = PictureFolder(folder, source.allow_outside)
    with Problems(f"data set {source.name!r}") as problems:
        for i, element in enumerate(_images(tree, source), 1):
            try:
                record = _read_image(element, folder, pictures, source.allow_outside)
                if record["image_id"] in seen:
                    raise ValueError("another image has the same name")
            except ValueError as e:
                problems.refuse(path, f"image {i} ({element.get('name')}): {e}")
                continue
            seen.add(record["image_id"])
            records.append(record)
            found.append(join_groups(_read_shapes(element, f"image {element.get('name')!r}, ", record)))
        listed = source.classes or _class_names(tree)
        classes = list(listed or sorted(names_in_use(item for objects in found for item in objects)))
        if not classes:
            raise UserError(f"{path}: has no labels, neither of the task nor of a shape")
        class_ids = {name: i for i, name in enumerate(classes)}
        for record, objects in zip(records, found):
            add_objects(record, objects, class_ids, path, problems)
        finish(records, problems, source, classes)
    return records, {"thing_classes": classes}


def cvat_splits(source: Source) -> list[str]:
    """Return the names of the subsets in a file; there are none unless each image belongs to one."""
    subsets = {image.get("subset") or "" for image in _parse(source).findall("image")}
    return [] if "" in subsets else sorted(subsets)


def _parse(source: Source) -> Element:
    path, expected = source.annotations, 'expected a file in the format "CVAT for images 1.1"'
    tree = parse_xml(path)
    if tree.tag != "annotations":
        raise UserError(f"{path}: {expected}, whose element is <annotations>; found <{tree.tag}>")
    if tree.find("track") is not None:
        raise UserError(f"{path}: {expected}, found the tracks of a video; export it again in this format")
    return tree


def _images(tree: Element, source: Source) -> list[Element]:
    images = [e for e in tree.findall("image") if source.split is None or e.get("subset") == source.split]
    if not images and source.split is not None:
        subsets = sorted({e.get("subset") or "" for e in tree.findall("image")})
        raise ArgumentError("SPLIT", f"{source.annotations} has no subset {source.split!r}{did_you_mean('', subsets)}")
    if not images:
        raise UserError(f"{source.annotations}: has no image")
    return images


def _class_names(tree: Element) -> list[str]:
    """Return the labels of the task or project; parts of skeletons, which have parents, are none."""
    labels = [e for meta in tree.findall("meta") for e in meta.iter("label") if e.find("name") is not None]
    names = [clean_name(e.findtext("name") or "") for e in labels if not (e.findtext("parent") or "").strip()]
    return list(dict.fromkeys(name for name in names if name))


def _read_image(element: Element, folder: Path, pictures: PictureFolder, allow_outside: bool) -> dict[str, Any]:
    """Return the data set dict of an image without its annotations. A ValueError says why it is unusable."""
    name = element.get("name")
    if not name:
        raise ValueError("it has no name")
    names = [name, f"{element.get('subset')}/{name}"] if element.get("subset") else [name]
    exact = [path_inside(folder, each, allow_outside) for each in names]
    file_name = next(filter(os.path.isfile, chain(exact, map(pictures.find, names))), exact[0])
    height, width = (read_whole(element.get(key)) or 0 for key in ("height", "width"))
    height, width = check_size(height, width, file_name)
    return {"file_name": file_name, "image_id": name, "height": height, "width": width}


def _read_shapes(image: Element, where: str, record: dict[str, Any]) -> Iterator[Found]:
    shapes = [shape for shape in image if shape.tag not in _NOT_SHAPES]
    for i, shape in enumerate(shapes, 1):
        name = clean_name(shape.get("label") or "")
        try:
            found: FoundObject | Unusable = _read_shape(shape, name, record)
        except Unusable as e:
            found = e
        yield f"{where}{shape.tag} {i} ({name or 'no label'})", found


def _read_shape(shape: Element, name: str, record: dict[str, Any]) -> FoundObject:
    """Return the object of a shape. An Unusable says why there is none."""
    flags = _read_flags(shape)
    if shape.tag == "box":
        return FoundObject(name, _read_box(shape), None, flags)
    if shape.tag == "polygon":
        points = [_numbers(point.split(","), 2, "points") for point in (shape.get("points") or "").split(";")]
        return FoundObject(name, None, [[v for point in points for v in point]], flags, shape.get("group_id"))
    if shape.tag == "mask":
        return FoundObject(name, None, _read_mask(shape, record["height"], record["width"]), flags)
    raise Unusable(f"drawn as {shape.tag[:40]}", f"the shape is a {shape.tag[:40]}, expected a box, polygon or mask")


def _read_box(shape: Element) -> list[float]:
    x1, y1, x2, y2 = _numbers([shape.get(key) or "" for key in _CORNERS], 4, ", ".join(_CORNERS))
    (angle,) = _numbers([shape.get("rotation") or "0"], 1, "rotation")
    if not angle:
        return [x1, y1, x2, y2]
    rotated = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, angle]
    return box_of({"bbox": rotated, "bbox_mode": BoxMode.XYWHA_ABS}).tolist()


def _numbers(texts: Sequence[str], count: int, what: str) -> list[float]:
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise Unusable("without valid numbers", f"{what}: expected {count} finite numbers, found {list(texts)}")
    return values


def _read_mask(shape: Element, height: int, width: int) -> dict[str, Any]:
    """Return the run lengths of a mask, which CVAT gives row by row inside of its box."""
    left, top, w, h = (read_whole(shape.get(key)) for key in ("left", "top", "width", "height"))
    runs = [read_whole(text) for text in (shape.get("rle") or "").split(",")]
    if None in (left, top, w, h) or not all(run is not None and run >= 0 for run in runs):
        raise Unusable("without a valid mask", "expected whole numbers as left, top, width, height and rle")
    if (
        min(left, top, w - 1, h - 1) < 0
        or left + w > width
        or top + h > height
        or sum(runs) != w * h
        or height * width > _MOST_PIXELS
    ):
        place = f"a mask of {w}x{h} pixels at ({left}, {top}) with {sum(runs)} pixels in its runs"
        raise Unusable("without a valid mask", f"{place} does not fit the {width}x{height} image")
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[top : top + h, left : left + w] = np.repeat(np.arange(len(runs)) % 2, runs).reshape(h, w)
    return mask_api.encode(mask)


def _read_flags(shape: Element) -> dict[str, int]:
    flags = {}
    for attribute in shape.findall("attribute"):
        key = _FLAGS.get((attribute.get("name") or "").lower())
        try:
            if key and read_flag(attribute.text, key):
                flags[key] = 1
        except ValueError as e:
            raise Unusable(f"with an unclear {key}", str(e)) from None
    return flags
