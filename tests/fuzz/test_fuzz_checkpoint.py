"""Damaged and hostile checkpoint files: the reader answers with weights or a UserError, and never runs code."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import pickletools
import struct
import subprocess
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sn2fpn.checkpoint import load_file, load_weights
from sn2fpn.checkpoint.last import check_sums
from sn2fpn.errors import UserError

_ARRAYS = {"0.weight": np.arange(6, dtype=np.float32).reshape(3, 2), "0.bias": np.ones(3), "conv1_w": np.float32(1)}


def _torch_bytes(content: Any, legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _seeds() -> list[bytes]:
    """Return files of every known format."""
    content = {
        "model": OrderedDict(_ARRAYS),
        "__author__": "Caffe2",
        "iteration": 7,
        "x": [(1, 2.5), {"a"}, np.bool_(True)],
    }
    tensors = {name: torch.as_tensor(array) for name, array in _ARRAYS.items()}
    state = {"model": tensors, "optimizer": {"state": {0: tensors}, "param_groups": [{"betas": (0.9, 0.99)}]}}
    pickles = [pickle.dumps(content, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    return pickles + [_torch_bytes(value, legacy) for value in (content, state) for legacy in (False, True)]


_SEEDS = _seeds()
_CALLS = [
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"c_codecs\nencode\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nload\n",
    b"\x8c\x02os\x8c\x06system\x93",
]
_VALUES = [
    b"N",
    b"K\x01",
    b"M\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"]",
    b"}",
    b")",
    b"(",
    b"X\x02\x00\x00\x00f4",
    b"C\x02ab",
]
_OPCODES = [o.code.encode("latin1") for o in pickletools.opcodes if o.arg is None and o.name != "STOP"]
_MEMO = [b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"r\xff\xff\xff\x7f", b"\x94"]

_programs = st.lists(st.sampled_from(_CALLS + _VALUES + _OPCODES + _MEMO), max_size=40).map(
    lambda parts: b"\x80\x04" + b"".join(parts) + b"."
)
"""Pickle programs whose parts are valid, in any order."""


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """Draw a valid file in which some bytes are changed, cut out, repeated or replaced by parts of programs."""
    content = bytearray(draw(st.sampled_from(_SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.integers(0, 16))
        kind = draw(st.sampled_from(["byte", "cut", "repeat", "insert", "number", "end"]))
        if kind == "byte" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "repeat":
            content[at:at] = content[at : at + length] * draw(st.integers(1, 50))
        elif kind == "insert":
            content[at:at] = draw(st.sampled_from(_CALLS + _VALUES + _OPCODES + _MEMO))
        elif kind == "number":
            content[at : at + 4] = struct.pack("<I", draw(st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**32 - 1])))
        else:
            del content[at:]
    return bytes(content)


@contextmanager
def _no_code() -> Iterator[None]:
    """Fail if a function is called that hostile files name."""
    with ExitStack() as stack:
        names = [(os, "system"), (os, "popen"), (subprocess, "Popen"), (builtins, "eval"), (torch.hub, "load")]
        mocks = [stack.enter_context(mock.patch.object(module, name)) for module, name in names]
        yield
        assert not any(m.called for m in mocks)


@pytest.mark.filterwarnings("ignore")  # torch warns of files that it cannot read
@given(content=st.one_of(_mutated(), _programs, st.binary(max_size=200)))
def test_files_of_any_content(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(content)
    model = nn.Sequential(nn.Linear(2, 3))
    with _no_code():
        try:
            check_sums(file)
            checkpoint = load_file(file)
            report = load_weights(model, checkpoint)
        except UserError as error:
            message = str(error)
            assert "w.pth" in message and len(message) < 2000 and message.replace("\n", "").isprintable()
        else:
            assert report.loaded and str(report)
            assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
_keys = (
    st.text(max_size=8) | st.integers() | st.sampled_from(["model", "blobs", "__author__", "0.weight", "0.bias", "ema"])
)
_tensors = st.sampled_from([np.zeros(()), np.zeros(0, np.int8), np.full((3, 2), np.nan), *_ARRAYS.values()])
_contents = st.recursive(
    _scalars | _tensors,
    lambda inside: (
        st.lists(inside, max_size=4) | st.dictionaries(_keys, inside, max_size=4) | st.tuples(inside, inside)
    ),
    max_leaves=12,
)


@pytest.mark.filterwarnings("ignore")
@given(content=_contents, form=st.sampled_from(["pickle", "torch", "legacy"]))
def test_whole_files_with_any_values(content: Any, form: str, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(pickle.dumps(content) if form == "pickle" else _torch_bytes(content, form == "legacy"))
    try:
        load_weights(nn.Sequential(nn.Linear(2, 3)), load_file(file))
    except UserError as error:
        assert "w.pth" in str(error)
