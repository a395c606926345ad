"""The annotations of test sets inside a study, so that its results can be scored where the data set is not at hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...data import DatasetCatalog, MetadataCatalog, dataset_fingerprint
from ...errors import UserError
from ..files import read_json, write_json

__all__ = ["save_test_set", "annotations_file", "use_stored_test_set"]

logger = logging.getLogger(__name__)

_METADATA = ("thing_classes", "thing_dataset_id_to_contiguous_id", "evaluator_type", "year", "split")

_FORM = {
    "fingerprint": str,
    "metadata": {"thing_classes": [str], "evaluator_type": str, "thing_dataset_id_to_contiguous_id": [[int]]},
    "records": [
        {
            **{"file_name": str, "image_id": int | str, "height": int, "width": int},
            "annotations": [{"bbox": [float], "bbox_mode": int, "category_id": int}],
        }
    ],
}


def annotations_file(folder: Path, name: str) -> Path:
    """Return the file in a study's folder that holds the annotations of a test set."""
    return folder / "data" / f"{quote(name, safe='[]:')}.json"


def save_test_set(name: str, folder: Path) -> Path:
    """Write the annotations of a registered test set into a study's folder; the pictures are not copied.

    Run lengths as bytes become text, and arrays become lists.

    Raises:
        UserError: the data set is unknown or cannot be read, or JSON has no form for one of its values.
    """
    records = [record | {"file_name": Path(record["file_name"]).name} for record in DatasetCatalog.get(name)]
    metadata = MetadataCatalog.get(name).as_dict()
    about = {key: metadata[key] for key in _METADATA if key in metadata}
    if ids := about.get("thing_dataset_id_to_contiguous_id"):
        about["thing_dataset_id_to_contiguous_id"] = [[own, contiguous] for own, contiguous in ids.items()]
    path = annotations_file(folder, name)
    content = {"name": name, "fingerprint": dataset_fingerprint(records), "metadata": about, "records": records}
    try:
        write_json(path, content, indent=None, default=_in_json)
    except (TypeError, ValueError) as e:  # ValueErrors are about bytes that are no text
        raise UserError(f"data set {name!r}: expected values that can be written as JSON: {e}") from None
    return path


def _in_json(value: Any) -> Any:
    """Return run lengths, arrays and numbers of NumPy in a form that JSON has."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"found {type(value).__name__}")


def use_stored_test_set(name: str, folder: Path) -> str:
    """Return the name under which the annotations that a study stores of a test set are registered.

    The annotations in the study's folder decide, since they are those that the cells were scored with. Pictures are
    taken from the data set of this name on this machine if its annotations are the same. Without a stored file, the
    result is `name` itself.
    """
    content = read_json(annotations_file(folder, name), _FORM)
    if not content:
        return name
    try:
        records, metadata = content["records"], dict(content["metadata"])
        found = dataset_fingerprint(records)
        if found != content.get("fingerprint", found):
            raise ValueError("the annotations do not have the fingerprint that was stored with them")
        ids = metadata.pop("thing_dataset_id_to_contiguous_id", [])
        mapping = {"thing_dataset_id_to_contiguous_id": dict(ids)} if ids else {}
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as e:
        raise UserError(f"{annotations_file(folder, name)}: expected the annotations of a test set: {e!r}") from None
    registered = f"{name} ({found})"
    if registered not in DatasetCatalog:
        _borrow_pictures(records, name, found)
        DatasetCatalog.register(registered, lambda: records)
        MetadataCatalog.get(registered).set(**metadata, **mapping)
    return registered


def _borrow_pictures(records: list[dict[str, Any]], name: str, fingerprint: str) -> None:
    """Let the records name the image files of the data set on this machine, if it is there and the same."""
    try:
        here = DatasetCatalog.get(name)
    except UserError as e:
        logger.info("%s: the pictures of this data set are not at hand: %s", name, e)
        return
    if dataset_fingerprint(here) != fingerprint:
        logger.warning("%s: the data set on this machine differs from the one that the study used", name)
        return
    for record, other in zip(records, here, strict=True):
        record["file_name"] = other["file_name"]
