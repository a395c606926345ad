"""The reader of COCO JSON files, which checks every item and returns data set dicts."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ArgumentError, UserError, counted, shortened
from ..catalog import DatasetCatalog, DatasetDicts, MetadataCatalog
from ..plausible import find_doubts
from ..problems import Problems, Unusable, log_once
from ..readings import read_once
from ..records import Records, paused_collection
from ..values import clean_name, read_whole
from .coco_images import LVIS_KEYS, CocoImages, file_name_of
from .coco_objects import convert_annotation
from .json_file import list_of_objects, read_json
from .source import Source

__all__ = ["load_coco_json", "read_categories", "read_coco", "read_coco_once", "read_lvis", "register_coco_instances"]

logger = logging.getLogger(__name__)

_FILE = "a COCO instances file"


def register_coco_instances(
    name: str, metadata: dict[str, Any], json_file: str | Path, image_root: str | Path, *, allow_outside: bool = False
) -> None:
    """Register a data set in COCO's JSON format. Its files are read when the data set is used.

    Args:
        name: the name of the data set, for instance for `DATASETS.TRAIN`.
        metadata: additional metadata; may be empty.
        json_file: the annotation file.
        image_root: the folder that the file names in the annotation file are relative to.
        allow_outside: accept file names that lead outside of `image_root`.

    Raises:
        ArgumentError: the name is not usable as the name of a folder, or is taken.
    """
    DatasetCatalog.register(name, lambda: read_coco_once(json_file, image_root, name, allow_outside=allow_outside))
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="coco", **metadata
    )


def load_coco_json(
    json_file: str | Path, image_root: str | Path, dataset_name: str | None = None, *, allow_outside: bool = False
) -> DatasetDicts:
    """Read a COCO instances file.

    Category ids are mapped to contiguous ids 0, 1, … in their order, and images are sorted by id. Boxes without a valid
    position and boxes of unknown images or categories are skipped with a warning. Boxes and polygons that reach beyond
    the image are clipped with a warning. A malformed mask is dropped with a warning, and its box is kept. An object
    without a box gets the tight box around its mask. Errors that make images or boxes ambiguous are refused.

    Ids, sizes and flags may be numbers or text. An image size that is missing or not positive is read from the image.

    Args:
        json_file: the annotation file. If it has no `annotations`, neither have the data set dicts, which are then good
            for prediction only.
        image_root: the folder that the file names in the annotation file are relative to.
        dataset_name: the data set whose metadata receives `thing_classes` and the mapping of ids.
        allow_outside: accept file names that lead outside of `image_root`.

    Raises:
        UserError: the file is missing or truncated, a part is missing or wrong, ids of images or categories repeat, or
            a file name leads outside of `image_root`.
    """
    source = Source(
        dataset_name or Path(json_file).name, Path(json_file), Path(image_root), allow_outside=allow_outside
    )
    with paused_collection():
        records, metadata = read_coco(source)
    if dataset_name is not None:
        MetadataCatalog.get(dataset_name).set(**metadata)
    return records


def read_coco_once(
    json_file: str | Path, image_root: str | Path, dataset_name: str, *, allow_outside: bool = False
) -> Records:
    """Read a COCO instances file unless this process has read it already; see `load_coco_json` and `read_once`."""
    source = Source(dataset_name, Path(json_file), Path(image_root), allow_outside=allow_outside)
    return read_once(dataset_name, read_coco, source)


def read_coco(source: Source) -> tuple[DatasetDicts, dict[str, Any]]:
    """Return data set dicts, and the class names and the mapping of ids as metadata; see `load_coco_json`.

    Args:
        source: its `annotations` are the file. Without `images`, the folder of the images is the first one of those
            near the file that has the first image.
    """
    path = source.annotations
    return _convert(source, read_json(path, "a COCO file, which is an object with images, annotations and categories"))


def read_lvis(source: Source) -> tuple[DatasetDicts, dict[str, Any]]:
    """Return the data set dicts and the metadata of an LVIS file as `read_coco` does.

    The data set dicts have LVIS's `neg_category_ids` and `not_exhaustive_category_ids`, in the ids of the file. Images
    without a `file_name` are found by the last two parts of their `coco_url`, such as "val2017/000000397133.jpg".

    Raises:
        UserError: see `load_coco_json`; or no image has `neg_category_ids`.
    """
    path = source.annotations
    content = read_json(path, "an LVIS file, which is an object with images, annotations and categories")
    if not any(LVIS_KEYS[0] in image for image in list_of_objects(content, "images", path, _FILE)):
        raise UserError(f"{path}: no image has {LVIS_KEYS[0]!r}, which LVIS files have; use FORMAT coco")
    records, metadata = _convert(source, content)
    log_once(logger, f"{path}: LVIS files are evaluated by COCO's metric, which counts unchecked classes as absent")
    return records, metadata


def _convert(source: Source, content: dict[str, Any]) -> tuple[DatasetDicts, dict[str, Any]]:
    path = source.annotations
    images = list_of_objects(content, "images", path, _FILE)
    annotations = list_of_objects(content, "annotations", path, _FILE) if "annotations" in content else None
    id_map, names = _categories(list_of_objects(content, "categories", path, _FILE), path)
    image_root = source.images or _find_image_root(path, images)
    kept = total = 0
    with Problems(f"data set {source.name!r}") as problems:
        records = CocoImages(path, image_root, source.allow_outside, problems)
        records.read(images, annotated=annotations is not None)
        if annotations is not None:
            total = len(annotations)
            kept = _read_annotations(annotations, records, id_map, path, problems)
        found = records.in_order()
        for doubt in find_doubts(found):
            problems.remark(path, doubt)
    if total and found and not kept:
        raise UserError(
            f"{path}: none of its {counted(total, 'annotation')} is usable; "
            "check that its images, categories and annotations belong together"
        )
    objects = counted(kept, "box", "boxes") if annotations is not None else "no annotations (for prediction only)"
    sizes = counted(len(found), "image"), objects, counted(len(names), "class", "classes")
    log_once(logger, f"{path}: {', '.join(sizes)}")
    return found, {"thing_classes": names, "thing_dataset_id_to_contiguous_id": id_map}


def read_categories(json_file: str | Path) -> tuple[dict[int, int], list[str]]:
    """Read the mapping from category ids to contiguous ids of a COCO instances file, and the class names in that order.

    Raises:
        UserError: the file is missing or truncated, or the categories are missing or wrong.
    """
    path = Path(json_file)
    return _categories(list_of_objects(read_json(path, _FILE), "categories", path, _FILE), path)


def _find_image_root(path: Path, images: list[dict[str, Any]]) -> Path:
    """Return the folder near an annotation file that has its first image.

    Raises:
        ArgumentError: there is none.
    """
    name = next((name for image in images if (name := file_name_of(image))), None)
    folders = list(dict.fromkeys([path.parent, path.parent / "images", *_folders_of_split(path)]))
    for folder in folders:
        if name is not None and os.path.isfile(folder / name):  # noqa: PTH113 - a name that is too long is no error here
            return folder
    looked_in = ", ".join(map(str, folders))
    raise ArgumentError("IMAGES", f"expected the folder of the images of {path}; {name!r} is in none of {looked_in}")


def _folders_of_split(path: Path) -> list[Path]:
    """Return where the images of `annotations/instances_val2017.json` or of `val2017.json` may lie."""
    above, names = path.absolute().parent.parent, (path.stem, path.stem.rpartition("_")[2])
    images = [base / "images" / name for base in (above, path.parent) for name in names]
    return [*images, above / "images", *(base / name for base in (above, path.parent) for name in names)]


def _categories(categories: list[dict[str, Any]], path: Path) -> tuple[dict[int, int], list[str]]:
    """Return the mapping from category ids to contiguous ids, and the class names in that order."""
    names: dict[int, str] = {}
    for i, category in enumerate(categories):
        cid, name = read_whole(category.get("id")), category.get("name")
        name = clean_name(name) if isinstance(name, str) else ""
        if cid is None or not name:
            expected = "an 'id', which is a whole number of at most 64 bits, and a 'name'"
            raise UserError(f"{path}: categories[{i}] needs {expected}, found {shortened(str(category))}")
        if cid in names:
            raise UserError(f"{path}: category id {cid} is given to both {names[cid]!r} and {name!r}")
        names[cid] = name
    if not names:
        raise UserError(f"{path}: has no categories")
    repeated = [name for name, times in Counter(names.values()).items() if times > 1]
    if repeated:
        ids = [str(cid) for cid, name in names.items() if name == repeated[0]]
        raise UserError(
            f"{path}: the category name {repeated[0]!r} is given to the ids {' and '.join(ids)}, so that their results "
            "cannot be told apart; rename one of them, or give the objects of both the same category_id and remove the "
            "other category"
        )
    return {cid: i for i, cid in enumerate(sorted(names))}, [names[cid] for cid in sorted(names)]


def _read_annotations(
    annotations: list[dict[str, Any]], images: CocoImages, id_map: Mapping[int, int], path: Path, problems: Problems
) -> int:
    """Append the valid annotations to the data set dicts of their images, and return their number.

    The list of annotations is emptied on the way, so that nothing is held twice.
    """
    problems.objects = len(annotations)
    seen: set[Any] = set()
    kept = ignored = 0
    for i, annotation in enumerate(annotations):
        annotations[i] = {}
        ann_id = annotation.get("id")
        if isinstance(ann_id, (int, str)):
            if ann_id in seen:
                reason = f"{_label(annotation, i)}: the id occurs more than once; all boxes with it are kept"
                problems.change(path, reason, "repeated")
            seen.add(ann_id)
        try:
            record = images.find(annotation.get("image_id"))
        except KeyError:
            reason = f"refers to image {annotation.get('image_id')!r}, which is not in 'images'"
            problems.leave_out(path, _label(annotation, i), Unusable("of an unknown image", reason))
            continue
        if record is None:  # the image is refused, which its objects need not repeat
            continue
        try:
            converted, changes = convert_annotation(annotation, id_map, record["height"], record["width"])
        except Unusable as e:
            problems.leave_out(path, _label(annotation, i, record), e)
            continue
        for what, kind in changes:
            problems.change(path, f"{_label(annotation, i, record)}: {what}", kind)
        record["annotations"].append(converted)
        kept += 1
        ignored += converted.get("difficult", 0)
    if ignored:
        objects = counted(ignored, "object has", "objects have")
        problems.remark(path, f"{objects} 'ignore', which is read as VOC's 'difficult'", is_note=True)
    return kept


def _label(annotation: Mapping[str, Any], index: int, record: Mapping[str, Any] | None = None) -> str:
    """Return the name of an annotation, and of its image if it is known, for messages."""
    ann_id = annotation.get("id")
    label = f"annotation {ann_id}" if isinstance(ann_id, (int, str)) else f"annotations[{index}]"
    return label if record is None else f"{label} (image {record['image_id']!r}, {record['file_name']})"
