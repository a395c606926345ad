"""`python -m sn2fpn.study pack` writes a study's results into one file, without weights and pictures."""

from __future__ import annotations

import argparse
import json
import logging
import lzma
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ...atomic import atomic_path
from ...config import get_cfg
from ...config.yaml_limits import LimitedLoader
from ...data import DatasetCatalog, register_custom
from ...errors import UserError, nearby_files
from ..files import read_json, write_json
from ..folder import CellFolder
from ..spec.study import Study
from ..spec.tuning import TUNING_FOLDER
from . import ENDING
from .test_sets import annotations_file, save_test_set

__all__ = ["main", "opened", "pack"]

logger = logging.getLogger(__name__)

_OF_STUDY = ("costs.json", "speed.json", "features.json", "data/*.json")
_OF_CELL = ("cell.json", "config.yaml", "metrics.json", "result.json", "failure.txt", "inference/*/results.json")
_DETECTIONS = "inference/*/coco_instances_results.json"
_BASE = "base.yaml"
_ENDINGS = (".yaml", ".json", ".txt")  # above all no code, which would seem to be the user's own when unpacked
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal content gives equal files
_LARGEST_BYTES = 4 * 2**30  # of an archive's unpacked content
_BROKEN = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, MemoryError, OverflowError, ValueError)
_BROKEN += (struct.error, zlib.error, lzma.LZMAError)  # NotImplementedError is a RuntimeError


def pack(folder: Path, output: Path, exact: bool = False, trust: bool = False) -> Path:
    """Write an archive of a study's folder.

    It holds the study file with its base configuration, and of each cell its identity, configuration, metrics, scores
    and detections. It also holds the annotations of the test sets, so that the report can be written from the archive
    alone. Paths that lead into the study's folder become relative to it, and the base configuration is that of the
    archive, so that the commands of the cells work where the archive was unpacked.

    Args:
        folder: the study's folder, which stays unchanged.
        output: the file to write.
        exact: keep all digits of the detections. Otherwise boxes are rounded to 0.001 pixels and scores to 0.000001,
            which makes the file about half as large.
        trust: run the Python files that the study imports, which may be needed to find its test set, also if they are
            not the user's own.

    Raises:
        UserError: the folder is no study's folder, a file in it is broken, or a test set is not at hand.
    """
    study = Study.load(folder / "study.yaml", trust)
    with TemporaryDirectory() as scratch:
        stage = Path(scratch)
        _write_study(study, stage)
        names = {name for cell in study.cells for name in _stage_cell(CellFolder(folder, cell), stage, folder)}
        if (folder / TUNING_FOLDER / "study.yaml").is_file():
            _stage_tuning(folder / TUNING_FOLDER, stage / TUNING_FOLDER)
        for pattern in _OF_STUDY:
            for path in folder.glob(pattern):
                _copy(path, stage / path.relative_to(folder))
        for name in sorted(names):
            if not annotations_file(stage, name).is_file():
                if name not in DatasetCatalog:
                    study.import_files()
                save_test_set(name, stage)
        _make_relative(stage, folder, study.base)
        if not exact:
            for path in stage.glob(f"cells/*/*/{_DETECTIONS}"):
                path.write_text(_rounded(path), encoding="utf-8")
        _zip(stage, output)
    return output


def _write_study(study: Study, stage: Path) -> None:
    """Write the study file beside a copy of its whole base configuration."""
    base = get_cfg()
    base.merge_from_file(str(study.base))
    (stage / _BASE).write_text(base.dump(), encoding="utf-8")
    study.save(stage / "study.yaml")
    content = yaml.safe_load((stage / "study.yaml").read_text(encoding="utf-8"))
    content |= {"BASE": _BASE, "IMPORTS": [file.name for file in study.imports]}
    (stage / "study.yaml").write_text(_as_yaml(content), encoding="utf-8")


def _stage_cell(place: CellFolder, stage: Path, folder: Path) -> list[str]:
    """Copy the files of a cell that belong into an archive, and return the names of its test sets."""
    target = stage / place.path.relative_to(folder)
    for pattern in (*_OF_CELL, _DETECTIONS):
        for path in place.path.glob(pattern):
            _copy(path, target / path.relative_to(place.path))
    register_custom(place.configuration().get("DATASETS", {}).get("CUSTOM") or [])
    return list(place.result().get("results", {}))


