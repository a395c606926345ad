"""The conversion of data sets, `python -m sn2fpn.data.convert IN --to coco|voc|yolo OUT`.

The command reads a data set in any format that this package knows, writes it into a new folder, reads the result again,
and prints what was there before and after, and what the new format cannot hold. Images are copied unless --link is
given. Nothing is overwritten, and after an error nothing is left behind.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import yaml
from tabulate import tabulate

from ..atomic import storage_errors
from ..command_line import CommandLineParser
from ..errors import UserError, argument_names
from ..program import run_program
from .files import check_files_exist
from .formats import AUTO, FORMATS, Place, Source
from .formats.writers import WRITERS, Output, Part, yolo_names
from .parts import parts_to_convert

__all__ = ["main", "parser"]

_FLAGS = {"SPLIT": "--split", "IMAGES": "--images", "CLASSES": "--classes"}


class _Set(NamedTuple):
    """A data set that has been read."""

    parts: list[Part]
    class_names: list[str]
    category_ids: list[int]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    args = parser().parse_args(argv)
    return run_program(lambda: _convert(args))


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    parser = CommandLineParser(
        prog="python -m sn2fpn.data.convert",
        description="Convert a data set. Images are copied; nothing is overwritten.",
        epilog="The exit code is 0 after a conversion and 2 for wrong usage or broken data.",
    )
    parser.add_argument("source", metavar="IN", type=Path, help="the annotation file or the folder of the data set")
    parser.add_argument("--to", required=True, choices=sorted(WRITERS), help="the format to write")
    parser.add_argument("target", metavar="OUT", type=Path, help="the new folder to write to")
    parser.add_argument(
        "--format", choices=[AUTO, *FORMATS], default=AUTO, help="the format to read (default: %(default)s)"
    )
    parser.add_argument("--images", metavar="FOLDER", type=Path, help="the folder of the images, if it is not found")
    parser.add_argument(
        "--split", nargs="+", metavar="NAME", help="the parts to convert, or the name of a part that has none"
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="the classes in order, for formats without a list")
    parser.add_argument("--masks", action="store_true", help="write YOLO's lines as polygons where an object has one")
    parser.add_argument("--link", action="store_true", help="make symbolic links to the images instead of copies")
    parser.add_argument("--allow-outside", action="store_true", help="let names of images lead outside of the folder")
    return parser


def _convert(args: argparse.Namespace) -> None:
    if args.masks and args.to != "yolo":
        raise UserError("--masks is for --to yolo; COCO files have masks in any case, and VOC files have none")
    if os.path.lexists(args.target):
        raise UserError(f"{args.target}: expected the name of a new folder; there is something of this name already")
    given = _read_all(args)
    with _new_folder(args.target) as folder:
        output = Output(folder, given.class_names, given.category_ids, args.link, args.masks)
        WRITERS[args.to](given.parts, output)
        names = [part.name for part in given.parts]
        written = _read_written(folder, args.to, yolo_names(names) if args.to == "yolo" else names)
    _report(given, written, args.to, output.lost)
    _print_entries(args.target, args.to, [part.name for part in written.parts])


def _read_all(args: argparse.Namespace) -> _Set:
    """Read all parts of the data set to convert."""
    places = parts_to_convert(args)
    parts = []
    for place, split in places:
        if args.classes and "CLASSES" not in FORMATS[place.format].keys:
            title = FORMATS[place.format].title
            raise UserError(f"--classes: files in the format {title} list their classes themselves")
        source = Source(
            str(args.source),
            place.annotations,
            args.images,
            split,
            tuple(args.classes) if args.classes else None,
            args.allow_outside,
        )
        name = place.split or split or (args.split or [_part_name(place)])[0]
        parts.append((name, *_read(place.format, source)))
    return _joined(parts)


def _read(data_format: str, source: Source) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    with argument_names(_FLAGS):
        records, metadata = FORMATS[data_format].read(source)
    check_files_exist(records)
    return records, metadata


def _joined(parts: list[tuple[str, list[dict[str, Any]], dict[str, Any]]]) -> _Set:
    """Return the parts of a data set, which have the same classes."""
    first_name, _, first = parts[0]
    for name, _, metadata in parts[1:]:
        if metadata["thing_classes"] != first["thing_classes"]:
            raise UserError(f"the parts {first_name!r} and {name!r} have different classes; convert one with --split")
    classes = first["thing_classes"]
    by_id = first.get("thing_dataset_id_to_contiguous_id") or {i + 1: i for i in range(len(classes))}
    ids = sorted(by_id, key=by_id.__getitem__)
    return _Set([Part(name, records) for name, records, _ in parts], classes, ids)


def _part_name(place: Place) -> str:
    """Return the name of a data set without parts, which is that of its file."""
    is_file = place.format in ("coco", "lvis")
    return place.annotations.stem.removeprefix("instances_").removeprefix("lvis_v1_") if is_file else "train"


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends without an error, and is removed otherwise."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{path.name[:48]}.", suffix=".part", dir=path.parent))
        try:
            yield building
            building.chmod(0o755)  # mkdtemp creates folders that other users cannot read
            if os.path.lexists(path):
                raise UserError(f"{path}: something of this name has appeared in the meantime; nothing is written")
            building.rename(path)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _read_written(folder: Path, data_format: str, names: Sequence[str]) -> _Set:
    """Read what was written, as its users will."""
    parts = []
    for name in names:
        file = folder / "annotations" / f"{name}.json" if data_format == "coco" else folder
        images = folder / "images" / name if data_format == "coco" else None
        source = Source(str(folder), file, images, None if data_format == "coco" else name)
        parts.append((name, *FORMATS[data_format].read(source)))
    return _joined(parts)


def _counts(data: _Set) -> Counter[str]:
    counts = Counter[str]()
    for part in data.parts:
        counts["images"] += len(part.records)
        for found in (found for record in part.records for found in record.get("annotations", ())):
            counts["objects"] += 1
            counts[f"  {data.class_names[found['category_id']]}"] += 1
            counts["crowd regions"] += found.get("iscrowd", 0)
            counts["difficult objects"] += found.get("difficult", 0)
            counts["masks"] += bool(found.get("segmentation"))
    return counts


def _report(given: _Set, written: _Set, data_format: str, lost: Counter[str]) -> None:
    """Print the numbers before and after, and what the format cannot hold."""
    before, after = _counts(given), _counts(written)
    classes = [f"  {name}" for name in given.class_names]
    rows = ["images", "objects", *classes, "crowd regions", "difficult objects", "masks"]
    table = [(row, before[row], after[row]) for row in rows]
    print(tabulate(table, headers=["", "before", "after"], tablefmt="simple"))
    if given.class_names != written.class_names:
        print(f"classes: {', '.join(written.class_names)} instead of {', '.join(given.class_names)}")
    title = FORMATS[data_format].title
    for what, count in lost.items():
        if count:
            print(f"{title} does not keep {count} {what}")
    for part, other in zip(given.parts, written.parts):
        if part.name != other.name:
            print(f"{title} has no part {part.name!r}, which is written as the part {other.name!r}")


def _print_entries(target: Path, data_format: str, names: Sequence[str]) -> None:
    """Print what the configuration says to use the data set."""
    print(f"written to {target}; use it with\nDATASETS:\n  CUSTOM:")
    for name in names:
        place = {"ANNOTATIONS": str(target), "SPLIT": name}
        if data_format == "coco":
            place = {"ANNOTATIONS": f"{target}/annotations/{name}.json", "IMAGES": f"{target}/images/{name}"}
        entry, style = {f"my_{name}": place}, {"default_flow_style": None, "width": sys.maxsize}  # on one line
        print(indent(yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, **style).rstrip(), "    "))


if __name__ == "__main__":
    sys.exit(main())
