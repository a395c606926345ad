"""Checks before a study runs: every variant's configuration, and whether existing cells fit the study file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...config import CfgNode, get_cfg
from ...data import class_names, register_custom
from ...data.catalog import share_images
from ...engine import default_argument_parser, prepare
from ...errors import UserError, check_choice, did_you_mean
from ...evaluation import score_names
from ...pyramids import PYRAMIDS, backbone_names
from ...shipped import nearby_names
from ..folder import CellFolder
from .study import Cell, Study, Variant
from .syntax import DEFAULT_METRICS, flatten, nest
from .tuning import TUNING_FOLDER, tuning_study

__all__ = ["LOCAL_KEYS", "check_folders", "check_study"]

LOCAL_KEYS = (
    *("MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.CUDA_GRAPHS", "DATASETS.CUSTOM", "DATALOADER.NUM_WORKERS"),
    "OUTPUT_DIR",
)
"""Keys that may differ between machines; data are compared by their fingerprints, and all or none have weights."""

_SHOWN = 6  # keys and cells in a message
_WITHOUT_EFFECT = ("OUTPUT_DIR", "MODEL.CUDA_GRAPHS", "DATALOADER.NUM_WORKERS")  # on what a cell learns
_PLACES = ("MODEL.WEIGHTS", "DATASETS.CUSTOM", "MODEL.DEVICE")  # which finished cells need no more


def check_study(study: Study, folder: Path, num_gpus: int = 1) -> None:
    """Read the configuration of every variant as its training will; a UserError says where the first mistake is."""
    study.import_files()
    if not study.base.is_file():
        raise UserError(f"{study.path}: BASE: no such file {study.base}{nearby_names(study.base, 'configs', '*.y*ml')}")
    for variant in study.variants:
        _check_axes(study, variant)
        _check_variant(study, variant, folder, num_gpus)
    if study.tune:
        _check_tuning(study, folder, num_gpus)


def _check_tuning(study: Study, folder: Path, num_gpus: int) -> None:
    """Check the variants that are trained for tuning, and that no test set takes part in the choice."""
    for variant in study.variants:
        tested = study.config(variant).DATASETS.TEST
        for tuned, test_set in itertools.product(study.tune_sets, tested):
            if share_images(tuned, test_set):
                also = "is also" if tuned == test_set else f"shares images with {test_set}"
                raise UserError(
                    f"{study.path}: TUNE_SETS: {tuned} {also} in DATASETS.TEST; values that are chosen on the test "
                    "set would make its scores too good, so name another data set"
                )
    _check_tuned_keys(study)
    tuning = tuning_study(study)
    for variant in tuning.variants:
        _check_variant(tuning, variant, folder / TUNING_FOLDER, num_gpus)


def _check_axes(study: Study, variant: Variant) -> None:
    """Refuse two axes that give a key different values, because one of the two would have no effect."""
    pairs = itertools.combinations(variant.axes.items(), 2)
    for (axis, value), (other_axis, other) in pairs:
        keys, others = study.axes[axis][value], study.axes[other_axis][other]
        key = next((key for key in keys if key in others and keys[key] != others[key]), None)
        if key:
            raise UserError(
                f"{study.path}: {key} is set by AXES.{axis}.{value} to {keys[key]!r} and by "
                f"AXES.{other_axis}.{other} to {others[key]!r}; let one of them set it, join the two axes into one, or "
                f"leave {variant.name!r} out by EXCLUDE"
            )


def _check_tuned_keys(study: Study) -> None:
    """Refuse axes that set a key which TUNE tries, because the tuned value would take the place of theirs."""
    for axis, values in study.axes.items():
        for variant in study.variants:
            key = next((key for key in values[variant.axes[axis]] if key in study.tune), None)
            if key and variant.name not in study.tuned:
                raise UserError(f"{study.path}: TUNE: {key} is set by AXES.{axis}, too; leave it out in one of them")


def _check_variant(study: Study, variant: Variant, folder: Path, num_gpus: int) -> None:
    where = f"{study.path}: variant {variant.name!r}"
    cfg = study.config(variant)
    backbone, value = cfg.MODEL.BACKBONE.NAME, variant.axes.get("pyramid", "")
    if backbone not in backbone_names() and study.engine != "detectron2":
        from_axis = f"build_sn2_{value}_backbone" == backbone
        named, choices = (value, PYRAMIDS) if from_axis else (backbone, backbone_names())
        own = "(IMPORTS names the file of a pyramid of your own)"
        raise UserError(f"{where}: unknown pyramid {named!r}{did_you_mean(named, choices)} {own}")
    for metric in study.metrics:
        if metric.startswith("segm/") and not cfg.MODEL.MASK_ON:
            raise UserError(
                f"{study.path}: METRICS: {metric} needs masks, but MODEL.MASK_ON is False in variant {variant.name!r}"
            )
    cell = study.first_cell(variant)
    arguments = study.training_arguments(cell, CellFolder(folder, cell).path, num_gpus)
    try:
        prepare(default_argument_parser().parse_args(arguments))
    except UserError as e:
        raise UserError(f"{where}: {e}") from None
    _check_metrics(study, cfg)


def _check_metrics(study: Study, cfg: CfgNode) -> None:
    """Check that the evaluators of the test sets give the metrics.

    Those of `METRICS` when it is left out may be missing, but not the first one, because VOC has no sizes of objects.
    Detectron2 gives no AR.
    """
    register_custom(cfg.DATASETS.CUSTOM)  # tells the metric of a data set
    of_classes = any("-" in metric for metric in study.metrics)
    classes = {test_set: _known_classes(test_set) if of_classes else () for test_set in cfg.DATASETS.TEST}
    given = [name for test_set in classes for name in score_names(cfg, test_set, classes[test_set] or ())]
    if study.engine == "detectron2":
        given = [name for name in given if "/AR" not in name]
    for i, metric in enumerate(study.metrics if given else ()):
        score = metric.partition("-")[0] if None in classes.values() else metric
        check_choice(f"{study.path}: METRICS", score, given if i == 0 else dict.fromkeys([*given, *DEFAULT_METRICS]))


def _known_classes(test_set: str) -> list[str] | None:
    """Return the classes of a data set, or None if they are not known on this machine."""
    try:
        return class_names(test_set)
    except UserError:
        return None


def check_folders(study: Study, folder: Path) -> None:
    """Raise a UserError if cells in the study's folder were started with another configuration, and say what to do."""
    found = {cell: keys for cell in study.cells if (keys := _differing_keys(study, cell, folder))}
    if not found:
        return
    lines = []
    for cell, keys in list(found.items())[:_SHOWN]:
        shown = [f"{key} was {old!r}, now {new!r}" for key, (old, new) in list(keys.items())[:_SHOWN]]
        more = f"; {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        lines.append(f"  {cell.name}: {'; '.join(shown)}{more}")
    if len(found) > _SHOWN:
        lines.append(f"  … and {len(found) - _SHOWN} more cells")
    raise UserError(
        f"{study.path}: these cells in {folder} were started with another configuration:\n"
        + "\n".join(lines)
        + "\nThey would not be comparable with new ones. Put the old values back; or keep both, by giving the study "
        "another NAME or another --output; or remove these cells' folders to train them again"
    )


def _differing_keys(study: Study, cell: Cell, folder: Path) -> dict[str, tuple[Any, Any]]:
    """Return {config key: (value in the cell's folder, value in the study)} where the two differ.

    A cell that has just been started has no configuration in its folder yet, but what it sets on top of BASE.
    """
    place = CellFolder(folder, cell)
    stored = flatten(place.configuration()) or _as_configured(place.identity().get("overrides", {}))
    wanted = flatten(yaml.safe_load(study.config(cell.variant, cell.seed).dump()))
    ignored = (*_WITHOUT_EFFECT, *(_PLACES if place.is_finished else ()))
    keys = [key for key in wanted if key in stored and key not in ignored]
    return {key: (stored[key], wanted[key]) for key in keys if stored[key] != wanted[key]}


def _as_configured(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides with the values that a configuration has for them, such as a number for the text "1e-2"."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(nest(overrides))
    values = flatten(yaml.safe_load(cfg.dump()))
    return {key: values[key] for key in overrides}
