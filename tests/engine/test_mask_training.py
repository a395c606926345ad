"""Tests of Mask R-CNN from its configuration to its scores: training, evaluation and pictures of masks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sn2fpn.config import CfgNode
from sn2fpn.data import register_custom
from sn2fpn.engine import run
from sn2fpn.errors import UserError

MASKS = {"MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.NUM_CONV": 2, "MODEL.ROI_MASK_HEAD.CONV_DIM": 32}


def _args(**changes: bool) -> argparse.Namespace:
    return argparse.Namespace(**{"resume": False, "eval_only": False, "num_gpus": 1, "num_machines": 1} | changes)


def _lines(cfg: CfgNode) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.pictures
def test_a_run_learns_masks(tiny_cfg: Callable[..., CfgNode]) -> None:
    keys = MASKS | {
        "INPUT.MASK_FORMAT": "bitmask",
        "TEST.VAL_LOSS": True,
        "TEST.BEST_METRIC": "segm/AP50",
        "TEST.DETECTIONS_PER_IMAGE": 20,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    }
    cfg = tiny_cfg(keys | {"SOLVER.MAX_ITER": 40})
    results = run(cfg, _args())
    lines = _lines(cfg)
    losses = [line["loss_mask"] for line in lines if "loss_mask" in line]
    assert losses[0] == pytest.approx(0.693, abs=0.02) and losses[-1] < 0.67
    assert any("mask_rcnn/accuracy" in line for line in lines) and any("val/loss_mask" in line for line in lines)
    scores = results["tiny_val"]
    assert list(scores) == ["bbox", "segm"] and scores["segm"].keys() == scores["bbox"].keys()
    out = Path(cfg.OUTPUT_DIR)
    saved = json.loads((out / "inference/tiny_val/coco_instances_results.json").read_text())
    assert saved and all(set(found["segmentation"]) == {"size", "counts"} for found in saved)
    assert {"model_best.pth", "model_final.pth", "predictions.png", "curves.png"} <= {p.name for p in out.iterdir()}
    again = tiny_cfg(keys | {"MODEL.WEIGHTS": str(out / "model_final.pth")})
    assert run(again, _args(eval_only=True))["tiny_val"]["segm"] == pytest.approx(scores["segm"], nan_ok=True)


def test_data_without_masks_stops_at_the_start(tiny_cfg: Callable[..., CfgNode]) -> None:
    cfg = tiny_cfg(MASKS)
    cfg.DATASETS.CUSTOM = [dict(entry) for entry in cfg.DATASETS.CUSTOM]  # the entries are shared with other tests
    for entry in cfg.DATASETS.CUSTOM:
        content = json.loads(Path(entry["JSON"]).read_text())
        for annotation in content["annotations"]:
            annotation["segmentation"] = []
        entry.update(NAME=f"{entry['NAME']}_boxes", JSON=f"{cfg.OUTPUT_DIR}_{entry['NAME']}.json")
        Path(entry["JSON"]).write_text(json.dumps(content))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ["tiny_train_boxes"], ["tiny_val_boxes"]
    register_custom(cfg.DATASETS.CUSTOM)
    with pytest.raises(UserError, match=r"MODEL\.MASK_ON, .*none of the \d+ objects of data set 'tiny_train_boxes'"):
        run(cfg, _args())
