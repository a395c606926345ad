"""Tests of cameras and streams: a server on this machine, a fake camera, and addresses of all kinds."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from sn2fpn.errors import UserError
from sn2fpn.predict import streams
from sn2fpn.predict.inputs import Video, find_files
from sn2fpn.predict.streams import Stream, StreamAddress, Unreadable, stream_address

Predict = Callable[..., int]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_PAUSES_S", (0.0, 0.0))


class _Mjpeg(BaseHTTPRequestHandler):
    """Sends four JPEG frames to each visitor, up to the number of visits in `visits`."""

    visits: ClassVar[list[str]] = []
    most = 1

    def do_GET(self) -> None:
        self.visits.append(self.path)
        if len(self.visits) > self.most:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for i in range(4):
            frame = np.full((48, 64, 3), 40 * i, dtype=np.uint8)
            data = cv2.imencode(".jpg", frame)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, *_: Any) -> None:
        pass


class _Cut(BaseHTTPRequestHandler):
    """Sends a file, whose second half is missing up to the number of visits in `cuts`."""

    content = b""
    cuts = 0

    def do_GET(self) -> None:
        type(self).cuts -= 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: len(self.content) // 2] if self.cuts >= 0 else self.content)

    def log_message(self, *_: Any) -> None:
        pass


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """A function that starts a server on this machine and returns its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(handler: Any) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _frames(folder: Path) -> list[int]:
    images = json.loads((folder / "predictions.json").read_text())["images"]
    return [image["frame"] for image in images]


def test_a_video_on_a_server_is_read_to_its_end(
    predict: Predict, video: Path, tmp_path: Path, serve: Callable[[Any], str]
) -> None:
    address = f"{serve(partial(_Quiet, directory=video.parent))}/clip.avi"
    assert predict([address + "?token=secret"], score_threshold=0) == 0
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {image["file_name"] for image in content["images"]} == {address}
    (drawing,) = {image["drawing"] for image in content["images"]}
    assert _frames(tmp_path / "out") == list(range(6)) and drawing.endswith("clip.avi.mp4")
    assert len(list(Video(tmp_path / "out" / drawing))) == 6
    assert "secret" not in "".join(p.name for p in (tmp_path / "out").iterdir())


@pytest.mark.parametrize(("cuts", "whole"), [(1, True), (99, False)])
def test_a_video_on_a_server_that_breaks_off_goes_on_where_it_was(
    video: Path, serve: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch, cuts: int, whole: bool
) -> None:
    monkeypatch.setattr(_Cut, "content", video.read_bytes())
    monkeypatch.setattr(_Cut, "cuts", cuts)
    stream, expected = Stream(StreamAddress(f"{serve(_Cut)}/clip.avi")), list(Video(video))
    found = list(stream)
    assert (len(found) == len(expected)) == whole and 0 < len(found) == stream.frames_read
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
    with nullcontext() if whole else pytest.raises(Unreadable, match="no frame came any more"):
        stream.check_complete()


