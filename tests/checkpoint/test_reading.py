"""Test that files are read without executing anything in them, whatever they hold."""

from __future__ import annotations

import collections
import io
import pickle
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sn2fpn.checkpoint import load_file
from sn2fpn.errors import ArgumentError, UserError, argument_names

MARKER = "sn2fpn_pickle_executed"
WEIGHTS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.float64([0.5, -1])}


class _Attack:
    """An object whose pickle calls `open(MARKER, "w")`."""

    def __reduce__(self):
        return open, (MARKER, "w")


def _write_pickle(path: Path, data: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path


def _assert_weights(model: dict[str, torch.Tensor]) -> None:
    assert model.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        assert model[name].dtype == torch.from_numpy(array).dtype
        np.testing.assert_array_equal(model[name].numpy(), array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    data = {
        "model": collections.OrderedDict(WEIGHTS),
        "__author__": "someone",
        "scalar": np.float64(2.5),
        "flag": np.bool_(True),
        "steps": [1, (2, 3)],
    }
    checkpoint = load_file(_write_pickle(tmp_path / "w.pkl", data, protocol))
    _assert_weights(checkpoint.model)
    assert checkpoint.rest == {"__author__": "someone", "scalar": 2.5, "flag": True, "steps": [1, (2, 3)]}
    assert type(checkpoint.rest["scalar"]) is float


def test_both_spellings_of_numpy_and_foreign_layouts(tmp_path: Path) -> None:
    weights = {"w.weight": np.asfortranarray(np.arange(6.0).reshape(2, 3)).astype(">f4", order="F")}
    raw = pickle.dumps(weights, protocol=2)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    for source, target in ((new, old), (old, new)):
        file = tmp_path / "w.pkl"
        file.write_bytes(raw.replace(source, target))
        tensor = load_file(file).model["w.weight"]
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()
        assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_pickle_of_python_2(tmp_path: Path) -> None:
    """Python 2 writes names and data as byte strings (SHORT_BINSTRING), and numpy's module has its old name."""
    data = np.float32([1.5, -2.0, 255.0]).tobytes()

    def text(s: bytes) -> bytes:
        return b"U" + bytes([len(s)]) + s

    dtype = b"cnumpy\ndtype\n(" + text(b"f4") + b"K\x00K\x01tR(K\x03" + text(b"<") + b"NNN"
    dtype += 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
        b"(K\x01(K\x03t" + dtype + b"\x89" + text(data) + b"tb"
    )
    file = tmp_path / "py2.pkl"
    file.write_bytes(b"\x80\x02}" + text(b"conv1_w") + array + b"s.")
    checkpoint = load_file(file)
    assert checkpoint.format == "caffe2"
    assert checkpoint.model["stem.conv1.weight"].tolist() == [1.5, -2.0, 255.0]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_torch_files_of_tensors_and_arrays(tmp_path: Path, legacy: bool) -> None:
    data = {"model": dict(WEIGHTS), "iteration": 7, "best": np.float64(0.25)}
    torch.save(data, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    checkpoint = load_file(tmp_path / "w.pth")
    _assert_weights(checkpoint.model)
    assert checkpoint.rest["iteration"] == 7 and checkpoint.rest["best"] == 0.25


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    torch.save({k: torch.from_numpy(v) for k, v in WEIGHTS.items()}, tmp_path / "w.pkl")
    _assert_weights(load_file(tmp_path / "w.pkl").model)
    _assert_weights(load_file(_write_pickle(tmp_path / "w.pth", WEIGHTS)).model)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module._orig_mod.", "model.module."])
@pytest.mark.parametrize("wrapper", ["", "model", "state_dict", "model_state_dict"])
def test_wrappers_and_prefixes_that_all_names_have_are_removed(tmp_path: Path, wrapper: str, prefix: str) -> None:
    weights = {f"{prefix}{k}": v for k, v in WEIGHTS.items()}
    file = _write_pickle(tmp_path / "w.pkl", {wrapper: weights, "epoch": 3} if wrapper else weights)
    checkpoint = load_file(file)
    _assert_weights(checkpoint.model)
    assert checkpoint.rest == ({"epoch": 3} if wrapper else {})


def test_safetensors_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_files = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    file = tmp_path / "w.any"
    torch_files.save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in WEIGHTS.items()}, file)
    _assert_weights(load_file(file).model)
    content = file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-5])
    with pytest.raises(ArgumentError, match=r"^path: .*cut\.safetensors is damaged or is not a checkpoint"):
        load_file(tmp_path / "cut.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ArgumentError, match=r"needs safetensors; type: pip install 'sn2fpn\[timm\]'"):
        load_file(file)


# ------------------------------------------------------------------ attacks


def _malicious(kind: str, path: Path) -> Path:
    payload = {"model": dict(WEIGHTS), "note": _Attack()}
    if kind == "pickle":
        return _write_pickle(path, payload)
    if kind == "pickle protocol 4":
        return _write_pickle(path, payload, 4)
    if kind == "torch":
        torch.save(payload, path)
    if kind == "torch legacy":
        torch.save(payload, path, _use_new_zipfile_serialization=False)
    if kind == "builtins":
        path.write_bytes(b"cbuiltins\neval\n(V1\ntR.")
    if kind == "numpy function":  # numpy.load would open a file.
        path.write_bytes(b"\x80\x02cnumpy\nload\n(U\x04evil\x85R.")
    if kind == "dotted name":
        path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.")
    return path


@pytest.mark.parametrize(
    "kind", ["pickle", "pickle protocol 4", "torch", "torch legacy", "builtins", "numpy function", "dotted name"]
)
def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = _malicious(kind, tmp_path / "evil.pkl")
    with pytest.raises(UserError, match="refused") as error:
        load_file(file)
    name = {"builtins": "builtins.eval", "numpy function": "numpy.load", "dotted name": "numpy.dtype.__init__"}
    assert str(file) in str(error.value) and name.get(kind, "open") in str(error.value)
    assert not (tmp_path / MARKER).exists()


def test_arrays_of_objects_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write_pickle(tmp_path / "evil.pkl", {"a.weight": np.array([_Attack()], dtype=object)})
    with pytest.raises(UserError, match=r"evil\.pkl.*arrays of numbers"):
        load_file(tmp_path / "evil.pkl")
    assert not (tmp_path / MARKER).exists()


def test_a_pickle_cannot_change_what_later_loads_use(tmp_path: Path) -> None:
    """The opcode BUILD with a state of (None, {...}) sets attributes of anything that a pickle can name."""
    body = b"\x80\x02}U\x01xcnumpy.core.multiarray\n_reconstruct\nN}U\x09_functioncnumpy\nndarray\ns\x86bs."
    (tmp_path / "evil.pkl").write_bytes(body)
    with pytest.raises(UserError, match=r"evil\.pkl"):
        load_file(tmp_path / "evil.pkl")
    _assert_weights(load_file(_write_pickle(tmp_path / "w.pkl", WEIGHTS)).model)


def test_shared_containers_are_walked_once(tmp_path: Path) -> None:
    value: list = []
    for _ in range(60):  # There would be 2^60 leaves if each occurrence were walked.
        value = [value, value]
    load_file(_write_pickle(tmp_path / "w.pkl", {**WEIGHTS, "tree": value}))


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_cut_off_files(tmp_path: Path, kind: str, share: float) -> None:
    buffer = io.BytesIO()
    if kind == "pickle":
        pickle.dump({"model": WEIGHTS}, buffer)
    else:
        torch.save({"model": WEIGHTS}, buffer, _use_new_zipfile_serialization=kind == "zip")
    file = tmp_path / "cut.pth"
    file.write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
    with pytest.raises(UserError, match=rf"{file}.*damaged"):
        load_file(file)


def test_sizes_that_do_not_fit_the_data(tmp_path: Path) -> None:
    raw = pickle.dumps({"w": np.zeros(3, np.float32)}, protocol=2)
    file = tmp_path / "w.pkl"
    file.write_bytes(raw.replace(b"K\x03\x85", b"J" + struct.pack("<i", 2**30) + b"\x85"))
    with pytest.raises(UserError, match=r"damaged.*do not fill an array"):
        load_file(file)


@pytest.mark.parametrize("content", [[1, 2], {"iteration": 3}, {"model": {}}, {}])
def test_files_without_weights(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match=r"w\.pkl"):
        load_file(_write_pickle(tmp_path / "w.pkl", content))


# ------------------------------------------------------------------ finding


def test_missing_files_name_the_argument_and_the_nearest_file(tmp_path: Path) -> None:
    (tmp_path / "model_final.pth").touch()
    with pytest.raises(UserError, match=r"^path: there is no file .*did you mean 'model_final.pth'"):
        load_file(tmp_path / "model_finl.pth")
    with pytest.raises(UserError, match=r"no folder .*nowhere$"):
        load_file(tmp_path / "nowhere" / "model_final.pth")
    with (
        pytest.raises(UserError, match=r"^--weights: .* is a folder.*model_final\.pth"),
        argument_names({"path": "--weights"}),
    ):
        load_file(tmp_path)


def test_names_with_control_characters_are_shown_escaped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name has control characters: 'a\\x1b\[31m'"):
        load_file(_write_pickle(tmp_path / "w.pkl", {"a\x1b[31m": np.zeros(1)}))
    with pytest.raises(UserError, match=r"found 'a\\x1b\[31m'"):
        load_file(_write_pickle(tmp_path / "w.pkl", {"a\x1b[31m": 1}))


# ------------------------------------------------------------------ files of the sample data


@pytest.mark.parametrize("name", ["good.pkl", "good.pth"])
def test_sample_control_files(shared_data: Path, name: str) -> None:
    model = load_file(shared_data / "bad/checkpoints" / name).model
    shapes = {k: tuple(v.shape) for k, v in model.items()}
    assert shapes == {
        "backbone.bottom_up.stem.conv1.norm.weight": (64,),
        "roi_heads.box_predictor.cls_score.bias": (81,),
    }


@pytest.mark.parametrize(
    ("name", "message"), [("code.pkl", "io.open"), ("code.pth", "io.open"), ("truncated.pth", "damaged")]
)
def test_sample_bad_files(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = shutil.copy(shared_data / "bad/checkpoints" / name, tmp_path)
    with pytest.raises(UserError, match=message) as error:
        load_file(file)
    assert name in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_file_of_another_kind_is_named_by_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_bytes(b"<html><body>404</body></html>")
    with pytest.raises(ArgumentError, match=r"page\.pth is damaged or is not a checkpoint: it begins with b'<html>"):
        load_file(tmp_path / "page.pth")
