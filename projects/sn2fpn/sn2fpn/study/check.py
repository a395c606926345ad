"""Before a study runs: is every cell's configuration sound, and do the folders fit the study file?"""

from __future__ import annotations

from pathlib import Path

from ..engine import default_argument_parser, import_files, prepare
from ..errors import UserError, did_you_mean
from ..pyramids import PYRAMIDS, backbone_names
from .cells import command_line
from .file import Cell, Study, cell_folder
from .records import differing_keys

__all__ = ["check_folders", "check_study"]

_SHOWN = 6  # keys and cells in a message


def check_study(study: Study, folder: Path, num_gpus: int = 1) -> None:
    """Read the configuration of every variant as its training will.

    Raises:
        UserError: the first mistake, and where in the study file it is.
    """
    import_files(study.imports, f"{study.path}: IMPORTS:")
    if not study.base.is_file():
        nearby = [str(p) for p in study.base.parent.glob("*.y*ml")] if study.base.parent.is_dir() else []
        raise UserError(
            f"{study.path}: BASE: no such file {study.base}" + (did_you_mean(str(study.base), nearby) if nearby else "")
        )
    for variant in study.variants:
        cfg = study.config(variant, study.seeds[0])
        if cfg.MODEL.BACKBONE.NAME not in backbone_names() and study.engine != "detectron2":
            value = variant.axes.get("pyramid", "")
            named = value if f"build_sn2_{value}_backbone" == cfg.MODEL.BACKBONE.NAME else cfg.MODEL.BACKBONE.NAME
            choices = PYRAMIDS if named == value else backbone_names()
            raise UserError(
                f"{study.path}: variant {variant.name!r}: unknown pyramid {named!r}{did_you_mean(named, choices)}"
            )
        for metric in study.metrics:
            if metric.startswith("segm/") and not cfg.MODEL.MASK_ON:
                raise UserError(
                    f"{study.path}: METRICS: {metric} needs masks, and MODEL.MASK_ON is False in variant "
                    f"{variant.name!r}"
                )
        arguments = command_line(study, Cell(variant, study.seeds[0]), folder, num_gpus)
        try:
            prepare(default_argument_parser().parse_args(arguments))
        except UserError as e:
            raise UserError(f"{study.path}: variant {variant.name!r}: {e}") from None


def check_folders(study: Study, folder: Path) -> None:
    """Refuse to go on when a cell was begun with another configuration.

    Raises:
        UserError: which cells, which keys differ, and what to do.
    """
    found = {cell: keys for cell in study.cells if (keys := differing_keys(cell_folder(folder, cell), study, cell))}
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
        f"{study.path}: these cells in {folder} were begun with another configuration:\n"
        + "\n".join(lines)
        + "\nThey would not be comparable with new ones. Either put the old values back; or keep both: give the study "
        "another NAME, or run with another --output; or remove these cells' folders to train them again"
    )