@pytest.mark.parametrize(("most", "frames"), [(1, 4), (3, 12)])
def test_a_stream_that_breaks_off_is_opened_again(
    predict: Predict,
    tmp_path: Path,
    serve: Callable[[Any], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    frames: int,
) -> None:
    monkeypatch.setattr(_Mjpeg, "visits", [])
    monkeypatch.setattr(_Mjpeg, "most", most)
    address = serve(_Mjpeg) + "/live"
    assert predict([address], score_threshold=0) == 1
    said = capsys.readouterr().err
    assert f"{address}: no frame came any more after {frames} frames" in said and "it is opened again" in said
    assert _frames(tmp_path / "out") == list(range(frames))
    assert not list((tmp_path / "out").glob(".*"))


def test_the_number_of_frames_is_limited(
    predict: Predict, video: Path, tmp_path: Path, serve: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Mjpeg, "visits", [])
    assert predict([serve(_Mjpeg) + "/live", video], max_frames=3) == 0
    assert _frames(tmp_path / "out") == [0, 1, 2] * 2
    assert {len(list(Video(p))) for p in (tmp_path / "out").glob("*.mp4")} == {3}
    assert predict([video], max_frames=-1) == 2


_VIDEO_CAPTURE = cv2.VideoCapture


class _Camera:
    """A camera with the number 7, whose third frame has another size. Files are opened as they are by OpenCV."""

    at: ClassVar[Callable[[int], None]] = staticmethod(lambda _: None)

    def __new__(cls, source: int | str, *more: Any) -> Any:
        return super().__new__(cls) if isinstance(source, int) else _VIDEO_CAPTURE(source, *more)

    def __init__(self, source: int | str, *_: Any) -> None:
        self._open, self._number = source == 7, 0

    def isOpened(self) -> bool:
        return self._open

    def get(self, _: int) -> float:
        return -1.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._number += 1
        type(self).at(self._number)
        return True, np.full((30, 40, 3) if self._number == 3 else (48, 64, 3), 90, np.uint8)

    def release(self) -> None:
        self._open = False


def test_a_camera(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sn2fpn.predict.streams.cv2.VideoCapture", _Camera)
    assert predict(["camera:7"], max_frames=5) == 0
    monkeypatch.undo()
    assert len(list(Video(tmp_path / "out/camera-7.mp4"))) == 5
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert {(i["file_name"], i["height"], i["width"]) for i in images} == {("camera:7", 48, 64)}
    monkeypatch.setattr("sn2fpn.predict.streams.cv2.VideoCapture", _Camera)
    assert predict(["camera:8"]) == 1
    assert "camera:8: cannot be opened; there is no such camera" in capsys.readouterr().err


def test_ctrl_c_ends_a_camera_with_complete_files(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sn2fpn.predict.streams.cv2.VideoCapture", _Camera)
    monkeypatch.setattr(_Camera, "at", staticmethod(lambda n: os.kill(os.getpid(), signal.SIGINT) if n == 6 else None))
    assert predict(["camera:7"]) == 130
    monkeypatch.undo()
    assert len(list(Video(tmp_path / "out/camera-7.mp4"))) == 5
    assert _frames(tmp_path / "out") == list(range(5))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rstp://host/path", "no stream can be opened by rstp; did you mean 'rtsp'"),
        ("ftp://host/a.mp4", "no stream can be opened by ftp"),
        ("camera:front", "expected camera: and the number"),
        ("camera:", "expected camera: and the number"),
        ("http://", "expected an address with a host"),
        ("http://[::1/a", "malformed"),
        ("rtsp://user:secret@host:port/a", "malformed"),
        ("rtsp://user:se#cret@host/live", "malformed; expected one such as rtsp://user:password@host:554/path"),
    ],
)
def test_addresses_that_cannot_be_opened(name: str, words: str) -> None:
    with pytest.raises(UserError) as e:
        stream_address(name)
    assert words in str(e.value) and "se#cret" not in str(e.value) and "secret" not in str(e.value)


def test_files_are_no_addresses_and_secrets_stay_out() -> None:
    assert str(stream_address("rtsp://admin:12/secret@cam/live")) == "rtsp://admin"  # a / that is not encoded
    assert [stream_address(n) for n in ("a.jpg", "/x/camera", "C:/x.png", "cameras:0", "key=rtsp:1", "-")] == [None] * 6
    address = stream_address("rtsp://user:secret@Host:8554/cam 1/../live?token=secret#x")
    assert str(address) == "rtsp://host:8554/cam 1/../live" and "secret" in str(address.source)
    assert address.stem == "host-8554-cam-1-..-live" and "/" not in StreamAddress("http://h/" + "../" * 9).stem
    assert stream_address("camera:3").source == 3


def test_commands_that_need_files_refuse_streams() -> None:
    with pytest.raises(UserError, match="expected files, found rtsp://host/live"):
        find_files(["rtsp://user:secret@host/live"], io.StringIO())
