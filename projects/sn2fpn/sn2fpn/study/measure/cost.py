"""The cost of a study's variants: parameters, multiply-adds and activations of their parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...config import CfgNode
from ...errors import UserError
from ...modeling import build_model
from ...modeling.analysis import Analysis, analyze
from ...modeling.build import without_values
from ..files import write_json
from ..spec.study import Study

__all__ = ["costs_table", "evaluation_size", "measure_costs"]


def measure_costs(study: Study, folder: str | Path) -> dict[str, Any]:
    """Count the cost of every variant's parts and write `costs.json`.

    Returns:
        The content of the file, `{"<variant>": {"parameters", "flops", "activations": {"trunk": …, "pyramid": …, …},
        "size": [height, width]}}`, for one image of that size, padded; `analyze` defines what is counted.
    """
    costs = {
        name: {"parameters": a.parameters, "flops": a.flops, "activations": a.activations, "size": list(a.size)}
        for name, a in _analyses(study).items()
    }
    write_json(Path(folder) / "costs.json", costs)
    return costs


def costs_table(study: Study) -> list[dict[str, Any]]:
    """Return a row per variant, {column title: value}."""
    rows = []
    for variant, a in zip(study.variants, _analyses(study).values(), strict=True):
        solver = study.config(variant).SOLVER
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
    """Return the (height, width) of the largest image of an evaluation before padding; a UserError if there is none."""
    height, width = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if height < 1:
        raise UserError(
            "INPUT.MIN_SIZE_TEST 0 does not resize images, but costs are counted for one size; "
            "expected the short edge in pixels"
        )
    return height, width


def _analyses(study: Study) -> dict[str, Analysis]:
    out = {}
    for variant in study.variants:
        try:
            out[variant.name] = _analysis(study.config(variant))
        except UserError as e:
            raise UserError(f"variant {variant.name!r}: {e}") from None
    return out


def _analysis(cfg: CfgNode) -> Analysis:
    """Count the model of a configuration without memory for its weights, unless one of its modules needs numbers."""
    size = evaluation_size(cfg)
    cfg.MODEL.DEVICE = "meta"
    try:
        with without_values():
            return analyze(build_model(cfg), size)
    except UserError:
        raise
    except Exception:  # an error that is not due to the missing numbers comes again
        cfg.MODEL.DEVICE = "cpu"
        return analyze(build_model(cfg), size)
