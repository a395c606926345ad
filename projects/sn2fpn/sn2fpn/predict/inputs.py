"""Find the files to predict on, and read pictures and videos."""

from __future__ import annotations

import glob
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from ..data import read_image
from ..data.files import is_hidden
from ..errors import UserError, nearby_files
from .names import shown
from .streams import StreamAddress, Unreadable, stream_address

__all__ = ["Source", "Unreadable", "Video", "check_utf8", "find_files", "find_sources", "is_video", "read_picture"]

Source = Path | StreamAddress

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
VIDEO_SUFFIXES += (".3gp", ".m2ts", ".mts", ".ts")  # of phones, camcorders and television
_MOST_FPS = 10_000  # some files give the 90,000 ticks of their clock in place of a rate

_CONFIG_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*|[\w.]+=.*")
"""What the KEY of KEY VALUE, and key=value, look like."""


def find_files(inputs: Sequence[str], names: IO[str]) -> tuple[list[Path], list[str]]:
    """Return the files that `--input` stands for, in order and each once; see `find_sources`.

    Raises:
        UserError: see `find_sources`; or there is a camera or stream among the inputs.
    """
    sources, missing = find_sources(inputs, names)
    for source in sources:
        if isinstance(source, StreamAddress):
            raise UserError(f"--input: expected files, found {source}")
    return [source for source in sources if isinstance(source, Path)], missing


def find_sources(
    inputs: Sequence[str], names: IO[str], recursive: bool = False, leave_out: Path | None = None
) -> tuple[dict[Source, Path], list[str]]:
    """Return the files and streams that `--input` stands for, in order and each once.

    Args:
        inputs: files; folders, which stand for their pictures and videos except hidden ones; patterns such as
            `images/*.jpg` or `**/*.png`; cameras and addresses of streams; or "-", which stands for such names in
            `names`, one per line.
        names: the standard input.
        recursive: whether folders also stand for what is in their sub-folders. Links to folders are not followed.
        leave_out: a folder that is not looked into.

    Returns:
        The sources, each with the sub-folder that it was found in, and the inputs that match no file, each with the
        reason if there is a special one.

    Raises:
        UserError: there is no source at all, an address is none that can be opened, or there are configuration keys
            among the inputs.
    """
    given = [name for item in inputs for name in (_read_names(names) if item == "-" else [item]) if name.strip()]
    found: dict[Source, Path] = {}
    missing: list[str] = []
    for name in given:
        try:
            address = stream_address(name)
            look = _Look(recursive, leave_out)
            sources: dict[Source, Path] = {address: Path()} if address else dict(look.match(name))
            missing += [f"{shown(e.filename)} ({e.strerror})" for e in look.closed]
            reason = "" if sources else look.why_nothing(Path(name).expanduser())
        except UserError:
            raise
        except (OSError, ValueError, RuntimeError) as e:  # The name is too long, its folder is not readable, ...
            sources, reason = {}, getattr(e, "strerror", None) or str(e)
        found |= {source: sub for source, sub in sources.items() if source not in found}
        if not sources:
            if name in inputs and _CONFIG_KEY.fullmatch(name):
                raise UserError(
                    f"--input: expected files, found the configuration key {name!r}; changes of keys come last, after "
                    "another flag, e.g. --input a.jpg --output out MODEL.DEVICE cpu"
                )
            missing.append(shown(name) + (f" ({reason})" if reason else ""))
    if not found:
        examples = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        if examples:
            raise UserError(f"--input: no file matches {examples}")
        if "-" in inputs:
            raise UserError("--input -: the standard input holds no file names")
        raise UserError("--input: expected the names of files, found an empty text")
    return found, missing


def _read_names(names: IO[str] | None) -> list[str]:
    """Return the lines of the standard input. They are file names, which may be in any encoding."""
    if names is None:  # The standard input is closed.
        return []
    text = os.fsdecode(names.buffer.read()) if hasattr(names, "buffer") else names.read()
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]


