"""The reader of Pascal VOC folders (`Annotations/`, `ImageSets/Main/`, `JPEGImages/`), which returns data set dicts."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ..errors import UserError, did_you_mean
from ..structures import BoxMode
from .catalog import DatasetCatalog, DatasetDicts, MetadataCatalog
from .coco import clip_box
from .images import read_image_size
from .problems import BUILT_IN_HINT, Problems

__all__ = ["VOC_CLASSES", "load_voc_instances", "find_voc_classes", "register_pascal_voc"]

logger = logging.getLogger(__name__)

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def register_pascal_voc(
    name: str, dirname: str | Path, split: str, year: int, class_names: Sequence[str] = VOC_CLASSES
) -> None:
    """Register a data set in Pascal VOC's format. Its files are read when the data set is used.

    Args:
        name: the name of the data set, for instance for `DATASETS.TRAIN`.
        dirname: the folder with `Annotations`, `ImageSets/Main` and `JPEGImages`.
        split: the name of the list in `ImageSets/Main`, without `.txt`.
        year: 2007 selects the 11-point metric, every other year the area metric.
        class_names: the class names by contiguous id.

    Raises:
        KeyError: the name is taken.
    """
    DatasetCatalog.register(name, lambda: load_voc_instances(dirname, split, class_names, name))
    MetadataCatalog.get(name).set(
        thing_classes=list(class_names), dirname=str(dirname), split=split, year=year, evaluator_type="pascal_voc"
    )


def load_voc_instances(
    dirname: str | Path, split: str, class_names: Sequence[str], dataset_name: str | None = None
) -> DatasetDicts:
    """Read one split of a VOC folder.

    The corners of VOC boxes are 1-based inclusive pixels. 1 is subtracted from xmin and ymin, so that a box from 1 to
    the width covers the image. Difficult objects are kept and marked with `difficult: 1`, because Detectron2 trains on
    them. Objects without a valid box and objects whose class is not in `class_names` are skipped with a warning. A
    missing or broken XML file is refused.

    Args:
        dirname: the folder with `Annotations`, `ImageSets/Main` and `JPEGImages`.
        split: the name of the list in `ImageSets/Main`, without `.txt`.
        class_names: the class names by contiguous id.
        dataset_name: the name of the data set, for messages.

    Raises:
        UserError: the list is missing, an XML file is missing or broken, or no object of the split is usable.
    """
    root = Path(dirname)
    class_ids = {c: i for i, c in enumerate(class_names)}
    records: DatasetDicts = []
    objects = 0
    with Problems(f"data set {dataset_name or f'{root.name} {split}'!r}") as problems:
        for file_id in _read_split(root, split):
            xml_file = root / "Annotations" / f"{file_id}.xml"
            try:
                tree = _parse_xml(xml_file)
                record, found = _image(tree, root, file_id, xml_file, class_ids, problems)
            except UserError as e:
                problems.refuse(xml_file, str(e).removeprefix(f"{xml_file}: "))
                continue
            objects += found
            records.append(record)
    kept = sum(len(r["annotations"]) for r in records)
    if objects and not kept:
        raise UserError(
            f"{root}, split {split!r}: none of its {objects} objects is usable with the classes "
            f"{', '.join(class_names)}; check that these are the classes of this data set"
        )
    logger.info("%s %s: %d images, %d objects, %d classes", root, split, len(records), kept, len(class_ids))
    return records


def find_voc_classes(dirname: str | Path) -> list[str]:
    """Return the sorted class names of all objects in a VOC folder, so that all splits share one list of classes.

    Raises:
        UserError: there is no folder `Annotations`, a file is broken, or there is no object.
    """
    folder = Path(dirname) / "Annotations"
    if not folder.is_dir():
        raise UserError(f"{folder}: folder of the VOC annotations does not exist")
    found: set[str] = set()
    with Problems(f"classes of {dirname}") as problems:
        for xml_file in sorted(folder.glob("*.xml")):
            try:
                found.update(_text(obj, "name") or "" for obj in _parse_xml(xml_file).iter("object"))
            except UserError as e:
                problems.refuse(xml_file, str(e).removeprefix(f"{xml_file}: "))
    found.discard("")
    if not found:
        raise UserError(f"{folder}: no object with a name in any XML file")
    return sorted(found)


def _read_split(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        splits = [p.stem for p in path.parent.glob("*.txt")]
        hint = did_you_mean(split, splits) if splits else BUILT_IN_HINT
        raise UserError(f"{path}: list of the VOC split does not exist{hint}")
    # A line is "<id>", or "<id> <-1|0|1>" in the lists of single classes.
    ids = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty")
    repeated = [file_id for file_id, times in Counter(ids).items() if times > 1]
    if repeated:
        raise UserError(
            f"{path}: {len(repeated)} id(s) occur more than once, such as {repeated[0]!r}; "
            "a split contains each image once"
        )
    return ids


def _parse_xml(path: Path) -> Element:
    try:
        return fromstring(path.read_bytes(), forbid_dtd=False, forbid_entities=True, forbid_external=True)
    except FileNotFoundError:
        raise UserError(f"{path}: annotation file does not exist") from None
    except ParseError as e:
        raise UserError(f"{path}: not readable as XML: {e}") from None  # the message has line and column
    except DefusedXmlException as e:
        raise UserError(f"{path}: entity declarations are not allowed in annotation files ({e})") from None
    except (ValueError, LookupError) as e:  # the encoding does not exist or does not fit
        raise UserError(f"{path}: not readable as XML: {e}") from None


def _image(
    tree: Element, root: Path, file_id: str, xml_file: Path, class_ids: dict[str, int], problems: Problems
) -> tuple[dict[str, Any], int]:
    """Return the data set dict of one image, and the number of objects in its file."""
    file_name = root / "JPEGImages" / f"{file_id}.jpg"
    height, width = _size(tree, file_name, xml_file)
    annotations: list[dict[str, Any]] = []
    objects = tree.findall("object")
    for i, obj in enumerate(objects, 1):
        label = f"object {i} ({_text(obj, 'name') or 'no name'})"
        try:
            class_id, box = _class_id(obj, class_ids), _box(obj)
            clipped = clip_box(box, height, width)
        except ValueError as e:
            problems.skip(xml_file, f"{label} skipped: {e}")
            continue
        if clipped != box:
            beyond = f"box {list(box)} reaches beyond the {width}x{height} image"
            problems.skip(xml_file, f"{label}: {beyond} and is clipped to {list(clipped)}")
        annotations.append(
            {
                "category_id": class_id,
                "bbox": [float(v) for v in clipped],
                "bbox_mode": BoxMode.XYXY_ABS,
                "difficult": int(_text(obj, "difficult") == "1"),
            }
        )
    record = {"file_name": str(file_name), "image_id": file_id, "height": height, "width": width}
    return record | {"annotations": annotations}, len(objects)


def _size(tree: Element, file_name: Path, xml_file: Path) -> tuple[int, int]:
    """Return the (height, width) from the XML file, or from the image if the XML file does not give it."""
    size = tree.find("size")
    if size is None:
        return read_image_size(file_name)
    try:
        height, width = int(_text(size, "height") or ""), int(_text(size, "width") or "")
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        raise UserError(
            f"{xml_file}: size has width {_text(size, 'width')!r} and height {_text(size, 'height')!r}, "
            "expected positive integers"
        )
    return height, width


def _class_id(obj: Element, class_ids: dict[str, int]) -> int:
    """Return the contiguous class id of an object. A ValueError says that its class is unknown."""
    name = _text(obj, "name")
    if name not in class_ids:
        raise ValueError(f"unknown class {name!r}{did_you_mean(name or '', class_ids)}")
    return class_ids[name]


def _box(obj: Element) -> tuple[float, ...]:
    """Return the 0-based box (x1, y1, x2, y2) of an object. A ValueError says why it is unusable."""
    bndbox = obj.find("bndbox")
    if bndbox is None:
        raise ValueError("it has no bndbox")
    texts = [_text(bndbox, key) for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(t or "") for t in texts)
    except ValueError:
        raise ValueError(f"bndbox {texts} (xmin, ymin, xmax, ymax) is not four numbers") from None
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))) or xmax <= xmin - 1 or ymax <= ymin - 1:
        raise ValueError(f"bndbox {texts} (xmin, ymin, xmax, ymax) has no area")
    return xmin - 1.0, ymin - 1.0, xmax, ymax


def _text(element: Element, tag: str) -> str | None:
    """Return the stripped text of a child, or None if the child or its text is missing."""
    text = element.findtext(tag)
    return text.strip() or None if text is not None else None
