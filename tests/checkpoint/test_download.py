"""Test what is fetched, where it is kept, and what is refused. A local server takes the place of the internet."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler

import numpy as np
import pytest

from sn2fpn.checkpoint import download, load_file
from sn2fpn.checkpoint.download import fetch
from sn2fpn.errors import UserError

_CONTENT = pickle.dumps({"model": {"a.weight": np.ones(3, np.float32)}})
_HASH = hashlib.sha256(_CONTENT).hexdigest()
_MARKER = "sn2fpn_download_executed"


class _Attack:
    def __reduce__(self) -> Any:
        return open, (_MARKER, "w")


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        name = self.path.rpartition("/")[2]
        if name.startswith("redirect"):
            self.send_response(302)
            self.send_header("Location", self.server.target)
            self.end_headers()
            return
        if name == "missing.pkl":
            self.send_error(404)
            return
        content = pickle.dumps({"a": _Attack()}) if name == "evil.pkl" else _CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + 10 * (name == "cut.pkl")))
        self.end_headers()
        if name == "slow.pkl":
            time.sleep(0.3)
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A server for all https addresses; `requests` lists what was asked for, redirects lead to `target`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.requests, server.target = [], ""

        def connect(_host: str, **options: Any) -> HTTPConnection:
            return HTTPConnection(*server.server_address, timeout=options.get("timeout"))

        class Https(HTTPSHandler):
            def https_open(self, req: Any) -> Any:
                return self.do_open(connect, req)

        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(download, "_HANDLERS", (*download._HANDLERS, Https))
        monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield server
        server.shutdown()


def _files(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_a_file_is_fetched_once_and_lies_under_its_own_name(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    checkpoint = load_file("https://host/a/b/w.pkl?download=1")
    assert checkpoint.model["a.weight"].tolist() == [1, 1, 1]
    assert checkpoint.path.name == "w.pkl" and checkpoint.path.parents[1] == tmp_path / "cache/sn2fpn"
    assert fetch("https://host/a/b/w.pkl?download=1") == checkpoint.path
    assert server.requests == ["/a/b/w.pkl?download=1"]
    assert fetch("https://host/other/w.pkl") != checkpoint.path
    assert _files(tmp_path) == {"w.pkl", "w.pkl.sha256"}


@pytest.mark.parametrize(
    "address",
    [
        "https://host/../../../../escaped.pkl",
        "https://host/..%2f..%2f..%2f..%2fescaped.pkl",
        "https://host/a/%2e%2e/%2e%2e/escaped.pkl",
        "https://host/x/..\\..\\escaped.pkl",
        "https://host/" + "n" * 400 + "escaped.pkl",
    ],
)
def test_no_address_leads_out_of_the_folder(server: ThreadingHTTPServer, tmp_path: Path, address: str) -> None:
    path = fetch(address)
    assert path.parents[1] == tmp_path / "cache/sn2fpn" and path.resolve() == path
    assert path.name.endswith("escaped.pkl") and len(path.name) <= 150


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://host/w.pkl", "https://, detectron2://, torchvision:// and timm:// only"),
        ("ftp://host/w.pkl", "https://, detectron2://, torchvision:// and timm:// only"),
        ("file:///etc/passwd", "https://, detectron2://, torchvision:// and timm:// only"),
        ("FILE:///etc/../etc/passwd", "https://, detectron2://, torchvision:// and timm:// only"),
        ("s3://bucket/model.pkl", "https://, detectron2://, torchvision:// and timm:// only"),
        ("detectron2://a/../../b.pkl", "no name in Detectron2's store"),
        ("detectron2:///etc/passwd", "no name in Detectron2's store"),
        ("https://host/", "names no file"),
        ("https://host/a/..", "names no file"),
        ("https://host/missing.pkl", r"cannot fetch https://host/missing\.pkl: .*local file"),
        ("https://host/cut.pkl", r"cannot fetch https://host/cut\.pkl: .*10 bytes were missing"),
        ("https://[broken/w.pkl", "cannot fetch"),
    ],
)
def test_addresses_that_are_refused(server: ThreadingHTTPServer, tmp_path: Path, address: str, words: str) -> None:
    with pytest.raises(UserError, match=f"^path: .*{words}"):
        load_file(address)
    assert _files(tmp_path) == set()
    assert bool(server.requests) == ("cannot fetch https" in words)


@pytest.mark.parametrize("target", ["http://host/w.pkl", "ftp://host/w.pkl", "file:///etc/passwd"])
def test_redirects_lead_to_https_only(server: ThreadingHTTPServer, tmp_path: Path, target: str) -> None:
    server.target = target
    with pytest.raises(UserError, match=rf"^path: cannot fetch .*[Rr]edirect\w* to .*{target}"):
        fetch("https://host/redirect.pkl")
    assert server.requests == ["/redirect.pkl"] and _files(tmp_path) == set()
    server.target = "https://other/w.pkl"
    assert fetch("https://host/redirect.pkl").read_bytes() == _CONTENT


def test_what_is_fetched_is_read_safely(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="refused"):
        load_file("https://host/evil.pkl")
    assert not (tmp_path / _MARKER).exists()


def test_a_file_that_has_changed_is_named(server: ThreadingHTTPServer) -> None:
    path = fetch("https://host/w.pkl")
    assert path.with_name("w.pkl.sha256").read_text() == _HASH
    path.write_bytes(_CONTENT + b"x")
    with pytest.raises(UserError, match=rf"{path} has changed since it was fetched.*Delete it"):
        fetch("https://host/w.pkl")
    path.unlink()
    assert fetch("https://host/w.pkl").read_bytes() == _CONTENT


def test_torchvision_files_must_have_the_hash_in_their_name(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    good, bad = (f"https://download.pytorch.org/models/resnet18-{digits}.pth" for digits in (_HASH[:8], "f37072fd"))
    assert fetch(good).read_bytes() == _CONTENT
    with pytest.raises(UserError, match="starts with f37072fd"):
        fetch(bad)
    assert "resnet18-f37072fd.pth" not in _files(tmp_path)
    assert fetch(bad.replace("download.pytorch.org", "host")).read_bytes() == _CONTENT  # may be a date there


def test_an_interrupted_download_leaves_no_broken_file(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_check_known_hash", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch("https://host/w.pkl")
    assert _files(tmp_path) == set()
    folder = next((tmp_path / "cache/sn2fpn").iterdir())
    (folder / ".w.pkl.abcdefgh.part").write_bytes(b"of a process that was killed")
    fetch("https://host/w.pkl")
    assert _files(tmp_path) == {"w.pkl", "w.pkl.sha256"}


def test_a_file_of_a_cache_that_cannot_be_written_is_used(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch("https://host/w.pkl")

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(download, "locked", refuse)
    assert fetch("https://host/w.pkl") == path


def test_a_file_system_without_locks(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may fetch the same file at this time, so that its temporary file stays."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    fetch("https://host/w.pkl")
    target = next((tmp_path / "cache/sn2fpn").rglob("w.pkl"))
    target.unlink()
    other = target.parent / ".w.pkl.abcdefgh.part"
    other.touch()
    assert fetch("https://host/w.pkl").read_bytes() == _CONTENT and other.exists()


def test_processes_at_once_fetch_once(server: ThreadingHTTPServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(fetch, ["https://host/slow.pkl"] * 4))
    assert len(paths) == 1 and server.requests == ["/slow.pkl"]


def test_detectron2_names_and_the_files_that_detectron2_keeps(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    assert fetch("detectron2://ImageNetPretrained/MSRA/R-50.pkl").read_bytes() == _CONTENT
    assert server.requests == ["/detectron2/ImageNetPretrained/MSRA/R-50.pkl"]
    theirs = Path(os.environ["FVCORE_CACHE"]) / "detectron2/ImageNetPretrained/MSRA/R-101.pkl"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(_CONTENT)
    assert fetch("detectron2://ImageNetPretrained/MSRA/R-101.pkl") == theirs
    assert len(server.requests) == 1


def test_names_of_torchvisions_weights_are_checked_by_their_hash(server: ThreadingHTTPServer) -> None:
    with pytest.raises(UserError, match=r"resnet50-11ad3fa6\.pth has the SHA-256 .* starts with 11ad3fa6"):
        fetch("torchvision://ResNet50_Weights.IMAGENET1K_V2")
    assert server.requests == ["/models/resnet50-11ad3fa6.pth"]
    with pytest.raises(UserError, match=r"fasterrcnn_resnet50_fpn_coco-258fb6c6\.pth has the SHA-256"):
        fetch("torchvision://FasterRCNN_ResNet50_FPN_Weights.COCO_V1")
    for wrong in ("ResNet50_Weights.IMAGENET1K_V3", "ResNet50_Weigths.IMAGENET1K_V2"):
        with pytest.raises(UserError, match=r"torchvision has no weights .*; did you mean 'ResNet50_Weights\."):
            fetch(f"torchvision://{wrong}")


def test_names_of_timms_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    import huggingface_hub

    blob, asked = tmp_path / "blobs" / _HASH, []
    blob.parent.mkdir()
    blob.write_bytes(_CONTENT)
    (tmp_path / "model.safetensors").symlink_to(blob)

    def download_file(repository: str, name: str) -> str:
        asked.append((repository, name))
        if name != "model.safetensors":
            raise OSError("no such file")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download_file)
    for name, repository in (("convnext_tiny.fb_in1k", "timm/convnext_tiny.fb_in1k"), ("resnet18", "timm/resnet18.")):
        assert load_file(f"timm://{name}").model["a.weight"].tolist() == [1, 1, 1]
        assert asked[-1][0].startswith(repository) and asked[-1][1] == "model.safetensors"
    blob.write_bytes(_CONTENT + b"x")
    with pytest.raises(UserError, match="has changed since it was fetched"):
        fetch("timm://resnet18")
    with pytest.raises(UserError, match=r"no pretrained model 'convnext_tinny'; did you mean 'convnext_tiny'"):
        fetch("timm://convnext_tinny")
    with pytest.raises(UserError, match=r"no pretrained model 'resnet18\.a1_in2k'; did you mean 'resnet18\.a1_in1k'"):
        fetch("timm://resnet18.a1_in2k")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: 1 / 0)
    with pytest.raises(UserError, match=r"cannot fetch model.safetensors of timm/resnet18.*Download the file by other"):
        fetch("timm://resnet18")