class _Look:
    """Looks for files: what the names of inputs stand for.

    Args:
        recursive: whether folders also stand for what is in their sub-folders.
        leave_out: a folder that is not looked into.

    Attributes:
        closed: the errors of sub-folders that cannot be read.
    """

    def __init__(self, recursive: bool, leave_out: Path | None) -> None:
        self.recursive, self.leave_out = recursive, leave_out
        self.closed: list[OSError] = []

    def match(self, name: str) -> Iterator[tuple[Path, Path]]:
        """Yield the files that a name stands for, each with its sub-folder inside of the folder of that name.

        Raises:
            OSError: the name is that of a folder that cannot be read.
        """
        path = Path(name).expanduser()
        if path.is_dir():
            yield from self._inside(path)
        elif path.exists():  # This comes before patterns because the name of a file may hold brackets.
            yield path, Path()
        else:
            found = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
            yield from ((file, Path()) for file in sorted(p for p in found if not p.is_dir()))

    def _inside(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        """Yield the pictures and videos in a folder, those of sub-folders last, without hidden files and folders."""

        def note(error: OSError) -> None:
            if error.filename == str(folder):
                raise error
            self.closed.append(error)

        for root, folders, files in os.walk(folder, onerror=note):
            here = Path(root)
            folders[:] = sorted(f for f in folders if self.recursive and not self._left_out(here / f))
            for name in sorted(files):
                if Path(name).suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and not is_hidden(name):
                    yield here / name, here.relative_to(folder)

    def _left_out(self, folder: Path) -> bool:
        return is_hidden(folder.name) or (self.leave_out is not None and _same(folder, self.leave_out))

    def why_nothing(self, path: Path) -> str:
        """Return what is special about an input that stands for nothing, or what its name may have been meant to be."""
        if not path.is_dir():
            near = "" if glob.has_magic(str(path)) else nearby_files(path, "*.*").removeprefix("; ")
            return near if near.startswith("did you mean") else ""  # a list of all files helps nobody
        below = not self.recursive and next(_Look(True, self.leave_out)._inside(path), None)
        hint = "; --recursive also takes those of its sub-folders" if below else ""
        return f"the folder holds no pictures and no videos{hint}"


def _same(folder: Path, other: Path) -> bool:
    return os.path.realpath(folder) == os.path.realpath(other)


def is_video(source: Source) -> bool:
    """Return whether a source has frames: the name of a file ends as those of videos do, or it is a stream."""
    return isinstance(source, StreamAddress) or source.suffix.lower() in VIDEO_SUFFIXES


def read_picture(path: Path) -> np.ndarray:
    """Return a picture upright in BGR order (array [H, W, 3] of uint8). What is odd about it is logged.

    Raises:
        Unreadable: the file cannot be decoded.
    """
    _check_kind(path)
    with warnings.catch_warnings(record=True) as odd:  # Pillow warns about very large and damaged files.
        warnings.simplefilter("always")
        try:
            image = read_image(path, "BGR")
        except UserError as e:
            raise Unreadable(str(e).replace(str(path), shown(path))) from None
    for message in dict.fromkeys(str(w.message) for w in odd):
        logger.warning("%s: %s", path, message)
    return image


def _check_kind(path: Path) -> None:
    """Refuse devices and pipes, which may have no end, and what the system does not let us look at."""
    try:
        unusual = path.exists() and not path.is_file()
    except OSError as e:
        raise Unreadable(f"{shown(path)}: {e.strerror or e}") from None
    if unusual:
        raise Unreadable(f"{shown(path)}: expected a regular file, found a device or a pipe")


class Video:
    """An iterable over the frames of a video file in BGR order (arrays [H, W, 3] of uint8).

    Attributes:
        fps: number of frames per second, or 25 if the file does not say or claims more than a camera takes.
        frames: number of frames that the file claims to have, or None if it does not say.
        frames_read: number of frames that have been read.

    Raises:
        Unreadable: the file is not a video, or OpenCV has no decoder for it.
    """

    def __init__(self, path: Path) -> None:
        self.path, name = path, shown(path)
        _check_kind(path)
        if not path.is_file() or path.stat().st_size == 0:
            raise Unreadable(f"{name}: the video file is {'empty (0 bytes)' if path.is_file() else 'missing'}")
        check_utf8(path)
        self._capture = cv2.VideoCapture(str(path.absolute()))  # a name with a colon would be an address
        fps, count = (self._capture.get(p) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if math.isfinite(fps) and 0 < fps <= _MOST_FPS else 25.0
        self.frames_read = 0
        self.frames = int(count) if math.isfinite(count) and count > 0 else None
        if not self._capture.isOpened():
            raise Unreadable(f"{name}: cannot be decoded as a video; it is damaged, or OpenCV lacks a decoder for it")

    def __iter__(self) -> Iterator[np.ndarray]:
        while (answer := self._capture.read())[0]:
            self.frames_read += 1
            yield answer[1]
        self._capture.release()

    def check_complete(self) -> None:
        """Raise Unreadable if the file claims to have more frames than could be read.

        A few frames fewer are accepted because containers do not count exactly.
        """
        if self.frames_read == 0:
            raise Unreadable(f"{shown(self.path)}: no frame of the video can be decoded")
        if self.frames is not None and self.frames_read < 0.95 * self.frames:
            raise Unreadable(
                f"{shown(self.path)}: the video breaks off after {self.frames_read} of {self.frames} frames"
            )


def check_utf8(path: Path) -> None:
    """Refuse a video whose name is not UTF-8, because OpenCV ends the whole process over it.

    Raises:
        Unreadable: the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise Unreadable(
            f"{shown(path)}: OpenCV reads and writes videos only under names in UTF-8; rename it"
        ) from None
