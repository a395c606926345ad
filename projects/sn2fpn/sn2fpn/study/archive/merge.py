"""`python -m sn2fpn.study merge` joins studies whose cells were trained separately, for example on several machines."""

from __future__ import annotations

import argparse
import itertools
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import UserError
from ..files import read_json, with_nested_variants, write_json
from ..folder import CellFolder
from ..spec.check import check_folders
from ..spec.own_code import code_of, code_versions
from ..spec.study import Study
from ..spec.tuning import TUNING_FOLDER
from . import ENDING
from .merged_study import Source, differ, same_axes, write_study
from .pack import opened, pack

__all__ = ["main", "merge"]

logger = logging.getLogger(__name__)
_DIFFER = {
    "training data": "the training data differ by their fingerprints",
    "test data": "the test data differ by their fingerprints",
    "engine": "the engines of finished cells differ",
}
_MEASURES = ("costs.json", "features.json")
_LEFT_OUT = ("*.pth", ".lock", "last_checkpoint", "events.out.*")  # of a cell's files; the final weights are linked


def merge(sources: Sequence[Path], output: Path) -> Path:
    """Join studies, each of them a folder or an archive, in a new folder or archive.

    Studies with the same axes share their cells, and the result has the seeds of all. Other studies must agree in
    everything that their axes do not set; the result has one axis, `variant`, with the variants of all. A finished cell
    is preferred to an unfinished one. A folder has the final weights of those cells whose studies are folders with
    weights, so that speed and feature maps of all variants can be measured in one run; archives have none.

    Args:
        sources: two or more studies.
        output: the folder to make, or a file that ends in ".study.zip".

    Raises:
        UserError: the output exists; or the studies have other base configurations, engines, data, metrics or settings
            of their tuning, or one alone has initial weights; or a variant or a finished cell differs between them; or
            they have the same axes, and their cells were trained with other code of IMPORTS.
    """
    if output.exists():
        raise UserError(f"--output {output}: it exists already; name a new folder or file")
    with ExitStack() as stack:
        found = [_load(path, stack.enter_context(opened(path))) for path in sources]
        for source in found:
            check_folders(source.study, source.folder)
        _check_together(found)
        as_archive = output.name.endswith(ENDING)
        folder = Path(stack.enter_context(TemporaryDirectory())) / "study" if as_archive else output
        try:
            _write(found, folder, output.name.removesuffix(ENDING), with_weights=not as_archive)
            if as_archive:
                pack(folder, output, exact=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return output


def _load(name: Path, folder: Path) -> Source:
    return Source(name, folder, Study.load(folder / "study.yaml"))


def _check_together(sources: Sequence[Source]) -> None:
    """Raise a UserError unless all studies have the same settings, engine, metrics and data."""
    first, settings = sources[0], sources[0].common()
    varied = {key for s in sources for values in s.study.axes.values() for keys in values.values() for key in keys}
    for other in sources[1:]:
        both = f"{first.name} and {other.name} do not belong together"
        for what in ("engine", "metrics"):
            a, b = getattr(first.study, what), getattr(other.study, what)
            if a != b:
                raise UserError(f"{both}: {what.upper()} is {a!r} in the one and {b!r} in the other")
        theirs = other.common()
        for key in settings.keys() | theirs.keys():
            if key not in varied and differ(key, settings.get(key), theirs.get(key)):
                raise UserError(
                    f"{both}: {key} is {settings.get(key)!r} in the one and {theirs.get(key)!r} in the other"
                )
    _check_cells(sources)


def _check_cells(sources: Sequence[Source]) -> None:
    """Raise a UserError unless data sets are the same, by their fingerprints, and finished cells have one engine."""
    seen: dict[tuple[str, Any], dict[str, str]] = {}
    for source in sources:
        for place in source.places():
            stored = place.identity().get("fingerprint", {}) | {"engine": place.result().get("engine")}
            sets = _data_sets(source, place)
            for what in _DIFFER:
                if stored.get(what) is not None:
                    cells = seen.setdefault((what, sets.get(what)), {})
                    cells.setdefault(str(stored[what]), f"{source.name}: {place.cell.name}")
    for (what, _), cells in seen.items():
        if len(cells) > 1:
            found = " | ".join(f"{value} in {where}" for value, where in cells.items())
            raise UserError(f"the studies do not belong together: {_DIFFER[what]}: {found}")
    _check_code(sources)


def _data_sets(source: Source, place: CellFolder) -> dict[str, tuple[str, ...]]:
    """Return the names of a cell's data sets, which an axis may set."""
    sets = source.study.config(place.cell.variant).DATASETS
    return {"training data": tuple(sets.TRAIN), "test data": tuple(sets.TEST)}


def _check_code(sources: Sequence[Source]) -> None:
    """Refuse other code of IMPORTS in studies that share their cells; two others may have files with one name."""
    cells = {f"{source.name}: {place.cell.name}": code_of(place) for source in sources for place in source.places()}
    for file, versions in code_versions(cells).items():
        if len(versions) > 1:
            found = " | ".join(f"{version} in {names[0]}" for version, names in versions.items())
            problem = f"the code of {file}, a file that IMPORTS loads, differs: {found}"
            if same_axes(sources):
                raise UserError(f"the studies do not belong together: {problem}")
            logger.warning("%s", problem)


def _write(sources: Sequence[Source], folder: Path, name: str, with_weights: bool) -> None:
    folder.mkdir(parents=True)
    tuning = [_load(s.name, t) for s in sources if (t := s.folder / TUNING_FOLDER).is_dir()]
    if tuning:
        _check_together(tuning)
        _write(tuning, folder / TUNING_FOLDER, f"{name}-tuning", with_weights=False)
    write_study(sources, folder, name)
    chosen: dict[str, CellFolder] = {}
    for place in itertools.chain.from_iterable(source.places() for source in sources):
        if place.path.is_dir():
            chosen[place.cell.name] = _better(chosen.get(place.cell.name), place)
    for cell, place in chosen.items():
        shutil.copytree(place.path, folder / "cells" / cell, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        if place.weights.is_file() and with_weights:
            _link_or_copy(place.weights, folder / "cells" / cell / place.weights.name)
    for source in sources:
        if (source.folder / "data").is_dir():
            shutil.copytree(source.folder / "data", folder / "data", dirs_exist_ok=True)
    for file in _MEASURES:
        _join_measures([source.folder / file for source in sources], folder / file)
    _copy_speed(sources, folder)


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file another name, which takes no space; where the file system cannot do that, copy it."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _better(one: CellFolder | None, other: CellFolder) -> CellFolder:
    """Return the finished one of two folders of a cell, and of two equal ones one with weights.

    A UserError says that both are finished and differ.
    """
    if one is None or not one.is_finished:
        return other
    if other.is_finished and one.result()["results"] != other.result()["results"]:
        raise UserError(
            f"{one.path} and {other.path} are results of the same cell {one.cell.name} and differ; "
            "remove one of them, or give one study other SEEDS"
        )
    return other if other.is_finished and not one.weights.is_file() else one


def _join_measures(paths: Sequence[Path], target: Path) -> None:
    """Join files of measures by variant, where the first study that measured a variant counts.

    Feature maps that were measured on other images than the first ones are left out, with a warning.
    """
    joined: dict[str, Any] = {}
    for path in paths:
        content = read_json(path)
        if path.name != "features.json":
            joined = content | joined
            continue
        content = with_nested_variants(content)
        if joined and content and _about(content) != _about(joined):
            logger.warning("%s was measured on other images than the first study and is left out", path)
        elif content:
            of_both = {key: content.get(key, {}) | joined.get(key, {}) for key in ("variants", "seeds")}
            joined = content | {key: values for key, values in of_both.items() if values}
    if joined:
        write_json(target, joined)


def _about(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the measures of feature maps come from, such as the test set and the number of images."""
    return {key: value for key, value in features.items() if key not in ("variants", "seeds")}


def _copy_speed(sources: Sequence[Source], folder: Path) -> None:
    """Copy the speeds that cover all variants; speeds from several runs cannot be compared."""
    wanted = {variant.name for source in sources for variant in source.study.variants}
    for source in sources:
        if wanted <= set(read_json(source.folder / "speed.json").get("variants", {})):
            shutil.copyfile(source.folder / "speed.json", folder / "speed.json")
            return


def main(args: argparse.Namespace) -> int:
    """Merge, print the output's path, and return 0."""
    print(merge(args.sources, args.output))
    return 0
