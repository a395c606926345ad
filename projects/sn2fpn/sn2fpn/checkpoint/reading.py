"""Checkpoint files as data: found (or fetched), read without executing anything, reduced to one form."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError, did_you_mean
from .names import detect_format, to_detectron2_names
from .unpickle import RefusedGlobal, safe_torch_load, safe_unpickle

__all__ = ["Checkpoint", "find_file", "load_file"]

_DETECTRON2_URL = "https://dl.fbaipublicfiles.com/detectron2/"
_LEGACY_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # the number that starts torch's older files


@dataclass
class Checkpoint:
    """What a file holds.

    Attributes:
        path: the local file.
        format: whose names the file uses: "detectron2" (ours are the same), "caffe2" or "torchvision".
        model: Detectron2's names -> tensors.
        original_names: Detectron2's name -> the name in the file.
        rest: everything else: optimizer, scheduler, iteration …
    """

    path: Path
    format: str
    model: dict[str, Tensor]
    original_names: dict[str, str]
    rest: dict[str, Any] = field(default_factory=dict)


def load_file(path: str | Path, where: str = "MODEL.WEIGHTS") -> Checkpoint:
    """Read a checkpoint: ours, Detectron2's (.pth, .pkl), Caffe2's (.pkl) or a torchvision ResNet state dict.

    The format is found from the content, not from the file's name.

    Args:
        path: a file, or a URL (`detectron2://`, `https://`), which is fetched once and then cached.
        where: the key or flag that names the file, for messages.

    Raises:
        UserError: no such file, a damaged one, one that asks for code to be run, or one without weights.
    """
    file = find_file(path, where)
    data = _read(file, where)
    if not isinstance(data, dict):
        raise UserError(f"{where}: {file} holds a {type(data).__name__}, expected a dict of named tensors")
    weights: Any = data
    if isinstance(data.get("model"), dict):
        weights = data["model"]
    elif isinstance(data.get("blobs"), dict):  # detection models of Caffe2's Detectron
        weights = data["blobs"]
    tensors = {str(k): v for k, v in weights.items() if isinstance(v, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(data)[:8])) or "nothing"
        raise UserError(f"{where}: no weights in {file}: expected named tensors, found {keys}")
    if all(name.startswith("module.") for name in tensors):  # saved from inside DistributedDataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    naming = detect_format(tensors, str(data.get("__author__", "")))
    model, originals = to_detectron2_names(tensors, naming)
    rest = {} if weights is data else {k: v for k, v in data.items() if v is not weights}
    return Checkpoint(file, naming, model, originals, rest)


def find_file(path: str | Path, where: str = "MODEL.WEIGHTS") -> Path:
    """The local file for a path or URL. Raises UserError when there is none."""
    scheme = re.match(r"([A-Za-z0-9+]+)://", str(path))
    if scheme:
        return _fetch(str(path), scheme.group(1).lower(), where)
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        inside = sorted(p.name for p in file.iterdir() if p.suffix in (".pth", ".pkl"))
        hint = did_you_mean("model_final.pth", inside)
        raise UserError(f"{where}: {file} is a folder, expected a file in it{hint}")
    folder = file.parent
    if not folder.is_dir():
        raise UserError(f"{where}: no such file: {file} (there is no folder {folder})")
    inside = sorted(p.name for p in folder.iterdir() if p.suffix in (".pth", ".pkl"))
    raise UserError(f"{where}: no such file: {file}{did_you_mean(file.name, inside)}")


def _fetch(url: str, scheme: str, where: str) -> Path:
    from iopath.common.file_io import HTTPURLHandler, PathManager

    known = ("detectron2", "http", "https")
    if scheme not in known:
        raise UserError(f"{where}: cannot read the address {url}{did_you_mean(scheme, known)}")
    address = _DETECTRON2_URL + url[len("detectron2://") :] if scheme == "detectron2" else url
    manager = PathManager()
    manager.register_handler(HTTPURLHandler())
    try:
        return Path(manager.get_local_path(address))
    except (OSError, HTTPException) as error:
        raise UserError(
            f"{where}: cannot fetch {address}: {error}. "
            f"Download the file by other means and set {where} to the local file"
        ) from error


def _read(file: Path, where: str) -> Any:
    """The content of `file`: tensors, arrays and plain types."""
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_LEGACY_TORCH))
            stream.seek(0)
            if not start:
                raise EOFError("the file is empty")
            if start.startswith(b"PK") or start == _LEGACY_TORCH:
                return safe_torch_load(file)
            return safe_unpickle(stream)
    except OSError as error:
        raise UserError(f"{where}: cannot read {file}: {error.strerror or error}") from error
    except RefusedGlobal as error:
        raise UserError(
            f"{where}: {file} is refused: it names {error}, and weights need only arrays and plain types. "
            "Nothing of it was executed. Save the weights as a plain dict of tensors"
        ) from error
    except Exception as error:  # whatever a broken stream leads the readers to
        reason = re.split(r"\n|\. ", str(error).strip())[0][:200] or type(error).__name__
        raise UserError(f"{where}: {file} is damaged or no checkpoint: {reason}") from error
