"""The images of COCO files, which annotations refer to by id."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..files import path_inside
from ..images import read_image_size
from ..masks import MAX_PIXELS
from ..problems import Problems
from ..records import DatasetDicts
from ..values import read_whole

__all__ = ["LVIS_KEYS", "CocoImages", "file_name_of"]

LVIS_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")
"""What LVIS says about an image: classes that it surely lacks, and classes that are not marked on all their objects."""


def file_name_of(image: dict[str, Any]) -> str | None:
    """Return the name of an image's file, or None if there is none.

    LVIS gives an address instead, whose last two parts are the folder and the file.
    """
    name, url = image.get("file_name"), image.get("coco_url")
    if not name and isinstance(url, str):
        name = "/".join(url.split("/")[-2:])
    return name if isinstance(name, str) and name else None


class CocoImages:
    """The images of a COCO file as data set dicts, which annotations are looked up in by image id.

    Args:
        path: the annotation file, for messages.
        root: the folder of the images.
        allow_outside: see `load_coco_json`.
        problems: receives the images that are refused.
    """

    def __init__(self, path: Path, root: Path, allow_outside: bool, problems: Problems) -> None:
        self._path, self._root, self._allow_outside, self._problems = path, root, allow_outside, problems
        self._records: dict[int | str, dict[str, Any] | None] = {}  # None: the image is refused
        self._by_number: dict[int, int | str] = {}

    def read(self, images: list[dict[str, Any]], annotated: bool) -> None:
        """Convert the images; with `annotated`, their data set dicts get an empty list of annotations."""
        for i, image in enumerate(images):
            image_id = self._like_first(_image_id(image.get("id")))
            try:
                self._check_id(image_id, image, f"images[{i}]")
                record = self._convert(image_id, image)
            except ValueError as e:
                if image_id is not None:
                    self._records.setdefault(image_id, None)
                self._problems.refuse(self._path, str(e))
                continue
            self._records[image_id] = record | ({"annotations": []} if annotated else {})
        numbers = [(read_whole(i), i) for i in self._records if isinstance(i, str)]
        times = Counter(number for number, _ in numbers)
        self._by_number = {number: i for number, i in numbers if number is not None and times[number] == 1}

    def find(self, image_id: Any) -> dict[str, Any] | None:
        """Return the data set dict of an image, or None if the image is refused.

        Raises:
            KeyError: there is no such image.
        """
        found = _image_id(image_id)
        if found in self._records:
            return self._records[found]
        number = read_whole(image_id)
        return self._records[number if number in self._records else self._by_number[number]]

    def in_order(self) -> DatasetDicts:
        """Return the data set dicts by ascending image id."""
        order = sorted(self._records, key=lambda i: (isinstance(i, str), i))
        return [self._records[i] for i in order if self._records[i] is not None]

    def _check_id(self, image_id: int | str | None, image: dict[str, Any], label: str) -> None:
        file_name = file_name_of(image)
        if image_id is None or file_name is None:
            found = f"id {image.get('id')!r}, file_name {image.get('file_name')!r}"
            expected = "an 'id', which is a whole number of at most 64 bits or a text, and a 'file_name'"
            raise ValueError(f"{label} needs {expected}, found {found}")
        if image_id in self._records:
            other = self._records[image_id] or {"file_name": "an image that is refused"}
            names = f"{other['file_name']} and {self._root / file_name}"
            raise ValueError(f"image id {image_id!r} is given to both {names}")
        first = next(iter(self._records), image_id)
        if type(first) is not type(image_id):
            raise ValueError(f"{label} has the id {image_id!r}, but the first id is {first!r}; use numbers or text")

    def _like_first(self, image_id: int | str | None) -> int | str | None:
        """Return an id as a number or as text like the first id, if it can be, because evaluation sorts the ids."""
        first = next(iter(self._records), image_id)
        if isinstance(first, str):
            return image_id if image_id is None else str(image_id)
        number = read_whole(image_id) if isinstance(first, int) else None
        return image_id if number is None else number

    def _convert(self, image_id: int | str | None, image: dict[str, Any]) -> dict[str, Any]:
        """Convert one image. A ValueError says why it is unusable."""
        label = f"image {image_id!r}"
        try:
            file_name = path_inside(self._root, file_name_of(image) or "", self._allow_outside)
        except ValueError as e:
            raise ValueError(f"{label}: {e}") from None
        height, width = (read_whole(image.get(key)) or 0 for key in ("height", "width"))
        if height < 1 or width < 1:
            try:
                height, width = read_image_size(file_name)
            except UserError as e:
                found = f"width {image.get('width')!r} and height {image.get('height')!r}"
                raise ValueError(f"{label} has {found}, and its size cannot be read from the image: {e}") from None
        if height * width > MAX_PIXELS:
            raise ValueError(f"{label} has {width}x{height} pixels, expected at most {MAX_PIXELS}")
        more = {key: image[key] for key in LVIS_KEYS if key in image}
        return {"file_name": file_name, "height": height, "width": width, "image_id": image_id, **more}


def _image_id(value: Any) -> int | str | None:
    """Return the id of an image, which may be text; whole numbers such as 1.0 become integers."""
    return value if isinstance(value, str) else read_whole(value)
