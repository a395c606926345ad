"""Test that small files cannot take all memory or run forever, and that ordinary files are far below the limits."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sn2fpn.checkpoint import load_file, load_weights
from sn2fpn.checkpoint.limits import _MOST_OPCODES, DEEPEST, allowance, check_pickle
from sn2fpn.checkpoint.reading import Checkpoint
from sn2fpn.errors import UserError

_SECONDS = 60.0
"""No bomb may take longer, also on a busy machine; each of them would take minutes or gigabytes."""

_ENCODE = b"c_codecs\nencode\nq\x00"
_TEXT = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x01"


def _in_lists(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


_PICKLES = {
    "a memo of 64 GB": (b"\x80\x02Nr\xff\xff\xff\x7f.", "reserves a place"),
    "bytes of 8 EB": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", "damaged"),
    "bytes of 2 GB": (b"\x80\x03B\xff\xff\xff\x7f.", "damaged"),
    "a text of 2 GB": (b"\x80\x02X\xff\xff\xff\x7f.", "damaged"),
    "a frame of 8 EB": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "damaged"),
    "a text that is encoded again and again": (
        b"\x80\x02" + _ENCODE + _TEXT + b"0" + b"h\x00h\x01\x85R0" * 200_000 + b"N.",
        "much more work",
    ),
    "too many opcodes": (b"\x80\x02" + b"N0" * (_MOST_OPCODES // 2 + 1) + b"N.", "much more work"),
    "an empty stack": (b"\x80\x02\x85.", "has not made"),
}


def _tuple_key(levels: int) -> bytes:
    """Return a pickle of {t: None} where t is (t', t') down to (), as many levels deep."""
    return b"\x80\x02}" + b")" + b"2\x86" * levels + b"Ns."


def _check_refused(file: Path, words: str) -> None:
    start = time.perf_counter()
    with pytest.raises(UserError, match=words) as error:
        load_file(file)
    assert time.perf_counter() - start < _SECONDS
    assert str(file) in str(error.value)


@pytest.mark.parametrize("kind", _PICKLES)
def test_small_pickles_that_ask_for_too_much(kind: str, tmp_path: Path) -> None:
    content, words = _PICKLES[kind]
    (tmp_path / "bomb.pkl").write_bytes(content)
    _check_refused(tmp_path / "bomb.pkl", words)


@pytest.mark.parametrize("form", ["bare", "archive", "legacy"])
def test_a_key_that_takes_forever_to_hash(form: str, tmp_path: Path) -> None:
    bomb, file = _tuple_key(60), tmp_path / "bomb.pth"
    if form == "bare":
        file.write_bytes(bomb)
    elif form == "legacy":
        torch.save({}, file, _use_new_zipfile_serialization=False)
        file.write_bytes(file.read_bytes().replace(pickle.dumps({}, 2), bomb))
        assert bomb in file.read_bytes()
    else:
        torch.save({}, tmp_path / "good.pth")
        _copy_archive(tmp_path / "good.pth", file, {"data.pkl": bomb})
    _check_refused(file, "much more work")


def _copy_archive(source: Path, target: Path, changes: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Copy an archive with other contents of the entries whose names end with the keys of `changes`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = next((c for end, c in changes.items() if name.endswith(end)), old.read(name))
            new.writestr(name, content)


def test_an_archive_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(2**28, dtype=torch.uint8)}, tmp_path / "large.pth")
    _copy_archive(tmp_path / "large.pth", tmp_path / "bomb.pth", {}, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 2**20
    _check_refused(tmp_path / "bomb.pth", r"entries claim \d+ bytes")


def test_an_archive_with_two_programs(tmp_path: Path) -> None:
    """A reader that takes the first of two entries and one that takes the last must not see different programs."""
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "a") as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        archive.writestr(name.upper(), b"N.")
    _check_refused(tmp_path / "w.pth", "names an entry twice")


def test_a_view_of_a_few_bytes_that_claims_gigabytes(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "w.pth")
    _check_refused(tmp_path / "w.pth", "tensors claim many times more")
    torch.save({"a.weight": torch.zeros(1).expand(10, 10)}, tmp_path / "w.pth")
    assert load_file(tmp_path / "w.pth").model["a.weight"].shape == (10, 10)


@pytest.mark.filterwarnings("ignore:Validating sparse")  # torch warns before we refuse
def test_tensors_without_plain_data(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(2, 2).to_sparse()}, tmp_path / "sparse.pth")
    _check_refused(tmp_path / "sparse.pth", "plain dense tensors")
    torch.save({"a.weight": torch.zeros(2, 2, device="meta")}, tmp_path / "meta.pth")
    _check_refused(tmp_path / "meta.pth", r"plain dense tensors|damaged")


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_nesting(writer: str, tmp_path: Path) -> None:
    for levels, fits in ((DEEPEST - 5, True), (DEEPEST + 5, False)):
        content = {"a.weight": np.zeros(2), "deep": _in_lists(levels)}
        file = tmp_path / f"{levels}.pkl"
        if writer == "torch":
            torch.save(content, file)
        else:
            file.write_bytes(pickle.dumps(content))
        if fits:
            load_file(file)
        else:
            _check_refused(file, f"nested more than {DEEPEST} deep")
    (tmp_path / "deeper.pkl").write_bytes(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    _check_refused(tmp_path / "deeper.pkl", f"nested more than {DEEPEST} deep")


def test_a_trained_model_with_its_optimizer_is_far_below_the_limits(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Conv2d(8, 8, 1) for _ in range(100)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 8, 4, 4)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "w.pth")
    load_file(tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        program = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    assert sum(1 for _ in pickletools.genops(program)) * 20 < _MOST_OPCODES
    arrays = {f"layer{i}.weight": np.zeros((256, 256, 3), np.float32) for i in range(40)}
    for protocol in (2, 4):
        content = pickle.dumps(arrays, protocol)
        check_pickle(io.BytesIO(content), len(content) // 2)  # also with half of the allowance
        assert allowance(len(content)) > 16 * len(content)


# ------------------------------------------------------------------ values


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_named(bad: float) -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    file = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    file["unused"] = torch.tensor([bad])  # has no place in the model, so it does no harm
    names = {name: name for name in file}
    load_weights(model, Checkpoint(Path("w.pth"), "detectron2", file, names))
    for i in range(1, 5):
        file[f"{i}.weight"][0, 0] = bad
    file["2.bias"][:] = bad
    message = r"5 of 10 tensors of w\.pth hold NaN or infinite values: 1\.weight \(1 of 4 values\), 2\.weight.*, …"
    with pytest.raises(UserError, match=message):
        load_weights(model, Checkpoint(Path("w.pth"), "detectron2", file, names))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
