"""Tests of `TEST.AUG` and soft NMS in runs of the native engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.config import CfgNode
from sn2fpn.data import build_test_loader
from sn2fpn.engine import Trainer, default_argument_parser, native
from sn2fpn.modeling import build_model, build_multi_view
from sn2fpn.predict import Predictor

MakeCfg = Callable[..., CfgNode]
AUG = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (80, 96), "TEST.AUG.MAX_SIZE": 128}


def test_a_run_ends_with_the_evaluation_of_views_and_an_evaluation_repeats_it(
    tiny_cfg: MakeCfg, tmp_path: Path, lasting_rows: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """They stand beside the usual results, and the moving average is evaluated in them."""
    keys = AUG | {"SOLVER.EMA.ENABLED": True, "TEST.EVAL_PERIOD": 4, "SOLVER.EMA.DECAY": 0.5}
    trainer = Trainer(tiny_cfg(keys))
    trainer.resume_or_load()
    results = trainer.train()["tiny_val"]
    assert set(results) == {"bbox", "bbox_TTA"} and results["bbox_TTA"].keys() == results["bbox"].keys()
    rows = {row["iteration"]: row for row in lasting_rows(tmp_path / "out")}
    assert "bbox_TTA/AP" in rows[max(rows)] and "bbox/AP" in rows[max(rows)]
    assert not any("bbox_TTA/AP" in row for i, row in rows.items() if i < max(rows))
    weights, folder = str(tmp_path / "out/model_final.pth"), tmp_path / "eval"
    cfg = tiny_cfg(keys | {"MODEL.WEIGHTS": weights, "OUTPUT_DIR": str(folder)})
    args = default_argument_parser().parse_args(["--eval-only"])
    again = native.run(cfg, args)["tiny_val"]
    for task, scores in results.items():
        assert again[task] == pytest.approx(scores, nan_ok=True)
    files = {p.parent.parent.name: json.loads(p.read_text()) for p in folder.rglob("coco_instances_*.json")}
    assert set(files) == {"inference", "inference_TTA"} and files["inference"] != files["inference_TTA"]


def test_a_predictor_finds_what_the_evaluation_with_views_finds(tiny_cfg: MakeCfg) -> None:
    from sn2fpn.data import read_image

    cfg = tiny_cfg(AUG)
    predictor = Predictor(cfg)
    detector = build_model(cfg).eval()
    detector.load_state_dict(predictor.model.state_dict())
    for (x,) in build_test_loader(cfg, "tiny_val"):
        expected = build_multi_view(cfg, detector)([x])[0]["instances"]
        found = predictor(read_image(x["file_name"], "BGR"))["instances"]
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor) and len(found) > 0


def test_soft_nms_holds_in_evaluation(tiny_cfg: MakeCfg) -> None:
    """The boxes that plain suppression removes are there with lower scores."""
    keys = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01, "TEST.DETECTIONS_PER_IMAGE": 1000}
    cfg = tiny_cfg(keys | {"MODEL.ROI_HEADS.SOFT_NMS.METHOD": "gaussian"})
    detector = build_model(cfg).eval()
    (x,) = next(iter(build_test_loader(cfg, "tiny_val")))
    soft = detector([x])[0]["instances"]
    detector.roi_heads.soft_nms = None
    plain = detector([x])[0]["instances"]
    assert len(soft) > len(plain) > 0
    assert soft.scores[0] == plain.scores[0] and soft.scores.sum() < 1.5 * plain.scores.sum()
