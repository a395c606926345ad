"""The data sets and the metric of a run, from the configurations that lie in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ...config import get_cfg
from ...config.own_sets import named_entries
from ...config.yaml_limits import check_yaml
from ...data import register_custom
from ...errors import UserError
from ..build import build_evaluator
from ..detections import DetectionEvaluator

__all__ = ["evaluator_of", "register_data_sets"]

_CONFIGS = ("inference/config.yaml", "config.yaml")
"""The configuration of an evaluation in the folder of a training, and that of the training or of any other run."""
_METRICS = {"11-point": "voc_11_point", "area": "voc_area"}


def register_data_sets(run: Path) -> None:
    """Register the data sets that the configurations of a run describe, whether they were YAML or Python files.

    The entry of an evaluation counts where that of the training has the same name.

    Raises:
        UserError: a configuration cannot be read, or has an entry that describes no data set.
    """
    known: list[str] = []
    for name in _CONFIGS:
        with _reading(run / name) as stored:
            for group, key in (("DATASETS", "CUSTOM"), ("dataloader", "custom")):
                if group in stored:
                    where = f"{run / name}: {group}.{key}"
                    entries = named_entries(stored[group].get(key) or [], where)
                    new = [e for e in entries if not (isinstance(e, Mapping) and e.get("NAME") in known)]
                    known += register_custom(new, where)


def evaluator_of(run: Path | None, data_set: str) -> DetectionEvaluator:
    """Return the evaluator of a data set with the metric of a run, or without a run with the data set's own metric."""
    cfg = get_cfg()
    for name in _CONFIGS if run is not None else ():
        with _reading(run / name) as stored:
            if stored and (data_set in _test_sets(stored) or name == _CONFIGS[-1]):
                cfg.TEST.EVALUATOR = _metric(stored)
                break
    return build_evaluator(cfg, data_set)


def _test_sets(stored: dict[str, Any]) -> list[str]:
    if "DATASETS" in stored:
        return list(stored["DATASETS"].get("TEST") or ())
    names = ((stored.get("dataloader", {}).get("test") or {}).get("dataset") or {}).get("names") or ()
    return [names] if isinstance(names, str) else list(names)


def _metric(stored: dict[str, Any]) -> str:
    """Return the value of `TEST.EVALUATOR` for the metric of a configuration; "auto" stands for the data set's own."""
    if "TEST" in stored:
        return stored["TEST"].get("EVALUATOR", "auto")
    evaluators = stored.get("dataloader", {}).get("evaluator") or {}
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        kind = str(evaluator.get("_target_")).rpartition(".")[2]
        if kind == "COCOEvaluator":
            return "coco"
        if kind == "PascalVOCEvaluator":
            return _METRICS.get(evaluator.get("metric"), "voc")
    return "auto"


@contextmanager
def _reading(config: Path) -> Iterator[dict[str, Any]]:
    """Yield the configuration of a run, which is empty if there is none; an error while it is read names the file."""
    try:
        text = config.read_text(encoding="utf-8") if config.is_file() else "{}"
        check_yaml(text)
        yield yaml.safe_load(text)
    except (AttributeError, OSError, TypeError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"{config}: expected the configuration of a run, which cannot be read: {e}") from e
