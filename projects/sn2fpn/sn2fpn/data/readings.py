"""The readings of annotation files, which a process keeps so that a run parses each file once."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from .catalog import MetadataCatalog
from .problems import add_left_out, are_collected, count_left_out
from .records import DatasetDicts, Records, paused_collection

__all__ = ["depends_on", "read_once"]

_KEPT = 8  # number of readings, more than the data sets of nearly all runs

Stamp = tuple[int, ...] | None  # None: there is no such file


class _Reading(NamedTuple):
    """What was read, and the state of the files at that time."""

    records: Records
    metadata: dict[str, Any]
    left_out: Counter[str]
    stamps: dict[Path, Stamp]


_readings: OrderedDict[Any, _Reading] = OrderedDict()
_stamps: ContextVar[dict[Path, Stamp] | None] = ContextVar("stamps", default=None)


def depends_on(path: Path) -> None:
    """Note, before a file or folder is read, that the present reading depends on it."""
    if (stamps := _stamps.get()) is not None and path not in stamps:
        stamps[path] = _stamp(path)


def read_once(name: str, read: Callable[..., tuple[DatasetDicts, dict[str, Any]]], *args: Any) -> Records:
    """Read a data set, unless this process has read it already and no file has changed since.

    The warnings of a reader appear when it reads. While problems are collected, everything is read again.

    Args:
        name: the data set, which receives the metadata.
        read: the reader, which returns data set dicts and metadata, and calls `depends_on` for each file that it reads.
        args: the arguments of the reader, which must be hashable.
    """
    key = (name, read, *args)
    known = _readings.pop(key, None)
    if known is None or are_collected() or any(_stamp(path) != stamp for path, stamp in known.stamps.items()):
        known = None  # so that its memory is free for the new reading
        known = _read(read, *args)
    if not are_collected():
        _readings[key] = known
        while len(_readings) > _KEPT:
            _readings.popitem(last=False)
    add_left_out(known.left_out)
    MetadataCatalog.get(name).set(**known.metadata)
    return known.records


def _read(read: Callable[..., tuple[DatasetDicts, dict[str, Any]]], *args: Any) -> _Reading:
    stamps: dict[Path, Stamp] = {}
    token = _stamps.set(stamps)
    try:
        with paused_collection(), count_left_out() as left_out:
            records, metadata = read(*args)
            return _Reading(Records.of(_drain(records)), metadata, left_out, stamps)
    finally:
        _stamps.reset(token)


def _drain(records: DatasetDicts) -> Iterator[dict[str, Any]]:
    """Yield the items of a list while it is emptied, so that nothing is held twice."""
    records.reverse()
    while records:
        yield records.pop()


def _stamp(path: Path) -> Stamp:
    """Return what changes when a file is written or replaced, or a folder gets other files."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev
