"""What to predict on: names, patterns and folders -> files; files -> pictures."""

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

_CONFIG_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*|[\w.]+=.*")  # KEY (VALUE), key=value


class Unreadable(UserError):
    """A file that cannot be decoded; the others still can."""


def find_files(inputs: Sequence[str], names: IO[str]) -> tuple[list[Path], list[str]]:
    """The files that `--input` means, in order, each once.

    Args:
        inputs: files; folders (their pictures and videos); patterns such as `images/*.jpg` or `**/*.png`; or "-"
            for names (files, folders, patterns) in `names`, one a line.
        names: the standard input.

    Returns:
        The files, and those inputs that match no file.

    Raises:
        UserError: no file at all; or KEY VALUE pairs among the inputs.
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
                    f"--input: found {name!r}, a config key: changes of keys come last, after another "
                    "flag, e.g. --input a.jpg --output out MODEL.DEVICE cpu"
                )
            missing.append(name)
    if not found:
        said = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UserError("--input: no file matches " + said if said else "--input -: no file names in standard input")
    return list(found), missing


def _match(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES)
    if path.exists():  # before patterns: a file's name may hold brackets
        return [path]
    return sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())  # noqa: PTH207


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_picture(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8 BGR, upright.

    Raises:
        Unreadable: not decodable.
    """
    try:
        return read_image(path, "BGR")
    except UserError as e:
        raise Unreadable(str(e)) from None


class Video:
    """The frames of a video file, (H, W, 3) uint8 BGR, by OpenCV.

    Attributes:
        fps: frames per second; 25 where the file does not say.
        frames: how many the file says it has; None where it does not.
        frames_read: so far.

    Raises:
        Unreadable: not a video, or no decoder for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file() or path.stat().st_size == 0:
            raise Unreadable(f"{path}: video file is {'empty (0 bytes)' if path.is_file() else 'missing'}")
        self._capture = cv2.VideoCapture(str(path))
        fps, count = (self._capture.get(p) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if math.isfinite(fps) and fps > 0 else 25.0
        self.frames_read = 0
        self.frames = int(count) if math.isfinite(count) and count > 0 else None
        if not self._capture.isOpened():
            raise Unreadable(f"{path}: not decodable as a video; it is damaged, or OpenCV has no decoder for its codec")

    def __iter__(self) -> Iterator[np.ndarray]:
        while (answer := self._capture.read())[0]:
            self.frames_read += 1
            yield answer[1]
        self._capture.release()

    def check_complete(self) -> None:
        """After the last frame: raise Unreadable if the file promised more (containers may be off by a few)."""
        if self.frames_read == 0:
            raise Unreadable(f"{self.path}: no frame of the video can be decoded")
        if self.frames is not None and self.frames_read < 0.95 * self.frames:
            raise Unreadable(f"{self.path}: the video breaks off after {self.frames_read} of {self.frames} frames")
