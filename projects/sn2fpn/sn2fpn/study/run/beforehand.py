"""What a run looks at before it trains: whether the cells that are there fit the study, and what a dry run says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate

from ...errors import counted
from ..folder import CellFolder, started_cells
from ..measure.cost import costs_table
from ..spec.check import check_folders
from ..spec.own_code import check_code
from ..spec.study import Cell, Study
from ..spec.tuning import TUNING_FOLDER, Choice, choose, tuning_cells, tuning_study

__all__ = ["check_cells", "dry_run", "with_best_values"]


def check_cells(study: Study, folder: Path) -> None:
    """Print the cells in the folder that the study no longer has, which are kept, but ignored by the report.

    A UserError says that cells were trained with another configuration, or with other code of IMPORTS.
    """
    check_folders(study, folder)
    check_code(study, folder)
    known = {cell.name for cell in study.cells}
    strangers = [name for name in started_cells(folder) if name not in known]
    if strangers:
        print(f"No longer in {study.path}, kept but ignored: {', '.join(strangers)}")


def with_best_values(study: Study, folder: Path) -> tuple[Study, list[Choice]]:
    """Return the study with the best values of the variants whose tuning cells have all finished, and these choices.

    Variants that have values in TUNED keep them.
    """
    from ..measure.results import tuning_scores  # imports statistics and drawings, which takes a while

    scores = tuning_scores(tuning_study(study), folder / TUNING_FOLDER)
    choices = [choice for choice in choose(study, scores) if choice.variant not in study.tuned]
    return replace(study, tuned=study.tuned | {choice.variant: choice.keys for choice in choices}), choices


def dry_run(study: Study, folder: Path, chosen: list[Cell], needed: list[Cell]) -> None:
    """Print the costs of the variants of the chosen cells, and how many cells are finished and would be trained.

    Args:
        study: The study, which has been checked.
        folder: The study's folder, which need not exist. A UserError says that a run would refuse cells in it.
        chosen: The cells that a run would train unless they are finished.
        needed: The tuning cells that these wait for.
    """
    tuning = folder / TUNING_FOLDER
    if study.tune and tuning.is_dir() and tuning_cells(study):
        check_cells(tuning_study(study), tuning)
        study, _ = with_best_values(study, folder)
    check_cells(study, folder)
    cells = Counter(cell.variant.name for cell in chosen)
    rows = [row | {"cells": cells[row["variant"]]} for row in costs_table(study)]
    print(tabulate([row for row in rows if row["cells"]], headers="keys", floatfmt=".2f"))
    of = "" if len(chosen) == len(study.cells) else f" of {len(study.cells)}"
    for_tuning = f" after {counted(len(needed), 'cell')} for tuning{_progress(tuning, needed)}" if needed else ""
    print(f"{len(chosen)}{of} cells{_progress(folder, chosen)}{for_tuning}; nothing was trained")


def _progress(folder: Path, cells: Sequence[Cell]) -> str:
    """Return how many cells are finished and how many would be trained; "" if none is finished."""
    finished = sum(CellFolder(folder, cell).is_finished for cell in cells)
    return f" ({finished} finished, {len(cells) - finished} to train)" if finished else ""
