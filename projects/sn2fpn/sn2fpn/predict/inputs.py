"""Find the files to predict on, and read pictures and videos."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from ..data import read_image
from ..errors import UserError

__all__ = ["Unreadable", "Video", "find_files", "is_video", "read_picture"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")

_CONFIG_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*|[\w.]+=.*")
"""What the KEY of KEY VALUE, and key=value, look like."""


class Unreadable(UserError):
    """A file cannot be decoded. Prediction goes on with the others."""


def find_files(inputs: Sequence[str], names: IO[str]) -> tuple[list[Path], list[str]]:
    """Return the files that `--input` stands for, in order and each once.

    Args:
        inputs: files; folders, which stand for their pictures and videos; patterns such as `images/*.jpg` or
            `**/*.png`; or "-", which stands for such names in `names`, one per line.
        names: the standard input.

    Returns:
        The files, and the inputs that match no file.

    Raises:
        UserError: there is no file at all, or there are configuration keys among the inputs.
    """
    given = [name for item in inputs for name in (names.read().splitlines() if item == "-" else [item]) if name.strip()]
    found: dict[Path, None] = {}
    missing: list[str] = []
    for name in given:
        files = _match(name)
        found |= dict.fromkeys(files)
        if not files:
            if name in inputs and _CONFIG_KEY.fullmatch(name):
                raise UserError(
                    f"--input: expected files, found the configuration key {name!r}; changes of keys come last, after "
                    "another flag, e.g. --input a.jpg --output out MODEL.DEVICE cpu"
                )
            missing.append(name)
    if not found:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        if shown:
            raise UserError(f"--input: no file matches {shown}")
        raise UserError("--input -: the standard input holds no file names")
    return list(found), missing


def _match(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES)
    if path.exists():  # This comes before patterns because the name of a file may hold brackets.
        return [path]
    return sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())  # noqa: PTH207


def is_video(path: Path) -> bool:
    """Return whether the name of a file ends as those of videos do."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_picture(path: Path) -> np.ndarray:
    """Return a picture upright in BGR order (array [H, W, 3] of uint8).

    Raises:
        Unreadable: the file cannot be decoded.
    """
    try:
        return read_image(path, "BGR")
    except UserError as e:
        raise Unreadable(str(e)) from None


class Video:
    """An iterable over the frames of a video file in BGR order (arrays [H, W, 3] of uint8).

    Attributes:
        fps: number of frames per second, or 25 if the file does not say.
        frames: number of frames that the file claims to have, or None if it does not say.
        frames_read: number of frames that have been read.

    Raises:
        Unreadable: the file is not a video, or OpenCV has no decoder for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file() or path.stat().st_size == 0:
            raise Unreadable(f"{path}: the video file is {'empty (0 bytes)' if path.is_file() else 'missing'}")
        self._capture = cv2.VideoCapture(str(path))
        fps, count = (self._capture.get(p) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if math.isfinite(fps) and fps > 0 else 25.0
        self.frames_read = 0
        self.frames = int(count) if math.isfinite(count) and count > 0 else None
        if not self._capture.isOpened():
            raise Unreadable(f"{path}: cannot be decoded as a video; it is damaged, or OpenCV lacks a decoder for it")

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
            raise Unreadable(f"{self.path}: no frame of the video can be decoded")
        if self.frames is not None and self.frames_read < 0.95 * self.frames:
            raise Unreadable(f"{self.path}: the video breaks off after {self.frames_read} of {self.frames} frames")
