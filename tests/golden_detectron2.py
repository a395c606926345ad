"""The golden cases of whole detectors in `tests/golden/detectron2`, whose weights and inputs follow fixed rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from sn2fpn.config import get_cfg
from sn2fpn.modeling import build_model
from sn2fpn.modeling.detector import GeneralizedRCNN
from sn2fpn.structures import BitMasks, Boxes, Instances, PolygonMasks

FOLDER = Path(__file__).resolve().parent / "golden" / "detectron2"
sys.path.insert(0, str(FOLDER))
import filler  # noqa: E402  (It defines the weights and inputs of the goldens.)

NOTHING: Mapping[str, Any] = MappingProxyType({})
CASES: dict[str, Any] = json.loads((FOLDER / "cases.json").read_text())["cases"]


def numbers(case: str | dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of a case."""
    with np.load(FOLDER / (CASES[case] if isinstance(case, str) else case)["file"]) as npz:
        return dict(npz)


def config(case: dict[str, Any], cfg: Any = None) -> Any:
    """Return our default configuration, or `cfg`, with the keys of a case."""
    cfg = cfg or get_cfg()
    cfg.merge_from_list(pairs(case["cfg_all_non_default"]))
    return cfg


def pairs(changes: Mapping[str, Any]) -> list[Any]:
    """Return keys and their values as the list that `merge_from_list` takes."""
    return [x for item in changes.items() for x in item]


def model(case: dict[str, Any]) -> GeneralizedRCNN:
    """Return our model of a case with its weights."""
    return filler.fill_model(build_model(config(case)), case)


def inputs(case: dict[str, Any], variant: str = "boxes") -> list[dict[str, Any]]:
    """Return the batch of a case, with ground truth if it has some; `variant` is the form of its masks."""
    batch = []
    for spec in case["inputs"]:
        image = filler.to_tensor(filler.make_image(spec["seed"], spec["h"], spec["w"]))
        batch.append({"image": image, "height": spec["height"], "width": spec["width"]})
        if "gt_boxes" in spec:
            batch[-1]["instances"] = Instances(
                (spec["h"], spec["w"]),
                gt_boxes=Boxes(torch.tensor(spec["gt_boxes"])),
                gt_classes=torch.tensor(spec["gt_classes"]),
            )
        if variant == "polygon":
            batch[-1]["instances"].gt_masks = PolygonMasks(spec["gt_polygons"])
        elif variant == "bitmask":
            masks = [filler.ellipse_bitmask(box, spec["h"], spec["w"]) for box in spec["gt_boxes"]]
            batch[-1]["instances"].gt_masks = BitMasks(np.stack(masks))
    return batch


def max_error(found: torch.Tensor, expected: np.ndarray) -> float:
    """Largest absolute difference."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.detach().numpy().astype(np.float64) - expected).max()) if expected.size else 0.0
