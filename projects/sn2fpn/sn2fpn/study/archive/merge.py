"""`python -m sn2fpn.study merge` joins studies whose cells were trained separately, for example on several machines."""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ...config import CfgNode, get_cfg
from ...errors import UserError
from ..files import read_json, write_json
from ..folder import CellFolder
from ..spec.check import check_folders
from ..spec.study import Study
from ..spec.syntax import flatten, nest
from ..spec.tuning import TUNING_FOLDER
from . import ENDING
from .pack import opened, pack

__all__ = ["main", "merge"]

_LOCAL = ("MODEL.WEIGHTS", "MODEL.DEVICE", "DATASETS.CUSTOM", "DATALOADER.NUM_WORKERS", "OUTPUT_DIR")
"""Keys that may differ between machines; what the weights and the data are is compared by their fingerprints."""
_DATA = ("training data", "test data")
_MEASURES = ("costs.json", "features.json")


@dataclass(frozen=True)
class _Source:
    """A study that is merged."""

    name: Path  # as the user named it
    folder: Path
    study: Study

    def common(self) -> dict[str, Any]:
        """Return the whole configuration that all cells share, by dotted keys."""
        cfg = get_cfg()
        cfg.merge_from_file(str(self.study.base))
        cfg.merge_from_other_cfg(CfgNode(nest(self.study.settings)))
        return flatten(cfg)

    def places(self) -> list[CellFolder]:
        return [CellFolder(self.folder, cell) for cell in self.study.cells]


