"""The study file: which variants of a configuration are compared, with which seeds and by which metrics."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...atomic import atomic_write
from ...config import CfgNode, get_cfg
from ...errors import UserError, did_you_mean
from ...imports import files_to_run, import_files
from ...shipped import find_file
from ...trust import check_own
from .questions import Question, read_questions
from .syntax import flatten, nest, read_yaml
from .variants import Axes, Cell, Variant, choose_baseline, expand, folder_name_problem, read_axis, read_seeds, select

__all__ = ["Cell", "Study", "Variant", "seeds_entry"]

_METRIC = re.compile(r"(bbox|segm)/\S(.*\S)?")


@dataclass(frozen=True)
class Study:
    """A study file that has been read."""

    name: str  # of the study and of its folder
    path: Path  # the file that was read
    base: Path  # the YAML configuration that all cells share
    settings: dict[str, Any]  # configuration keys that every cell sets on top of `base`
    axes: Axes  # for every axis and value, the configuration keys that the value sets
    exclude: tuple[dict[str, str], ...]  # combinations of axis values that are left out
    variants: tuple[Variant, ...]  # the product of the axes without what `exclude` names
    seeds: dict[str, tuple[int, ...]]  # each variant, by name, is trained once with each of its seeds
    baseline: Variant  # the variant that the others are compared with
    metrics: tuple[str, ...]  # the report's columns, as "task/metric"; the first is the headline of the conclusions
    engine: str  # "native", "detectron2" or "auto"
    imports: tuple[Path, ...]  # Python files that are imported before configurations are read
    questions: tuple[Question, ...]  # what the report answers
    tune: dict[str, list[Any]]  # configuration keys and the values that are tried for each variant
    tune_sets: tuple[str, ...]  # the data sets on which the values are compared; never the test sets
    tune_seed: int
    tune_set: dict[str, Any]  # configuration keys that the trainings which try values set besides
    tuned: dict[str, dict[str, Any]]  # for each variant, by name, the configuration keys that were found best
    trust: bool = False  # whether these may be imported although somebody else may have written them

    @classmethod
    def load(cls, path: str | Path, trust: bool = False) -> Study:
        """Read a study file, the `study.yaml` in a study's folder, or a study of this package by name. No code is run.

        A UserError names the key at fault. `check_study` checks the files and the configurations that it refers to.
        """
        path = find_file(path, "studies")
        raw = read_yaml(path)
        name = raw["NAME"] or path.stem
        if problem := folder_name_problem(name):
            raise UserError(f"{path}: NAME: {name!r} cannot be the name of a folder, because {problem}")
        axes = {axis: read_axis(axis, values, f"{path}: AXES.{axis}") for axis, values in raw["AXES"].items()}
        exclude = tuple(select(entry, axes, f"{path}: EXCLUDE") for entry in raw["EXCLUDE"])
        variants = expand(axes, exclude, str(path))
        for metric in raw["METRICS"]:
            if not _METRIC.fullmatch(metric) or not metric.isprintable():
                raise UserError(f"{path}: METRICS: expected task/metric, e.g. bbox/AP or segm/AP50, found {metric!r}")
        names = [variant.name for variant in variants]
        tuned = {str(variant): flatten(keys) for variant, keys in raw["TUNED"].items()}
        if unknown := [variant for variant in tuned if variant not in names]:
            raise UserError(f"{path}: TUNED: unknown variant {unknown[0]!r}{did_you_mean(unknown[0], names)}")
        baseline = choose_baseline(raw["BASELINE"], axes, variants, f"{path}: BASELINE")
        return cls(
            name=name,
            path=path,
            base=_normal(find_file(raw["BASE"], "configs", path.parent)),
            settings=flatten(raw["SET"]),
            axes=axes,
            exclude=exclude,
            variants=variants,
            seeds=read_seeds(raw["SEEDS"], variants, f"{path}: SEEDS"),
            baseline=baseline,
            metrics=tuple(raw["METRICS"]),
            engine=raw["ENGINE"],
            imports=tuple(_normal(path.parent / Path(file).expanduser()) for file in raw["IMPORTS"]),
            questions=read_questions(raw["QUESTIONS"], names, baseline.name, f"{path}: QUESTIONS"),
            tune=dict(raw["TUNE"]),
            tune_sets=tuple(raw["TUNE_SETS"]),
            tune_seed=raw["TUNE_SEED"],
            tune_set=flatten(raw["TUNE_SET"]),
            tuned=tuned,
            trust=trust,
        )

    @property
    def cells(self) -> list[Cell]:
        """All cells, seed by seed, so that a study that is cut short has still compared all variants."""
        return [Cell(v, seed) for seed in self.all_seeds for v in self.variants if seed in self.seeds[v.name]]

    @property
    def all_seeds(self) -> list[int]:
        """The seeds of all variants, each once and in the order of the file."""
        return list(dict.fromkeys(seed for seeds in self.seeds.values() for seed in seeds))

    def first_cell(self, variant: Variant) -> Cell:
        """Return the cell of a variant's first seed, whose configuration stands for the variant."""
        return Cell(variant, self.seeds[variant.name][0])

    def overrides(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Return every configuration key that a cell sets on top of BASE, except OUTPUT_DIR."""
        return self.settings | variant.overrides | self.tuned.get(variant.name, {}) | {"SEED": seed}

    def config(self, variant: Variant, seed: int | None = None) -> CfgNode:
        """Return the configuration of a cell without its OUTPUT_DIR: BASE, then SET, the variant, TUNED and SEED.

        Without a seed, the cell is that of the variant's first one.
        A UserError about an unknown key or a value of the wrong type says where in the study file it is.
        """
        cfg = get_cfg()
        cfg.merge_from_file(str(self.base))
        changes = [("SET", self.settings)]
        changes += [(f"AXES.{axis}.{value}", self.axes[axis][value]) for axis, value in variant.axes.items()]
        changes += [(f"TUNED.{variant.name}", self.tuned.get(variant.name, {}))]
        for where, keys in changes:
            _refuse_own_keys(keys, f"{self.path}: {where}")
            try:
                cfg.merge_from_other_cfg(nest(keys))
            except UserError as e:
                raise UserError(f"{self.path}: {where}: {e}") from None
        cfg.SEED = self.first_cell(variant).seed if seed is None else seed
        return cfg

    def training_arguments(self, cell: Cell, output: Path, num_gpus: int = 1) -> list[str]:
        """Return the arguments for train_net.py that train a cell in the folder `output`, from its last checkpoint."""
        flags = ["--engine", self.engine, "--num-gpus", str(num_gpus), "--resume"]
        flags += [part for file in self.imports for part in ("--import", str(file))]
        keys = self.overrides(cell.variant, cell.seed) | {"OUTPUT_DIR": str(output)}
        pairs = [text for key, value in keys.items() for text in (key, str(value))]
        return [*flags, "--config-file", str(self.base), *pairs]

    def import_files(self) -> None:
        """Import the files of IMPORTS, which may register pyramids and data sets.

        A UserError says that a file fails, or that the study file or one of these is not the user's own, see `trust`.
        """
        if self.imports and not self.trust:
            names = ", ".join(map(str, self.imports))
            files = [run for file in self.imports for run in files_to_run(file)]
            check_own([self.path, *files], f"{self.path}: IMPORTS would run {names}")
        import_files(self.imports, f"{self.path}: IMPORTS:")

    def save(self, path: str | Path) -> None:
        """Write the study with all defaults filled in, so that `load(path)` gives it again; paths become relative.

        A file that holds the same already is left as it is, with its time.
        """

        def relative(file: Path) -> str:
            return os.path.relpath(file, Path(path).parent)

        content = {
            "NAME": self.name,
            "BASE": relative(self.base),
            "SET": self.settings,
            "AXES": self.axes,
            "EXCLUDE": list(self.exclude),
            "SEEDS": seeds_entry(self.seeds),
            "BASELINE": self.baseline.axes,
            "METRICS": list(self.metrics),
            "ENGINE": self.engine,
            "IMPORTS": [relative(file) for file in self.imports],
            "QUESTIONS": [question.entry() for question in self.questions],
            "TUNE": self.tune,
            "TUNE_SETS": list(self.tune_sets),
            "TUNE_SEED": self.tune_seed,
            "TUNE_SET": self.tune_set,
            "TUNED": self.tuned,
        }
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        if not Path(path).is_file() or Path(path).read_bytes() != text.encode():
            with atomic_write(path) as file:
                file.write(text)


def seeds_entry(seeds: Mapping[str, Sequence[int]]) -> list[int] | dict[str, list[int]]:
    """Return the entry SEEDS of a study file: one list where all variants have the same seeds."""
    lists = {name: list(of_variant) for name, of_variant in seeds.items()}
    first = next(iter(lists.values()))
    return first if all(other == first for other in lists.values()) else lists


def _normal(path: Path) -> Path:
    """Return a path without "..", which is that of the same file also where a folder in it is a link."""
    plain = Path(os.path.normpath(path))
    return plain if not path.exists() or (plain.exists() and plain.samefile(path)) else path.resolve()


def _refuse_own_keys(keys: Mapping[str, Any], where: str) -> None:
    for key, source in (("SEED", "SEEDS"), ("OUTPUT_DIR", "NAME and --output")):
        if key in keys:
            raise UserError(f"{where}: {key} follows from {source}; leave it out")
