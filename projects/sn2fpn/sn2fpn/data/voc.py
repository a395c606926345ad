"""The reader of Pascal VOC folders (`Annotations/`, `ImageSets/Main/`, `JPEGImages/`), which returns data set dicts."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from ..errors import UserError, did_you_mean
from ..structures import BoxMode
from .catalog import DatasetCatalog, DatasetDicts, MetadataCatalog
from .coco_objects import clip_box
from .files import PictureFolder, path_inside
from .images import read_image_size
from .masks import MAX_PIXELS
from .plausible import find_doubts
from .problems import BUILT_IN_HINT, Problems, Unusable, log_once
from .readings import depends_on, read_once
from .records import Records
from .voc_xml import VocObject, count_ignored, parse_xml, read_objects, read_size, text_of

__all__ = ["VOC_CLASSES", "find_voc_classes", "load_voc_instances", "read_voc_once", "register_pascal_voc"]

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
    name: str,
    dirname: str | Path,
    split: str,
    year: int,
    class_names: Sequence[str] = VOC_CLASSES,
    *,
    allow_outside: bool = False,
) -> None:
    """Register a data set in Pascal VOC's format. Its files are read when the data set is used.

    Args:
        name: the name of the data set, for instance for `DATASETS.TRAIN`.
        dirname: the folder with `Annotations`, `ImageSets/Main` and `JPEGImages`.
        split: the name of the list in `ImageSets/Main`, without `.txt`.
        year: 2007 selects the 11-point metric, every other year the area metric.
        class_names: the class names by contiguous id.
        allow_outside: accept ids that lead outside of the folders.

    Raises:
        ArgumentError: the name is not usable as the name of a folder.
        KeyError: the name is taken.
    """
    DatasetCatalog.register(name, lambda: read_voc_once(dirname, split, class_names, name, allow_outside=allow_outside))
    MetadataCatalog.get(name).set(
        thing_classes=list(class_names), dirname=str(dirname), split=split, year=year, evaluator_type="pascal_voc"
    )


def load_voc_instances(
    dirname: str | Path,
    split: str,
    class_names: Sequence[str],
    dataset_name: str | None = None,
    *,
    allow_outside: bool = False,
) -> DatasetDicts:
    """Read one split of a VOC folder.

    The corners of VOC boxes are 1-based inclusive pixels. 1 is subtracted from xmin and ymin, so that a box from 1 to
    the width covers the image. Difficult objects are kept and marked with `difficult: 1`, because Detectron2 trains on
    them. Objects without a valid box and objects whose class is not in `class_names` are skipped with a warning. A
    missing or broken XML file is refused.

    The image of an id is `<id>.jpg`. If this file does not exist, it is the file that the XML file names, or else
    `<id>` with another ending. An image size that is missing or not positive is read from the image.

    Args:
        dirname: the folder with `Annotations`, `ImageSets/Main` and `JPEGImages`.
        split: the name of the list in `ImageSets/Main`, without `.txt`.
        class_names: the class names by contiguous id.
        dataset_name: the name of the data set, for messages.
        allow_outside: accept ids that lead outside of the folders.

    Raises:
        UserError: the list is missing, an XML file is missing or broken, an id leads outside of the folders, or no
            object of the split is usable.
    """
    root = Path(dirname)
    class_ids = {c: i for i, c in enumerate(class_names)}
    records: DatasetDicts = []
    ignored = Counter[str]()
    with Problems(f"data set {dataset_name or f'{root.name} {split}'!r}") as problems:
        pictures = PictureFolder(root / "JPEGImages", allow_outside)
        for file_id in _read_split(root, split):
            xml_file = root / "Annotations" / f"{file_id}.xml"
            try:
                path_inside(root / "Annotations", f"{file_id}.xml", allow_outside)
                tree = parse_xml(xml_file)
                record = _image(tree, pictures.find(file_id, text_of(tree, "filename")), file_id)
            except ValueError as e:
                problems.refuse(xml_file, str(e).removeprefix(f"{xml_file}: "))
                continue
            record["annotations"] = _annotations(tree, record, xml_file, class_ids, problems)
            ignored += count_ignored(tree)
            records.append(record)
        if ignored:
            shown = ", ".join(f"{tag!r} ({count})" for tag, count in ignored.most_common(5))
            problems.remark(root / "Annotations", f"XML elements that are not read: {shown}", is_note=True)
        for doubt in find_doubts(records):
            problems.remark(root, doubt)
    kept = sum(len(r["annotations"]) for r in records)
    if problems.objects and not kept:
        raise UserError(
            f"{root}, split {split!r}: none of its {problems.objects} objects is usable with the classes "
            f"{', '.join(class_names)}; check that these are the classes of this data set"
        )
    found = f"{len(records)} images, {kept} objects, {len(class_ids)} classes"
    log_once(logger, f"{root} {split}: {found}")
    return records


def read_voc_once(
    dirname: str | Path,
    split: str,
    class_names: Sequence[str] | None,
    dataset_name: str,
    *,
    allow_outside: bool = False,
) -> Records:
    """Read one split of a VOC folder unless this process has read it already; see `load_voc_instances` and `read_once`.

    The metadata of the data set receive the classes, which are those of `find_voc_classes` if `class_names` is None.
    """
    classes = tuple(class_names) if class_names else None
    return read_once(dataset_name, _read_voc, Path(dirname), split, classes, dataset_name, allow_outside)


def _read_voc(
    root: Path, split: str, class_names: Sequence[str] | None, dataset_name: str, allow_outside: bool
) -> tuple[DatasetDicts, dict[str, Any]]:
    """Return data set dicts, and the classes as metadata."""
    classes = list(class_names or find_voc_classes(root))
    records = load_voc_instances(root, split, classes, dataset_name, allow_outside=allow_outside)
    return records, {"thing_classes": classes}


def find_voc_classes(dirname: str | Path) -> list[str]:
    """Return the sorted class names of all objects in a VOC folder, so that all splits share one list of classes.

    Raises:
        UserError: there is no folder `Annotations`, a file is broken, or there is no object.
    """
    folder = Path(dirname) / "Annotations"
    if not folder.is_dir():
        raise UserError(f"{folder}: folder of the VOC annotations does not exist")
    found: set[str] = set()
    depends_on(folder)
    with Problems(f"classes of {dirname}") as problems:
        for xml_file in sorted(folder.glob("*.xml")):
            try:
                found.update(text_of(obj, "name") or "" for obj in parse_xml(xml_file).iter("object"))
            except UserError as e:
                problems.refuse(xml_file, str(e).removeprefix(f"{xml_file}: "))
    found.discard("")
    if not found:
        raise UserError(f"{folder}: no object with a name in any XML file")
    return sorted(found)


def _read_split(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    depends_on(path)
    if not path.is_file():
        splits = [p.stem for p in path.parent.glob("*.txt")]
        hint = did_you_mean(split, splits) if splits else BUILT_IN_HINT
        raise UserError(f"{path}: list of the VOC split does not exist{hint}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # -sig: some editors put a mark before the text
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: the list is not readable as UTF-8 text: {e}") from None
    ids = [_split_id(line.strip(), root / "Annotations") for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty")
    repeated = [file_id for file_id, times in Counter(ids).items() if times > 1]
    if repeated:
        raise UserError(
            f"{path}: {len(repeated)} id(s) occur more than once, such as {repeated[0]!r}; "
            "a split contains each image once"
        )
    return ids


def _split_id(line: str, annotations: Path) -> str:
    """Return the id of a line, which is "<id>", or "<id> <-1|0|1>" in the lists of single classes.

    An id may contain spaces, so that a last number is only removed if no file has the whole line as its name.
    """
    with_flag = re.fullmatch(r"(.*\S)\s+(-1|0|1)", line)
    return with_flag[1] if with_flag and not (annotations / f"{line}.xml").is_file() else line


def _image(tree: Element, file_name: str, file_id: str) -> dict[str, Any]:
    """Return the data set dict of an image without its annotations."""
    height, width = read_size(tree) or read_image_size(file_name)
    if height * width > MAX_PIXELS:
        raise ValueError(f"size is {width}x{height} pixels, expected at most {MAX_PIXELS}")
    return {"file_name": file_name, "image_id": file_id, "height": height, "width": width}


def _annotations(
    tree: Element, record: Mapping[str, Any], xml_file: Path, class_ids: Mapping[str, int], problems: Problems
) -> list[dict[str, Any]]:
    annotations = []
    height, width = record["height"], record["width"]
    for label, found in read_objects(tree):
        problems.objects += 1
        try:
            class_id, box, difficult = _known(found, class_ids)
            clipped = clip_box(box, height, width)
        except Unusable as e:
            problems.leave_out(xml_file, label, e)
            continue
        if clipped != box:
            beyond = f"box {list(box)} reaches beyond the {width}x{height} image and is clipped to {list(clipped)}"
            problems.change(xml_file, f"{label}: {beyond}", "with a clipped box")
        annotations.append(
            {
                "category_id": class_id,
                "bbox": [float(v) for v in clipped],
                "bbox_mode": BoxMode.XYXY_ABS,
                "difficult": int(difficult),
            }
        )
    return annotations


def _known(found: VocObject | Unusable, class_ids: Mapping[str, int]) -> tuple[int, tuple[float, ...], bool]:
    """Return the class id, the box and the flag of an object. An Unusable says why it is left out."""
    if isinstance(found, Unusable):
        raise found
    if found.name not in class_ids:
        unknown = f"unknown class {found.name or None!r}{did_you_mean(found.name, class_ids)}"
        raise Unusable("of an unknown class", unknown)
    return class_ids[found.name], found.box, found.difficult
