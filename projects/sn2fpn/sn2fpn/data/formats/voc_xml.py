"""The parsing of single Pascal VOC XML files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ...errors import UserError
from ..problems import Unusable
from ..readings import depends_on
from ..values import clean_name, read_flag, read_whole
from .found import Found, FoundObject

__all__ = ["count_ignored", "parse_xml", "read_objects", "read_size", "text_of"]

_KNOWN = {  # elements of VOC and of common tools that hold no objects, by the element that contains them
    "annotation": {"folder", "filename", "path", "source", "owner", "size", "segmented", "object"},
    "object": {
        *("name", "pose", "truncated", "difficult", "occluded", "bndbox", "part", "point", "actions"),
        *("deleted", "verified", "date", "id", "attributes", "confidence", "score"),
    },
}


def parse_xml(path: Path) -> Element:
    """Parse an XML file, and remove the namespaces of its elements.

    Raises:
        UserError: the file is missing, not well-formed or declares entities.
    """
    depends_on(path)
    try:
        tree = fromstring(path.read_bytes(), forbid_dtd=False, forbid_entities=True, forbid_external=True)
    except FileNotFoundError:
        raise UserError(f"{path}: annotation file does not exist") from None
    except ParseError as e:
        raise UserError(f"{path}: not readable as XML: {e}") from None  # the message has line and column
    except DefusedXmlException as e:
        raise UserError(f"{path}: entity declarations are not allowed in annotation files ({e})") from None
    except (OSError, RecursionError, ValueError, LookupError) as e:  # e.g. the encoding does not exist or does not fit
        raise UserError(f"{path}: not readable as XML: {e}") from None
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
    return tree


def read_size(tree: Element) -> tuple[int, int]:
    """Return the (height, width) of the image, with 0 for what is not a whole number."""
    size = tree.find("size")
    height, width = (0 if size is None else read_whole(text_of(size, key)) or 0 for key in ("height", "width"))
    return height, width


def read_objects(tree: Element) -> Iterator[Found]:
    """Yield every object with a label for messages; an object with several boxes becomes one object per box.

    An object that has no valid box is yielded as the reason.
    """
    for i, element in enumerate(tree.findall("object"), 1):
        name = text_of(element, "name") or ""
        label = f"object {i} ({name or 'no name'})"
        boxes = element.findall("bndbox")
        if not boxes:
            yield label, Unusable("without a box", "it has no bndbox")
        for j, box in enumerate(boxes, 1):
            try:
                found: FoundObject | Unusable = FoundObject(name, _box(box), flags={"difficult": _difficult(element)})
            except Unusable as e:
                found = e
            yield label if len(boxes) == 1 else f"{label}, box {j}", found


def count_ignored(tree: Element) -> Counter[str]:
    """Count the elements of a file that the reader does not know, by their names, such as "object/polygon"."""
    found = Counter(child.tag for child in tree if child.tag not in _KNOWN["annotation"])
    for element in tree.findall("object"):
        found.update(f"object/{child.tag}" for child in element if child.tag not in _KNOWN["object"])
    return found


def text_of(element: Element, tag: str) -> str | None:
    """Return the text of a child on one line, or None if the child or its text is missing."""
    return clean_name(element.findtext(tag) or "") or None


def _difficult(element: Element) -> int:
    try:
        return int(read_flag(text_of(element, "difficult"), "difficult"))
    except ValueError as e:
        raise Unusable("with an unclear difficult", str(e)) from None


def _box(bndbox: Element) -> tuple[float, ...]:
    texts = [text_of(bndbox, key) for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(t or "") for t in texts)
    except ValueError:
        reason = f"bndbox {texts} (xmin, ymin, xmax, ymax) is not four numbers"
        raise Unusable("without a valid box", reason) from None
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))) or xmax <= xmin - 1 or ymax <= ymin - 1:
        raise Unusable("without area", f"bndbox {texts} (xmin, ymin, xmax, ymax) has no area")
    return xmin - 1.0, ymin - 1.0, xmax, ymax
