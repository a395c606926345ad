"""The study file of merged studies: the variants, seeds, questions and tuned values of all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ...config import CfgNode, get_cfg
from ...errors import UserError
from ..folder import CellFolder
from ..spec.check import LOCAL_KEYS
from ..spec.study import Study, seeds_entry
from ..spec.syntax import flatten, nest

__all__ = ["Source", "differ", "same_axes", "write_study"]


@dataclass(frozen=True)
class Source:
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


def differ(key: str, one: Any, other: Any) -> bool:
    """Return whether two values of a configuration key keep studies from being merged.

    Machines may have other devices, and the files of data and weights in other places, but weights on all or on none.
    """
    if key == "MODEL.WEIGHTS":
        return bool(one) != bool(other)
    return key not in LOCAL_KEYS and one != other


def same_axes(sources: Sequence[Source]) -> bool:
    """Return whether the studies share their cells."""
    first = sources[0].study
    return all(source.study.axes == first.axes and source.study.exclude == first.exclude for source in sources)


def write_study(sources: Sequence[Source], folder: Path, name: str) -> None:
    """Write the merged study file and its base configuration, which holds the settings of the first study."""
    first = sources[0].study
    base = get_cfg()
    base.merge_from_file(str(first.base))
    base.merge_from_other_cfg(CfgNode(nest(first.settings)))
    (folder / "base.yaml").write_text(base.dump(), encoding="utf-8")
    same, variants = same_axes(sources), _variants(sources)
    tuned = [source for source in sources if source.study.tune]
    content = {
        "NAME": name,
        "BASE": "base.yaml",
        "AXES": first.axes if same else {"variant": variants},
        "EXCLUDE": list(first.exclude) if same else [],
        "SEEDS": seeds_entry(_joined_seeds(sources)),
        "BASELINE": first.baseline.axes if same else {"variant": first.baseline.name},
        "METRICS": list(first.metrics),
        "ENGINE": first.engine,
        "QUESTIONS": _questions(sources),
        "TUNE": _joined_values(tuned),
        "TUNE_SETS": list(dict.fromkeys(name for source in tuned for name in source.study.tune_sets)),
        "TUNE_SEED": _same_in_all(tuned or sources[:1], "TUNE_SEED"),
        "TUNE_SET": _same_in_all(tuned or sources[:1], "TUNE_SET"),
        "TUNED": _joined_choices(sources) if tuned else {},
        "IMPORTS": _imports(sources, folder),
    }
    with (folder / "study.yaml").open("w", encoding="utf-8") as file:
        yaml.safe_dump(content, file, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    Study.load(folder / "study.yaml")  # refuses questions about variants that no study has


def _questions(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return the questions of all studies, equal ones once; those that waited for one of these studies wait no longer.

    Two studies may ask for different variants with the same words; then both questions stay.
    """
    merged = {source.study.name for source in sources}
    asked = [question for source in sources for question in source.study.questions]
    asked = [replace(question, merged_with="") if question.merged_with in merged else question for question in asked]
    return [question.entry() for question in dict.fromkeys(asked)]


def _imports(sources: Sequence[Source], folder: Path) -> list[str]:
    """Return the Python files that the studies import, relative to the merged folder; equal ones count once.

    They stay where they are, so that a folder or archive never brings code. An archive names files without their
    folders; where no other study has such a file, the user must put it beside the merged study file.
    """
    found = {
        (file.name, file.read_bytes() if file.is_file() else file): os.path.relpath(file, folder)
        for source in sources
        for file in source.study.imports
        if source.name.is_dir() and file.exists()  # a folder is a package
    }
    absent = {file.name for source in sources for file in source.study.imports} - {name for name, _ in found}
    return sorted([*found.values(), *absent])


def _joined_seeds(sources: Sequence[Source]) -> dict[str, list[int]]:
    """Return the seeds of each variant in all studies."""
    joined: dict[str, set[int]] = {}
    for source in sources:
        for variant, seeds in source.study.seeds.items():
            joined.setdefault(variant, set()).update(seeds)
    return {variant: sorted(seeds) for variant, seeds in joined.items()}


def _joined_values(tuned: Sequence[Source]) -> dict[str, list[Any]]:
    """Return all values that were tried for each key, numbers in their order."""
    joined: dict[str, list[Any]] = {}
    for source in tuned:
        for key, values in source.study.tune.items():
            joined[key] = list(dict.fromkeys([*joined.get(key, []), *values]))
    return {key: sorted(v) if all(isinstance(x, (int, float)) for x in v) else v for key, v in joined.items()}


def _same_in_all(sources: Sequence[Source], key: str) -> Any:
    """Return a value of the study files; a UserError says that it is not the same in all of them."""
    first, *others = [(getattr(source.study, key.lower()), source.name) for source in sources]
    for value, name in others:
        if value != first[0]:
            raise UserError(f"{name}: {key} is {value}, and {first[0]} in {first[1]}")
    return first[0]


def _joined_choices(sources: Sequence[Source]) -> dict[str, Any]:
    """Return the tuned values of all studies; a UserError names a variant for which they differ.

    The variants of a study without TUNE have no values, so that running the merged study does not tune them.
    """
    joined: dict[str, Any] = {}
    for source in sources:
        untuned = {} if source.study.tune else {variant.name: {} for variant in source.study.variants}
        for variant, keys in (untuned | source.study.tuned).items():
            if joined.setdefault(variant, keys) != keys:
                raise UserError(f"TUNED.{variant} is {keys} in {source.name} and {joined[variant]} in another study")
    return joined


def _variants(sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """Return what each variant of all studies changes in the settings of the first study, by the variants' names.

    Of the keys that may differ between machines, those that a variant's axes set are kept. A UserError names a variant
    whose other settings differ between studies.
    """
    common = sources[0].common()
    found: dict[str, tuple[dict[str, Any], Path]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for source in sources:
        for variant in source.study.variants:
            values = flatten(source.study.config(variant, common["SEED"]))
            known, where = found.setdefault(variant.name, (values, source.name))
            if other := [key for key in known | values if differ(key, known.get(key), values.get(key))]:
                raise UserError(
                    f"the variant {variant.name!r} has other settings in {where} than in {source.name}: "
                    + ", ".join(other)
                )
            own = {k for k in LOCAL_KEYS if k in variant.overrides}
            changed = {k: v for k, v in values.items() if k in own or differ(k, common.get(k), v)}
            settings.setdefault(variant.name, changed)
    return settings
