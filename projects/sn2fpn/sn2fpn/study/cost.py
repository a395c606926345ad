"""What the variants of a study cost: parameters, multiply-adds and activations of their parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_write
from ..config import CfgNode
from ..errors import UserError
from ..modeling import build_model
from ..modeling.analysis import Analysis, analyze

if TYPE_CHECKING:
    from .file import Study

__all__ = ["costs_table", "evaluation_size", "measure_costs"]


def measure_costs(study: Study, folder: str | Path) -> dict[str, Any]:
    """Count every variant's parts and write `costs.json`.

    Returns:
        `{"<variant>": {"parameters", "flops", "activations": {"trunk": …, "pyramid": …, …}, "size": [h, w]}}`: plain
        numbers for one padded image of that size; see `analyze` for what is counted.

    Raises:
        UserError: a variant that cannot be built, or see `evaluation_size`.
    """
    costs = {
        name: {"parameters": a.parameters, "flops": a.flops, "activations": a.activations, "size": list(a.size)}
        for name, a in _analyses(study).items()
    }
    with atomic_write(Path(folder) / "costs.json") as file:
        json.dump(costs, file, indent=2)
    return costs


def costs_table(study: Study) -> list[dict[str, Any]]:
    """A row per variant, with the columns' titles as keys, as `tabulate(rows, headers="keys")` takes them.

    Raises:
        UserError: see `measure_costs`.
    """
    rows = []
    for variant, a in zip(study.variants, _analyses(study).values(), strict=True):
        solver = study.config(variant, study.seeds[0]).SOLVER
        rows.append(
            {
                "variant": variant.name,
                "parameters (M)": sum(a.parameters.values()) / 1e6,
                "pyramid (M)": a.parameters["pyramid"] / 1e6,
                "GFLOPs": sum(a.flops.values()) / 1e9,
                "pyramid (GFLOPs)": a.flops["pyramid"] / 1e9,
                "input": f"{a.size[0]}x{a.size[1]}",
                "iterations": solver.MAX_ITER,
                "images per iteration": solver.IMS_PER_BATCH,
            }
        )
    return rows


def evaluation_size(cfg: CfgNode) -> tuple[int, int]:
    """(height, width) of the largest image that a configuration evaluates on, before padding.

    Raises:
        UserError: it leaves images in their own size.
    """
    height, width = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if height < 1:
        raise UserError(
            "INPUT.MIN_SIZE_TEST 0 leaves images in their own size, but costs are those of one size; "
            "expected the short edge in pixels"
        )
    return height, width


def _analyses(study: Study) -> dict[str, Analysis]:
    out = {}
    for variant in study.variants:
        cfg = study.config(variant, study.seeds[0]).clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        try:
            out[variant.name] = analyze(build_model(cfg), evaluation_size(cfg))
        except UserError as e:
            raise UserError(f"variant {variant.name!r}: {e}") from None
    return out