def merge(sources: Sequence[Path], output: Path) -> Path:
    """Join studies, each of them a folder or an archive, in a new folder or archive.

    Studies with the same axes share their cells, and the result has the seeds of all. Other studies must agree in
    everything that their axes do not set; the result has one axis, `variant`, with the variants of all. A finished cell
    is preferred to an unfinished one.

    Args:
        sources: two or more studies.
        output: the folder to make, or a file that ends in ".study.zip".

    Raises:
        UserError: the output exists; or the studies have other base configurations, engines, data or metrics; or a
            variant or a finished cell differs between them.
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
            _write(found, folder, output.name.removesuffix(ENDING))
            if as_archive:
                pack(folder, output, exact=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return output


def _load(name: Path, folder: Path) -> _Source:
    return _Source(name, folder, Study.load(folder / "study.yaml"))


def _check_together(sources: Sequence[_Source]) -> None:
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
            if key not in varied and key not in _LOCAL and settings.get(key) != theirs.get(key):
                raise UserError(
                    f"{both}: {key} is {settings.get(key)!r} in the one and {theirs.get(key)!r} in the other"
                )
    _check_data(sources)


def _check_data(sources: Sequence[_Source]) -> None:
    for what in _DATA:
        seen: dict[str, str] = {}
        for source in sources:
            for place in source.places():
                found = place.identity().get("fingerprint", {}).get(what)
                if found is not None:
                    seen.setdefault(found, f"{source.name}: {place.cell.name}")
        if len(seen) > 1:
            cells = " | ".join(f"{found} in {where}" for found, where in seen.items())
            raise UserError(f"the studies do not belong together: the {what} differ by their fingerprints: {cells}")


def _write(sources: Sequence[_Source], folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    tuning = [_load(s.name, t) for s in sources if (t := s.folder / TUNING_FOLDER).is_dir()]
    if tuning:
        _check_together(tuning)
        _write(tuning, folder / TUNING_FOLDER, f"{name}-tuning")
    _write_study(sources, folder, name)
    chosen: dict[str, CellFolder] = {}
    for place in itertools.chain.from_iterable(source.places() for source in sources):
        if place.path.is_dir():
            chosen[place.cell.name] = _better(chosen.get(place.cell.name), place)
    for cell, place in chosen.items():
        ignored = shutil.ignore_patterns("*.pth", ".lock", "last_checkpoint", "events.out.*")
        shutil.copytree(place.path, folder / "cells" / cell, ignore=ignored)
    for source in sources:
        if (source.folder / "data").is_dir():
            shutil.copytree(source.folder / "data", folder / "data", dirs_exist_ok=True)
    for file in _MEASURES:
        _join_measures([source.folder / file for source in sources], folder / file)
    _copy_speed(sources, folder)


def _better(one: CellFolder | None, other: CellFolder) -> CellFolder:
    """Return the finished one of two folders of a cell; a UserError says that both are finished and differ."""
    if one is None or not one.is_finished:
        return other
    if other.is_finished and one.result()["results"] != other.result()["results"]:
        raise UserError(
            f"{one.path} and {other.path} are results of the same cell {one.cell.name} and differ; "
            "remove one of them, or give one study other SEEDS"
        )
    return one


def _write_study(sources: Sequence[_Source], folder: Path, name: str) -> None:
    """Write the merged study file and its base configuration, which holds the settings of the first study."""
    first = sources[0].study
    base = get_cfg()
    base.merge_from_file(str(first.base))
    base.merge_from_other_cfg(CfgNode(nest(first.settings)))
    (folder / "base.yaml").write_text(base.dump(), encoding="utf-8")
    same = all(source.study.axes == first.axes and source.study.exclude == first.exclude for source in sources)
    variants = _variants(sources)
    tuned = [source.study for source in sources if source.study.tune]
    keys = dict.fromkeys(key for study in tuned for key in study.tune)
    tune = {key: list(dict.fromkeys(v for study in tuned for v in study.tune.get(key, []))) for key in keys}
    content = {
        "NAME": name,
        "BASE": "base.yaml",
        "AXES": first.axes if same else {"variant": variants},
        "EXCLUDE": list(first.exclude) if same else [],
        "SEEDS": sorted({seed for source in sources for seed in source.study.seeds}),
        "BASELINE": first.baseline.axes if same else {"variant": first.baseline.name},
        "METRICS": list(first.metrics),
        "ENGINE": first.engine,
        "QUESTIONS": list({q.text: q.entry() for source in sources for q in source.study.questions}.values()),
        "TUNE": tune,
        "TUNE_SETS": list(dict.fromkeys(name for study in tuned for name in study.tune_sets)),
        "TUNE_SEED": tuned[0].tune_seed if tuned else first.tune_seed,
        "TUNE_SET": _tuning_settings(tuned),
        "TUNED": _joined_choices(sources) if same else {},
        "IMPORTS": sorted({file.name for source in sources for file in source.study.imports}),
    }
    with (folder / "study.yaml").open("w", encoding="utf-8") as file:
        yaml.safe_dump(content, file, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def _tuning_settings(tuned: Sequence[Study]) -> dict[str, Any]:
    """Return TUNE_SET of the studies that tune; a UserError says that it is not the same in all of them."""
    first = tuned[0].tune_set if tuned else {}
    for study in tuned:
        if study.tune_set != first:
            raise UserError(f"{study.path}: TUNE_SET is {study.tune_set}, and {first} in {tuned[0].path}")
    return first


def _joined_choices(sources: Sequence[_Source]) -> dict[str, Any]:
    """Return the tuned values of all studies; a UserError names a variant for which they differ."""
    joined: dict[str, Any] = {}
    for source in sources:
        for variant, keys in source.study.tuned.items():
            if joined.setdefault(variant, keys) != keys:
                raise UserError(f"TUNED.{variant} is {keys} in {source.name} and {joined[variant]} in another study")
    return joined


def _variants(sources: Sequence[_Source]) -> dict[str, dict[str, Any]]:
    """Return what each variant of all studies changes in the settings of the first study, by the variants' names.

    A UserError names a variant whose settings differ between studies.
    """
    common = sources[0].common()
    found: dict[str, tuple[dict[str, Any], Path]] = {}
    for source in sources:
        for variant in source.study.variants:
            values = flatten(source.study.config(variant, common["SEED"]))
            keys = {k: v for k, v in values.items() if k not in _LOCAL and v != common.get(k)}
            known, where = found.setdefault(variant.name, (keys, source.name))
            if known != keys:
                raise UserError(f"the variant {variant.name!r} has other settings in {where} than in {source.name}")
    return {name: keys for name, (keys, _) in found.items()}


def _join_measures(paths: Sequence[Path], target: Path) -> None:
    """Join files of measures by variant, where the first study that measured a variant counts."""
    joined: dict[str, Any] = {}
    for content in map(read_json, paths):
        of_variants = {k: v for k, v in content.items() if k == "variants"}
        joined = content | joined
        if of_variants:
            joined["variants"] = of_variants["variants"] | joined["variants"]
    if joined:
        write_json(target, joined)


def _copy_speed(sources: Sequence[_Source], folder: Path) -> None:
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
