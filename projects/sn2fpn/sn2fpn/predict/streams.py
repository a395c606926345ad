"""Cameras and network streams as sources of frames."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import cv2
import numpy as np

from ..errors import UserError, did_you_mean
from .names import printable

__all__ = ["Stream", "StreamAddress", "Unreadable", "stream_address"]

logger = logging.getLogger(__name__)

_SCHEMES = ("rtsp", "http", "https")
_TIMEOUT_MS = 10_000
_PAUSES_S = (1.0, 2.0, 4.0)
"""How long is waited before each attempt to open a broken stream again."""


class Unreadable(UserError):
    """An input cannot be decoded. Prediction goes on with the others."""


class StreamAddress:
    """The address of a camera (`camera:0`) or of a network stream.

    Passwords and tokens in it stay out of `str(address)`, and thereby out of messages and written files.

    Attributes:
        source: what OpenCV opens, the number of a camera or the whole address.
        stem: a file name for the drawing, without its end.
    """

    def __init__(self, text: str) -> None:
        self.source: int | str
        if text.startswith("camera:"):
            self.source, self._shown = int(text.removeprefix("camera:")), text
        else:
            parts = urlsplit(text)
            place = f"{f':{parts.port}' * bool(parts.port)}{parts.path}"
            if "@" in text.partition("://")[2].removeprefix(parts.netloc):
                place = ""  # which may be the end of a password with a / ? or # in it
            self.source, self._shown = text, f"{parts.scheme}://{parts.hostname or ''}{place}"
        self.stem = re.sub(r"[^\w.-]+", "-", self._shown.partition("://")[2] or self._shown).strip("-.") or "stream"

    def __str__(self) -> str:
        return self._shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StreamAddress) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)


def stream_address(name: str) -> StreamAddress | None:
    """Return the address that an input is, or None if it is the name of a file.

    Raises:
        UserError: the input looks like an address but is none that can be opened.
    """
    scheme, separator, rest = name.partition("://")
    if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        if scheme.lower() not in _SCHEMES:
            near = did_you_mean(scheme.lower(), _SCHEMES)
            raise UserError(f"--input {printable(scheme)}://…: no stream can be opened by {printable(scheme)}{near}")
        try:
            address = StreamAddress(name)
        except ValueError:  # whose text may hold a part of a password
            expected = "expected one such as rtsp://user:password@host:554/path, with %2F for a / in a password"
            raise UserError(f"--input {printable(scheme)}://…: the address is malformed; {expected}") from None
        if not rest or not urlsplit(name).hostname or not name.isprintable():
            raise UserError(
                f"--input {printable(str(address))}: expected an address with a host, such as rtsp://host/path"
            )
        return address
    if name.startswith("camera:"):
        if not re.fullmatch(r"camera:\d{1,4}", name):
            raise UserError(f"--input {printable(name)}: expected camera: and the number of a camera, such as camera:0")
        return StreamAddress(name)
    return None


class Stream:
    """An iterable over the frames of a camera or a network stream in BGR order (arrays [H, W, 3] of uint8).

    A network stream that breaks off is opened again, up to three times in a row. A file on a server then begins anew,
    and the frames that have been read are passed over. A frame that does not have the size of the first one is scaled
    to it, because the drawing is a video of one size.

    Attributes:
        fps: number of frames per second, or 25 if the source does not say.
        frames: number of frames that the source claims to have, or None if it does not say.
        frames_read: number of frames that have been read.

    Args:
        address: the address.

    Raises:
        Unreadable: the source cannot be opened.
    """

    def __init__(self, address: StreamAddress) -> None:
        self.address = address
        self._capture = self._open()
        if not self._capture.isOpened():
            hint = "there is no such camera, or another program uses it"
            if isinstance(address.source, str):
                hint = f"nothing answers there within {_TIMEOUT_MS // 1000} s, or it is no video stream"
            raise Unreadable(f"{address}: cannot be opened; {hint}")
        fps, count = (self._capture.get(p) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if math.isfinite(fps) and 1 <= fps <= 240 else 25.0
        self.frames = int(count) if math.isfinite(count) and count > 0 else None
        self.frames_read = 0
        self._size: tuple[int, int] | None = None

    def _open(self) -> cv2.VideoCapture:
        source = self.address.source
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # Our message says it, without a password.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        if isinstance(source, int):
            return cv2.VideoCapture(source)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            while (frame := self._next()) is not None:
                self.frames_read += 1
                self._size = self._size or frame.shape[1::-1]
                yield frame if frame.shape[1::-1] == self._size else cv2.resize(frame, self._size)
        finally:
            self._capture.release()

    def _next(self) -> np.ndarray | None:
        """Return the next frame, after opening a broken stream again if that is needed; None is the end."""
        there, frame = self._capture.read()
        if there:
            return frame
        if isinstance(self.address.source, int) or self._is_complete():
            return None
        for pause in _PAUSES_S:
            logger.warning("%s: broke off after %d frames; it is opened again", self.address, self.frames_read)
            time.sleep(pause)
            self._capture.release()
            self._capture = self._open()
            there, frame = self._capture.read() if self._goes_on() else (False, None)
            if there:
                return frame
        return None

    def _goes_on(self) -> bool:
        """Return whether the stream is open; a file, which begins anew, is brought behind the frames that were read."""
        passed = self.frames_read if self.frames is not None else 0
        return self._capture.isOpened() and all(self._capture.grab() for _ in range(passed))

    def _is_complete(self) -> bool:
        """Return whether the source is a file on a server that has been read to its end."""
        return self.frames is not None and self.frames_read >= 0.95 * self.frames

    def check_complete(self) -> None:
        """Raise Unreadable unless the source is a file on a server that has been read to its end."""
        if not self._is_complete():
            raise Unreadable(f"{self.address}: no frame came any more after {self.frames_read} frames")
