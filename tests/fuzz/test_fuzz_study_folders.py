"""Whatever is in a study's folder or in its archive, results and report are written, or a message names the fault."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from damage import damaged_json
from fabricated_study import fabricate
from hypothesis import given, settings
from hypothesis import strategies as st

from sn2fpn.engine.best_model import BestModel
from sn2fpn.errors import UserError
from sn2fpn.study.archive.pack import opened, pack
from sn2fpn.study.measure.results import load_results
from sn2fpn.study.measure.tidy_table import tidy_rows
from sn2fpn.study.report.writing import write_report
from sn2fpn.visualization.curves import read_metrics

_CELL = "cells/sni/seed1"
_FILES = ["costs.json", "speed.json", "features.json", "study.yaml"]
_FILES += [
    f"{_CELL}/{name}" for name in ("cell.json", "result.json", "config.yaml", "metrics.json", "best_metric.json")
]
_REPORTS = max(2, settings().max_examples // 50)  # a report takes much longer than reading a folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study_folders")
    (root / "base.yaml").write_text("MODEL: {MASK_ON: False}\n")
    folder = fabricate(root / "one", {"fpn": 0.2, "sni": 0.1}, seeds=(1, 2))
    levels = {"p2": {"agreement": 0.5, "localisation": None}, "p3": {"agreement": 0.1, "localisation": 0.2}}
    features = {"images": 4, "set": "val", "variants": {"fpn": levels, "sni": levels}}
    (folder / "features.json").write_text(json.dumps(features))
    history = {"metric": "bbox/AP", "history": [[10, 0.1], [20, 0.3]]}
    (folder / _CELL / "best_metric.json").write_text(json.dumps(history))
    return folder


@pytest.fixture(scope="module")
def archive(study: Path) -> bytes:
    return pack(study, study.with_name("one.study.zip")).read_bytes()


def _damaged(data: st.DataObject, name: str, text: bytes) -> bytes:
    if name.endswith("metrics.json"):
        lines = [json.loads(line) for line in text.splitlines()]
        changed = [data.draw(damaged_json(line)) for line in lines[-2:]]
        return b"\n".join([*text.splitlines()[:-2], *changed])
    if name.endswith(".yaml"):
        start = data.draw(st.integers(0, len(text)))
        return text[:start] + data.draw(st.binary(max_size=5)) + text[start + data.draw(st.integers(0, 9)) :]
    return data.draw(damaged_json(json.loads(text)))


def _read_all(folder: Path) -> None:
    results = load_results(folder)
    tidy_rows(results)
    for cell in results.cells:
        cell.folder.configuration()
        if cell.folder.metrics.is_file():
            read_metrics(cell.folder.metrics)
    if (folder / _CELL).is_dir():
        BestModel("bbox/AP", folder / _CELL, 15).update(15, {"bbox/AP": 0.2})


@contextmanager
def _changed(folder: Path, name: str, content: bytes) -> Iterator[None]:
    """Change one file of a folder, and restore it and what is written beside it."""
    before = {path: path.read_bytes() for path in (folder / name, folder / _CELL / "best_metric.json")}
    (folder / name).write_bytes(content)
    try:
        yield
    except UserError as error:
        assert str(error)
    finally:
        for path, text in before.items():
            path.write_bytes(text)


@given(data=st.data(), name=st.sampled_from(_FILES))
def test_any_study_folder(study: Path, data: st.DataObject, name: str) -> None:
    with _changed(study, name, _damaged(data, name, (study / name).read_bytes())):
        _read_all(study)


@pytest.mark.filterwarnings("ignore")  # fonts have no glyphs for some characters
@settings(max_examples=_REPORTS)
@given(data=st.data(), name=st.sampled_from(_FILES))
def test_any_report(study: Path, data: st.DataObject, name: str, tmp_path: Path) -> None:
    with _changed(study, name, _damaged(data, name, (study / name).read_bytes())):
        write_report(study, tmp_path, pictures=False)


_NAMES = [
    "../x.json",
    "/x.json",
    "a/../../x.json",
    "a\\..\\x.json",
    "x.py",
    "study.yaml",
    "cells/x.json",
    "x" * 300 + ".json",
]


def _repacked(data: st.DataObject, archive: bytes) -> bytes:
    """Return an archive with changed bytes, or with one more member of any name and size."""
    if data.draw(st.booleans()):
        changed = bytearray(archive)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(changed) - 1) | st.integers(max(0, len(changed) - 400), len(changed) - 1))
            changed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        return bytes(changed)
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as file:
        member = zipfile.ZipInfo(data.draw(st.sampled_from(_NAMES) | st.text(min_size=1, max_size=8)))
        member.external_attr = data.draw(st.sampled_from([0o644, 0o120777, 0o40755])) << 16  # a file, a link, a folder
        file.writestr(member, data.draw(st.binary(max_size=9) | st.just(b"../../x")))
        file.infolist()[-1].file_size = data.draw(st.sampled_from([0, 9, 2**33]))  # what the directory claims
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@given(data=st.data())
def test_any_archive(archive: bytes, data: st.DataObject, tmp_path: Path) -> None:
    file, outside = tmp_path / "one.study.zip", tmp_path / "scratch"
    outside.mkdir(exist_ok=True)
    file.write_bytes(_repacked(data, archive))
    try:
        with mock.patch("tempfile.tempdir", str(outside)), opened(file) as folder:
            assert [path.name for path in outside.iterdir()] == [folder.name]
            assert not any(path.is_symlink() for path in folder.rglob("*"))
            _read_all(folder)
    except UserError as error:
        assert str(error)
    assert not list(outside.iterdir()) and {path.name for path in tmp_path.iterdir()} == {file.name, outside.name}


def test_archives_that_claim_too_much_or_lead_outside(archive: bytes, tmp_path: Path) -> None:
    file = tmp_path / "one.study.zip"
    for name in ("../x.json", "/x.json", "a/../../x.json", "a\\..\\x.json"):
        file.write_bytes(archive)
        with zipfile.ZipFile(file, "a") as opened_zip:
            opened_zip.writestr(name, "{}")
        with pytest.raises(UserError, match="names a file outside its folder"), opened(file):
            pass
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened_zip, opened_zip.open("x.json", "w") as member:
        for _ in range(64):
            member.write(bytes(2**20))
    small = file.read_bytes()
    with mock.patch("sn2fpn.study.archive.pack._LARGEST_BYTES", 2**20):
        with pytest.raises(UserError, match="claims"), opened(file):
            pass
        lying = small.replace(
            (2**26).to_bytes(4, "little"), (9).to_bytes(4, "little")
        )  # 64 MiB that claim to be 9 bytes
        file.write_bytes(lying)
        with pytest.raises(UserError, match="cannot be read"), opened(file):
            pass
