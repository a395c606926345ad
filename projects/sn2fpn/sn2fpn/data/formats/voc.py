"""The reader of Pascal VOC's XML files, in VOC's folders or beside their images, which returns data set dicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from ...errors import ArgumentError
from ..catalog import DatasetCatalog, MetadataCatalog
from ..files import PictureFolder, path_inside
from ..problems import Problems
from ..readings import read_once
from ..records import DatasetDicts, Records
from .found import add_objects, check_size, finish
from .source import CLASS_LIST, Source, choose_split, read_class_list
from .voc_files import find_ids, find_splits, find_voc_classes, is_plain, remark_nested, xml_of
from .voc_xml import count_ignored, parse_xml, read_objects, read_size, text_of

__all__ = ["VOC_CLASSES", "load_voc_instances", "read_voc", "read_voc_once", "register_pascal_voc"]

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
        ArgumentError: the name is not usable as the name of a folder, or is taken.
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

    The image of an id is `<id>.jpg`. If this file does not exist, it is `<id>` with another ending, or else the file
    that the XML file names. An image size that is missing or not positive is read from the image.

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
    root, name = Path(dirname), dataset_name or f"{Path(dirname).name} {split}"
    return _read_files(Source(name, root, split=split, allow_outside=allow_outside), class_names)


def read_voc_once(
    dirname: str | Path,
    split: str,
    class_names: Sequence[str] | None,
    dataset_name: str,
    *,
    allow_outside: bool = False,
) -> Records:
    """Read one split of a VOC folder unless this process has read it already; see `load_voc_instances` and `read_once`.

    The classes are those of `read_voc` if `class_names` is None.
    """
    classes = tuple(class_names) if class_names else None
    source = Source(dataset_name, Path(dirname), split=split, classes=classes, allow_outside=allow_outside)
    return read_once(dataset_name, read_voc, source)


def read_voc(source: Source) -> tuple[DatasetDicts, dict[str, Any]]:
    """Return data set dicts, and the classes as metadata; see `load_voc_instances`.

    Args:
        source: its `annotations` are VOC's folder, of which it needs the `split`, or a folder of XML files. These have
            their images in `images`, or else beside them, and no split. The images of VOC's folder are in `images`, or
            else in `JPEGImages`. Without `classes`, the classes are the lines of the file `classes.txt` in the folder,
            or else all names in the folder, sorted.
    """
    root = source.annotations
    if source.split is not None and is_plain(root):
        advice = "leave it out, or set ANNOTATIONS to the folder that has ImageSets/Main"
        raise ArgumentError("SPLIT", f"{root} is a folder of XML files without parts, found {source.split!r}; {advice}")
    if source.split is None and not is_plain(root) and (root / "Annotations").is_dir():
        splits = find_splits(root)
        if not splits:
            expected = f"a list in {root}/ImageSets/Main; or set ANNOTATIONS to {root}/Annotations and IMAGES"
            raise ArgumentError("SPLIT", f"expected {expected} to the folder of the images")
        source = source._replace(split=choose_split(source, splits))
    listed = source.classes or read_class_list(source.annotations / CLASS_LIST)
    classes = list(listed or find_voc_classes(source.annotations))
    return _read_files(source, classes), {"thing_classes": classes, "split": source.split}


def _read_files(source: Source, class_names: Sequence[str]) -> DatasetDicts:
    """Return data set dicts with the classes of `class_names`."""
    root = source.annotations
    plain = source.split is None and is_plain(root)
    annotations, images = (root, root) if plain else (root / "Annotations", root / "JPEGImages")
    pictures = PictureFolder(source.images or images, source.allow_outside)
    class_ids = {c: i for i, c in enumerate(class_names)}
    records: DatasetDicts = []
    ignored = Counter[str]()
    with Problems(f"data set {source.name!r}") as problems:
        for file_id in find_ids(source):
            xml_file = xml_of(annotations, file_id)
            try:
                path_inside(annotations, f"{file_id}.xml", source.allow_outside)
                tree = parse_xml(xml_file)
                record = _image(tree, pictures.find(file_id, text_of(tree, "filename")), file_id)
            except ValueError as e:
                problems.refuse(xml_file, str(e).removeprefix(f"{xml_file}: "))
                continue
            add_objects(record, read_objects(tree), class_ids, xml_file, problems)
            ignored += count_ignored(tree)
            records.append(record)
        if plain:
            remark_nested(root, problems)
        if ignored:
            shown = ", ".join(f"{tag!r} ({count})" for tag, count in ignored.most_common(5))
            problems.remark(annotations, f"XML elements that are not read: {shown}", is_note=True)
        finish(records, problems, source, class_names)
    return records


def _image(tree: Element, file_name: str, file_id: str) -> dict[str, Any]:
    """Return the data set dict of an image without its annotations."""
    height, width = check_size(*read_size(tree), file_name)
    return {"file_name": file_name, "image_id": file_id, "height": height, "width": width}