def _stage_tuning(folder: Path, stage: Path) -> None:
    """Stage the tuning study without detections, since only its scores are shown."""
    stage.mkdir()
    study = Study.load(folder / "study.yaml")
    _write_study(study, stage)
    for cell in study.cells:
        _stage_cell(CellFolder(folder, cell), stage, folder)
    for path in stage.glob(f"cells/*/*/{_DETECTIONS}"):
        path.unlink()


def _make_relative(stage: Path, folder: Path, base: Path) -> None:
    """Let texts that name the base configuration or files in the study's folder name them relative to the archive."""
    places = {str(base): _BASE, f"{folder.resolve()}/": ""}
    for path in stage.rglob("*.yaml"):
        content = yaml.load(path.read_text(encoding="utf-8"), LimitedLoader)
        path.write_text(_as_yaml(_without_places(content, places)), encoding="utf-8")
    for path in stage.rglob("failure.txt"):
        path.write_text(_without_places(path.read_text(encoding="utf-8"), places), encoding="utf-8")
    for path in stage.rglob("cell.json"):
        identity = _without_places(read_json(path), places)
        if isinstance(command := identity.get("command"), list):
            identity["command"] = _without_folders(command)
        write_json(path, identity)


def _without_places(value: Any, places: Mapping[str, str]) -> Any:
    """Return a value in whose texts other names stand for some places."""
    if isinstance(value, dict):
        return {key: _without_places(v, places) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_places(v, places) for v in value]
    for place, name in places.items() if isinstance(value, str) else ():
        value = value.replace(place, name)
    return value


def _as_yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _without_folders(command: list[Any]) -> list[Any]:
    """Return the command that trained a cell, with its files as the archive names them.

    When the cell was trained, the study may have had its files in another folder than now.
    """
    words = list(command)
    for i, flag in enumerate(command[:-1]):
        if flag == "--config-file":
            words[i + 1] = _BASE
        elif flag == "--import":
            words[i + 1] = Path(str(command[i + 1])).name
    return words


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _rounded(path: Path) -> str:
    """Return a file of detections with fewer digits, as JSON without spaces."""
    try:
        detections: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for found in detections:
            found["bbox"] = [round(value, 3) for value in found["bbox"]]
            found["score"] = round(found["score"], 6)
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as e:
        raise UserError(f"{path.name}: expected a list of COCO results: {e!r}") from None
    return json.dumps(detections, separators=(",", ":"))


def _zip(stage: Path, output: Path) -> None:
    with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as archive:
        for path in sorted(p for p in stage.rglob("*") if p.is_file()):
            name = zipfile.ZipInfo(path.relative_to(stage).as_posix(), _EPOCH)
            name.compress_type, name.external_attr = zipfile.ZIP_LZMA, 0o644 << 16
            archive.writestr(name, path.read_bytes())


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """Give the folder of a study, which `source` is itself or holds as an archive. An archive is unpacked for a while.

    Raises:
        UserError: `source` is neither, or the archive is broken, claims to be larger than 4 GiB or names files outside.
    """
    if source.is_dir():
        yield source
        return
    expected = f"{source}: expected a study's folder or an archive that `study pack` has written"
    if not source.is_file():
        raise UserError(f"{expected}; found nothing{nearby_files(source, f'*{ENDING}')}")
    with TemporaryDirectory() as scratch:
        try:
            with source.open("rb") as file:
                if file.read(2) != b"PK":
                    raise UserError(f"{expected}; found a file that is no zip archive")
            with zipfile.ZipFile(source) as archive:
                _check_members(archive, source)
                archive.extractall(scratch)
        except UserError:
            raise
        except _BROKEN as e:
            raise UserError(f"{source}: the archive cannot be read: {e!r}") from None
        yield Path(scratch)


def _check_members(archive: zipfile.ZipFile, source: Path) -> None:
    total = sum(member.file_size for member in archive.infolist())
    if total > _LARGEST_BYTES:
        raise UserError(f"{source}: the archive claims {total / 2**30:.1f} GiB of content; expected at most 4 GiB")
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
            raise UserError(f"{source}: the archive names a file outside its folder: {member.filename!r}")
        if path.suffix not in _ENDINGS:
            raise UserError(f"{source}: an archive holds {', '.join(_ENDINGS)} files only, found {member.filename!r}")


def main(args: argparse.Namespace) -> int:
    """Write the archive, print its path and size, and return 0."""
    output = args.output or args.folder.resolve().with_name(args.folder.resolve().name + ENDING)
    pack(args.folder, output, args.exact, args.trust)
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")
    return 0
