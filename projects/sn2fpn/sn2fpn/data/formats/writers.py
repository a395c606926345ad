"""The writing of data sets in the formats COCO, Pascal VOC and YOLO.

A writer writes all parts of a data set into an empty folder. What its format cannot hold is left out and counted.
"""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
import yaml
from pycocotools import mask as mask_api

from ...errors import UserError
from ...structures import BoxMode, box_of
from ..files import IMAGE_SUFFIXES
from .coco_images import LVIS_KEYS
from .source import CLASS_LIST

__all__ = ["WRITERS", "Output", "Part", "write_coco", "write_voc", "write_yolo"]

_YOLO_SPLITS = ("train", "val", "test")


@dataclass
class Part:
    """A part of a data set, such as its training images.

    Args:
        name: the name of the part.
        records: its data set dicts.
    """

    name: str
    records: list[dict[str, Any]]


@dataclass
class Output:
    """The folder that a writer fills.

    Args:
        folder: the folder.
        class_names: the class names by contiguous id.
        category_ids: the ids of the classes in COCO's format.
        link: whether images are symbolic links instead of copies.
        with_masks: whether YOLO's lines are polygons where an object has one.

    Attributes:
        lost: the numbers of what the format cannot hold, by what it is and what became of it.
    """

    folder: Path
    class_names: Sequence[str]
    category_ids: Sequence[int]
    link: bool = False
    with_masks: bool = False
    lost: Counter[str] = field(default_factory=Counter)
    _stems: set[str] = field(default_factory=set)

    def add_image(self, record: Mapping[str, Any], folder: str) -> Path:
        """Copy or link an image into a folder under a name that no other image has, even without its ending."""
        source = Path(record["file_name"])
        suffix = source.suffix if source.suffix.lower() in IMAGE_SUFFIXES else ".jpg"  # the content decides
        writable = _writable(source.stem)
        self.lost["names of images (control characters and what is not UTF-8 become _)"] += writable != source.stem
        self.lost["points at the beginning of names of images"] += writable.strip().startswith(".")  # of hidden files
        stem = plain = writable.strip().lstrip(".") or "image"
        number = 1
        while stem.lower() in self._stems:
            number += 1
            stem = f"{plain}_{number}"
        self._stems.add(stem.lower())
        self.lost["names of images (a number is added to names that repeat)"] += stem != plain
        target = self.folder / folder / f"{stem}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.link:
            target.symlink_to(source.absolute())
        else:
            _copy(source, target)
        return target

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    """Copy a file. A UserError says that the source cannot be read; what the target refuses is another error."""
    try:
        with source.open("rb"):
            pass
    except OSError as e:
        raise UserError(f"{source}: cannot be read: {e.strerror}") from None
    shutil.copyfile(source, target)


def _writable(name: str) -> str:
    """Return a name without what lists of names, XML files or the readers cannot hold."""
    return "".join("_" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)


def write_coco(parts: Sequence[Part], output: Output) -> None:
    """Write `annotations/<part>.json` and `images/<part>/`. The ids of images are kept where all are numbers."""
    categories = [{"id": i, "name": name} for i, name in zip(output.category_ids, output.class_names)]
    for part in parts:
        keep_ids = all(type(record["image_id"]) is int for record in part.records)
        images, annotations = [], []
        for number, record in enumerate(part.records, 1):
            image_id = record["image_id"] if keep_ids else number
            name = output.add_image(record, f"images/{part.name}").name
            more = {key: record[key] for key in LVIS_KEYS if key in record}
            size = {"width": record["width"], "height": record["height"]}
            images.append({"id": image_id, "file_name": name, **size, **more})
            for found in record.get("annotations", ()):
                output.lost["flags 'difficult' (their objects are written without it)"] += found.get("difficult", 0)
                written = {"id": len(annotations) + 1, "image_id": image_id}
                annotations.append({**written, **_coco_object(found, output.category_ids)})
        content: dict[str, Any] = {"images": images, "categories": categories}
        if _is_annotated(part):
            content["annotations"] = annotations
        output.lost["ids of images (they are numbered from 1)"] += 0 if keep_ids else len(images)
        output.write(f"annotations/{part.name}.json", json.dumps(content))


