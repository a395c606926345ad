"""Fetch checkpoint files by https into a folder of their own, and notice when a fetched file changes afterwards.

Neither pooch nor torch.hub does this work, because a server may redirect both of them to plain http. Besides, pooch
compares whole hashes only, while torchvision publishes the first digits of its hashes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

from ..atomic import DAY_S, atomic_write, remove_leftovers
from ..errors import ArgumentError
from ..locks import LocksUnsupportedError, locked
from .model_names import fetch_timm, torchvision_url

__all__ = ["fetch"]

logger = logging.getLogger(__name__)

_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
_TORCHVISION_HOST = "download.pytorch.org"  # Its file names end with the first digits of their SHA-256.
_TIMEOUT_S = 60  # without any data
_CHUNK = 2**20
_LONGEST_NAME = 150  # characters; file systems allow 255 bytes, and the names of temporary files are longer


def fetch(address: str) -> Path:
    """Return the local file of an address, which is fetched once and then kept.

    The file lies in `$FVCORE_CACHE/sn2fpn/` (by default `~/.torch/iopath_cache/sn2fpn/`), in a folder for its address,
    under the last part of the address. Its SHA-256 is written beside it at the first fetch and compared at each use. A
    file of torchvision must have the hash in its name. Processes that need the same file wait for the one that
    fetches, if the file system has locks.

    Args:
        address: `https://…`; `detectron2://…` for a name in Detectron2's store; `torchvision://…` for a name of
            torchvision's weights, such as `torchvision://ResNet50_Weights.IMAGENET1K_V2`; or `timm://…` for a model of
            timm, such as `timm://convnext_tiny` or, with a tag, `timm://convnext_tiny.in12k_ft_in1k`, which its own
            hub keeps in its cache.

    Raises:
        ArgumentError: the address is of another kind or names no file, it cannot be fetched, or the file has another
            hash than it should have.
    """
    try:
        return _fetch(address)
    except ArgumentError:
        raise
    except (OSError, HTTPException, ValueError) as error:  # urllib refuses odd addresses with a ValueError.
        raise ArgumentError(
            "path",
            f"cannot fetch {_resolve(address)}: {getattr(error, 'reason', error)}. "
            "Download the file by other means and give the local file instead",
        ) from error


def _fetch(address: str) -> Path:
    if address.lower().startswith("timm://"):
        return _unchanged(fetch_timm(address.partition("://")[2]))
    cache = Path(os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")).expanduser()
    url = _resolve(address)
    earlier = cache / "detectron2" / url.removeprefix(_DETECTRON2)
    if url.startswith(_DETECTRON2) and earlier.is_file():  # Detectron2 itself keeps the files of its names there.
        return earlier
    target = cache / "sn2fpn" / hashlib.sha256(url.encode()).hexdigest()[:16] / _file_name(url)
    if not target.is_file():  # a cache that holds the file may be one that cannot be written
        with ExitStack() as held:
            alone = _lock(target, held)
            if not target.is_file():
                _download(url, target, alone)
    if _sha256(target) != _record(target).read_text(encoding="ascii"):
        raise ArgumentError(
            "path", f"{target} has changed since it was fetched from {url}. Delete it, and it is fetched again"
        )
    return target


def _lock(target: Path, held: ExitStack) -> bool:
    """Lock a file until `held` is closed, and return whether its file system has locks.

    Without locks, two processes may fetch the file at the same time, each to a temporary file of its own.
    """
    try:
        held.enter_context(locked(target.with_name(f"{target.name}.lock")))
    except LocksUnsupportedError:
        return False
    return True


def _resolve(address: str) -> str:
    """Return the https address that an address stands for."""
    scheme, _, rest = address.partition("://")
    if scheme.lower() == "detectron2":
        if any(part in ("", ".", "..") for part in rest.split("/")):
            raise ArgumentError(
                "path", f"{address} is no name in Detectron2's store; expected detectron2://FOLDER/FILE"
            )
        return _DETECTRON2 + rest
    if scheme.lower() == "torchvision":
        return torchvision_url(rest)
    if scheme.lower() != "https":
        raise ArgumentError(
            "path",
            f"cannot read the address {address}; files are fetched from https://, detectron2://, torchvision:// and "
            "timm:// only",
        )
    return address


def _file_name(url: str) -> str:
    name = re.sub(r"[^\w.+-]", "_", PurePosixPath(unquote(urlsplit(url).path)).name)[-_LONGEST_NAME:]
    if not name.strip("."):
        raise ArgumentError("path", f"the address {url} names no file")
    return name


class _HttpsRedirects(HTTPRedirectHandler):
    """Follows redirects to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith("https://"):
            raise URLError(f"the server redirects to {newurl}, but files are fetched by https only")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_HANDLERS: tuple[Any, ...] = (_HttpsRedirects,)


def _download(url: str, target: Path, alone: bool) -> None:
    """Write the file and, before it, the record of its hash, so that a file never lacks its record.

    Args:
        url: the https address.
        target: the file to write.
        alone: whether no other process fetches it now, so that temporary files are those of killed processes.
    """
    remove_leftovers(target.parent, age_s=0 if alone else DAY_S)
    logger.info("Fetching %s to %s", url, target)
    digest = hashlib.sha256()
    with build_opener(*_HANDLERS).open(url, timeout=_TIMEOUT_S) as response, atomic_write(target, "wb") as file:
        while chunk := response.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
        if response.length:
            raise OSError(f"the connection ended when {response.length} bytes were missing")
        _check_known_hash(url, digest.hexdigest())
        with atomic_write(_record(target)) as record:
            record.write(digest.hexdigest())


def _check_known_hash(url: str, found: str) -> None:
    known = re.search(r"-([0-9a-f]{8,64})\.\w+$", urlsplit(url).path)
    if urlsplit(url).hostname == _TORCHVISION_HOST and known and not found.startswith(known.group(1)):
        raise ArgumentError(
            "path",
            f"the content of {url} has the SHA-256 {found[:16]}…, expected one that starts with {known.group(1)}",
        )


def _unchanged(file: Path) -> Path:
    """Return a file of the hub's cache, whose files have their SHA-256 as their names, after a check of its content."""
    blob = file.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob) and _sha256(file) != blob:
        raise ArgumentError("path", f"{file} has changed since it was fetched. Delete it, and it is fetched again")
    return file


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
