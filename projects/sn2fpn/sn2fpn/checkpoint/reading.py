"""Find or fetch checkpoint files, read them without executing anything, and bring them into one form."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ArgumentError, UserError, did_you_mean
from .download import fetch
from .names import detect_format, to_detectron2_names
from .unpickle import RefusedGlobal, safe_torch_load, safe_unpickle

__all__ = ["Checkpoint", "find_file", "load_file"]

_LEGACY_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""The number that starts the files of older versions of torch."""

_WRAPPERS = ("model", "state_dict", "model_state_dict", "blobs")  # "blobs" in the detectors of Caffe2's Detectron
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, Lightning and others


@dataclass
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: the local file.
        format: whose names the file uses: "detectron2" (which are ours too), "caffe2", "torchvision" or "mmdetection".
        model: the tensors by Detectron2's names.
        original_names: the name in the file of each of Detectron2's names.
        rest: everything else, such as the states of the trainer and the iteration.
    """

    path: Path
    format: str
    model: dict[str, Tensor]
    original_names: dict[str, str]
    rest: dict[str, Any] = field(default_factory=dict)


def load_file(path: str | Path) -> Checkpoint:
    """Read a checkpoint of any known format, which is found from the content and not from the name of the file.

    These are checkpoints of ours, of Detectron2 (.pth, .pkl) and of Caffe2 (.pkl), and the state dicts of torchvision,
    of mmdetection and of timm, in torch's files or in safetensors files.

    Args:
        path: a file, or an address (`detectron2://`, `https://`, `torchvision://`, `timm://`), which is fetched once,
            see `download.fetch`.

    Raises:
        ArgumentError: there is no such file, or it is damaged, asks for code to be run or for much more memory or time
            than its size explains, or holds no weights.
    """
    file = find_file(path)
    data = _read(file)
    if not isinstance(data, dict):
        raise ArgumentError("path", f"{file} holds a {type(data).__name__}, expected a dict of named tensors")
    weights: Any = next((data[key] for key in _WRAPPERS if isinstance(data.get(key), dict)), data)
    tensors = {str(k): v for k, v in weights.items() if isinstance(v, Tensor)}
    if not tensors:
        keys = ", ".join(_shown(key) for key in list(data)[:8]) or "nothing"
        raise ArgumentError("path", f"{file} holds no weights; expected named tensors, found {keys}")
    for name in tensors:
        if not name.isprintable():
            raise ArgumentError("path", f"{file} holds a tensor whose name has control characters: {_shown(name)}")
    tensors = _without_prefixes(tensors)
    author = data.get("__author__")
    naming = detect_format(tensors, author if isinstance(author, str) else "")
    try:
        model, originals = to_detectron2_names(tensors, naming)
    except UserError as error:
        raise ArgumentError("path", f"{file}: {error}") from None
    rest = {} if weights is data else {k: v for k, v in data.items() if v is not weights}
    return Checkpoint(file, naming, model, originals, rest)


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefixes that all names have because the model was inside of another object."""
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _shown(name: Any) -> str:
    """Return a key of a file for a message: short, and with control characters escaped."""
    text = str(name)
    return (text if text.isprintable() else repr(text))[:200]


def find_file(path: str | Path) -> Path:
    """Return the local file for a path or an address.

    Raises:
        ArgumentError: there is no such file, or it cannot be fetched.
    """
    if re.match(r"[A-Za-z0-9+.-]+://", str(path)):
        return fetch(str(path))
    file = Path(path).expanduser()
    if file.is_file():
        return file
    folder = file if file.is_dir() else file.parent
    if not folder.is_dir():
        raise ArgumentError("path", f"there is no file {file}, and no folder {folder}")
    inside = sorted(p.name for p in folder.iterdir() if p.suffix in (".pth", ".pkl", ".safetensors"))
    if folder == file:
        raise ArgumentError("path", f"{file} is a folder, expected a file{did_you_mean('model_final.pth', inside)}")
    raise ArgumentError("path", f"there is no file {file}{did_you_mean(file.name, inside)}")


def _read(file: Path) -> Any:
    """Return the content of a file, which consists of tensors, arrays and plain types."""
    start = b""
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_LEGACY_TORCH))
        if not start:
            raise EOFError("the file is empty")
        if start.startswith(b"PK") or start == _LEGACY_TORCH:
            return safe_torch_load(file, legacy=start == _LEGACY_TORCH)
        if _is_safetensors(start, file.stat().st_size):
            return _read_safetensors(file)
        return safe_unpickle(file)
    except OSError as error:
        raise ArgumentError("path", f"cannot read {file}: {error.strerror or error}") from error
    except UserError:
        raise
    except RefusedGlobal as error:
        raise ArgumentError(
            "path",
            f"{file} is refused because it names {_shown(error)}, and weights need only arrays and plain types. "
            "Nothing in it was executed. Save the weights as a plain dict of tensors",
        ) from error
    except Exception as error:  # A broken stream may lead the readers to any error.
        reason = _shown(re.split(r"\n|\. ", str(error).strip())[0]) or type(error).__name__
        if start and not start.startswith((b"PK", b"\x80")):  # neither an archive nor a pickle of today
            reason = f"it begins with {start!r}"
        raise ArgumentError("path", f"{file} is damaged or is not a checkpoint: {reason}") from error


def _is_safetensors(start: bytes, size: int) -> bool:
    """Return whether a file begins with the length of a header (8 bytes) and with the bracket of its JSON object."""
    return start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= size - 8


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file as load
    except ImportError:
        raise ArgumentError(
            "path", f"{file} is a safetensors file, which needs safetensors; type: pip install 'sn2fpn[timm]'"
        ) from None
    return load(file)