def _coco_object(found: Mapping[str, Any], category_ids: Sequence[int]) -> dict[str, Any]:
    box = [float(v) for v in BoxMode.convert(found["bbox"], found["bbox_mode"], BoxMode.XYWH_ABS)]
    segmentation = found.get("segmentation")
    area = found.get("area", box[2] * box[3])
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        area = found.get("area", float(mask_api.area(segmentation)))
        segmentation = {**segmentation, "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
    elif segmentation:
        area = found.get("area", sum(map(_polygon_area, segmentation)))
    out = {"category_id": category_ids[found["category_id"]], "bbox": box, "area": area}
    return {**out, "iscrowd": found.get("iscrowd", 0), **({"segmentation": segmentation} if segmentation else {})}


def _polygon_area(polygon: Sequence[float]) -> float:
    x, y = np.reshape(polygon, (-1, 2)).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def write_voc(parts: Sequence[Part], output: Output) -> None:
    """Write `Annotations/`, `JPEGImages/`, `ImageSets/Main/<part>.txt` and the list of classes."""
    for part in parts:
        if not _is_annotated(part):
            what = "the images have no annotations, which Pascal VOC cannot tell from no objects"
            raise UserError(f"{part.name}: {what}")
        names = []
        for record in part.records:
            image = output.add_image(record, "JPEGImages")
            names.append(image.stem)
            tree = _voc_tree(record, image.name, output)
            (output.folder / "Annotations").mkdir(exist_ok=True)
            tree.write(output.folder / "Annotations" / f"{image.stem}.xml", encoding="utf-8")
        output.write(f"ImageSets/Main/{part.name}.txt", "".join(f"{name}\n" for name in names))
    output.write(CLASS_LIST, "".join(f"{name}\n" for name in output.class_names))


def _voc_tree(record: Mapping[str, Any], name: str, output: Output) -> ElementTree:
    root = Element("annotation")
    SubElement(root, "filename").text = name
    size = SubElement(root, "size")
    for key, value in (("width", record["width"]), ("height", record["height"]), ("depth", 3)):
        SubElement(size, key).text = str(value)
    for found in _without_crowds(record, output):
        element = SubElement(root, "object")
        SubElement(element, "name").text = output.class_names[found["category_id"]]
        SubElement(element, "difficult").text = str(found.get("difficult", 0))
        box = SubElement(element, "bndbox")
        x1, y1, x2, y2 = box_of(found).tolist()
        for key, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            SubElement(box, key).text = f"{round(value, 4):.10g}"
        output.lost["masks (their boxes are written)"] += bool(found.get("segmentation"))
    indent(root)
    return ElementTree(root)


def write_yolo(parts: Sequence[Part], output: Output) -> None:
    """Write `data.yaml`, `images/<part>/` and `labels/<part>/`, with the parts train, val and test."""
    splits = yolo_names([part.name for part in parts])
    for part, split in zip(parts, splits):
        for record in part.records:
            image = output.add_image(record, f"images/{split}")
            if "annotations" in record:
                objects = _without_crowds(record, output)
                # Where a file has one polygon, YOLO's programs read each line as points, and a box as two of them.
                as_points = output.with_masks and any(map(_is_one_polygon, objects))
                lines = [_yolo_line(found, record, output, as_points) for found in objects]
                output.write(f"labels/{split}/{image.stem}.txt", "".join(f"{line}\n" for line in lines))
    content = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(output.class_names))}
    output.write("data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def yolo_names(names: Sequence[str]) -> list[str]:
    """Return the parts train, val and test that names such as "train2017" and "valid" mean; a single part is `train`.

    Raises:
        UserError: a name means none of them, or two mean the same.
    """
    found = [re.match("train|val|test", name) for name in names]
    splits = [match[0] if match else "" for match in found]
    if len(names) == 1:
        return [splits[0] or _YOLO_SPLITS[0]]
    if "" in splits or len(set(splits)) < len(splits):
        raise UserError(f"YOLO has the parts train, val and test, found {', '.join(names)}; choose some with --split")
    return splits


def _is_one_polygon(found: Mapping[str, Any]) -> bool:
    segmentation = found.get("segmentation")
    return isinstance(segmentation, list) and len(segmentation) == 1


def _yolo_line(found: Mapping[str, Any], record: Mapping[str, Any], output: Output, as_points: bool) -> str:
    """Return the class and the numbers of an object: a polygon, or else its box or the box's corners (`as_points`)."""
    width, height = record["width"], record["height"]
    output.lost["flags 'difficult' (their objects are written without it)"] += found.get("difficult", 0)
    x1, y1, x2, y2 = box_of(found).tolist()
    if output.with_masks and _is_one_polygon(found):
        points = found["segmentation"][0]
    else:
        points = [x1, y1, x2, y1, x2, y2, x1, y2]
        advice = "that are not one polygon" if output.with_masks else "which --masks writes as polygons"
        output.lost[f"masks {advice} (their boxes are written)"] += bool(found.get("segmentation"))
        output.lost["boxes beside polygons (their corners are written, which are read as masks)"] += as_points
    if as_points:
        values = [v / (height if i % 2 else width) for i, v in enumerate(points)]
    else:
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    return " ".join([str(found["category_id"]), *(f"{v:.9g}" for v in values)])


def _without_crowds(record: Mapping[str, Any], output: Output) -> list[dict[str, Any]]:
    """Return the objects of an image that are no crowd regions, which would become single objects."""
    kept = [found for found in record["annotations"] if not found.get("iscrowd", 0)]
    output.lost["crowd regions (they are not written)"] += len(record["annotations"]) - len(kept)
    return kept


def _is_annotated(part: Part) -> bool:
    return all("annotations" in record for record in part.records)


WRITERS: dict[str, Callable[[Sequence[Part], Output], None]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
}
"""The writers by format."""
