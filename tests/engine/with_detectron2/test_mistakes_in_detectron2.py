"""Tests of the mistakes that Detectron2's engine names, and of the checkpoints and configurations that it refuses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.engine import native
from sn2fpn.errors import UserError

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2

from their_trainer import Command  # noqa: E402

from sn2fpn.engine import detectron2 as engine  # noqa: E402

QUICK = Path(__file__).parents[3] / "configs" / "quick"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"SOLVER.ACCUMULATE_STEPS": 2}, "SOLVER.ACCUMULATE_STEPS: Detectron2 serves 1, found 2; add --engine native"),
        ({"SOLVER.EMA.ENABLED": True}, "SOLVER.EMA.ENABLED.*--engine native"),
        ({"SOLVER.OPTIMIZER": "AdamW"}, "SOLVER.OPTIMIZER.*--engine native"),
        ({"MODEL.ROI_HEADS.SOFT_NMS.METHOD": "linear"}, "SOFT_NMS.METHOD: Detectron2 serves ''.*--engine native"),
        ({"MODEL.ROI_HEADS.CANONICAL_BOX_SIZE": 112}, "CANONICAL_BOX_SIZE: Detectron2 serves 224, found 112"),
        ({"INPUT.MOSAIC.PROB": 0.5}, "INPUT.MOSAIC.PROB: Detectron2 serves 0.0, found 0.5; add --engine native"),
        ({"INPUT.COPY_PASTE.PROB": 1.0}, "INPUT.COPY_PASTE.PROB.*--engine native"),
        ({"INPUT.PHOTOMETRIC.ENABLED": True}, "INPUT.PHOTOMETRIC.ENABLED.*--engine native"),
        ({"INPUT.SCALE_JITTER.ENABLED": True}, "INPUT.SCALE_JITTER.ENABLED.*--engine native"),
        ({"INPUT.MIN_VISIBLE": 0.2}, "INPUT.MIN_VISIBLE.*--engine native"),
        ({"INPUT.FUNCTION": "mine:augment"}, "INPUT.FUNCTION: Detectron2 serves ''.*--engine native"),
        ({"SOLVER.AMP.ENABLED": True}, "SOLVER.AMP.ENABLED.*GPUs only"),
        ({"TEST.BEST_METRIC": "bbox/AR"}, "TEST.BEST_METRIC: Detectron2 gives no recall.*'bbox/AP'"),
        ({"SOLVER.STEPS": (5, 3)}, r"SOLVER.STEPS: expected rising iterations of at least 1, found \[5, 3\]"),
        ({"SOLVER.BASE_LRR": 1}, "did you mean 'SOLVER.BASE_LR'"),
        ({"MODEL.RETINANET.NUM_CLASES": 1}, "did you mean 'MODEL.RETINANET.NUM_CLASSES'"),
        (
            {"DATASETS.TRAIN": ("shapes_trian",)},
            "DATASETS.TRAIN: unknown data set 'shapes_trian'; did you mean 'shapes_tr",
        ),
        (
            {"MODEL.ROI_HEADS.NUM_CLASSES": 7},
            "MODEL.ROI_HEADS.NUM_CLASSES: expected 6, the number of classes of data set 'tiny_train'",
        ),
        ({"MODEL.WEIGHTS": "nowhere.pth"}, "MODEL.WEIGHTS: there is no file nowhere.pth"),
        ({"MODEL.FPN.NORM": "BM"}, "MODEL.FPN.NORM: unknown value 'BM'"),
        (
            {"MODEL.ROI_HEADS.NAME": "StandardROIHead"},
            "MODEL.ROI_HEADS.NAME: unknown value .* did you mean 'StandardROIHeads'",
        ),
        ({"MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p9"]}, "MODEL.ROI_HEADS.IN_FEATURES: .* no output 'p9'"),
        (
            {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone", "MODEL.ESD.ENABLED": True},
            "ESD.ENABLED: Detectron2's build_resnet_fpn_backbone does not .* found True; use .* build_sn2_fpn_backbone",
        ),
        (
            {"MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone", "MODEL.FPN.UPSAMPLE": "carafe"},
            "MODEL.FPN.UPSAMPLE: .* use MODEL.BACKBONE.NAME build_sn2_fpn_retinanet_backbone, or leave it at 'nearest'",
        ),
        (
            {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone", "MODEL.BACKBONE.TRUNK": "timm/resnet10t"},
            "MODEL.BACKBONE.TRUNK: Detectron2's build_resnet_fpn_backbone does not read this key",
        ),
        (
            {"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, True]},
            "DEFORM_ON_PER_STAGE: this project's trunk has no .* set MODEL.BACKBONE.NAME to build_resnet_fpn_backbone",
        ),
        ({"INPUT.MASK_FORMAT": "polygn"}, "INPUT.MASK_FORMAT: unknown value 'polygn'; did you mean 'polygon'"),
        ({"MODEL.DEVICE": "cdua"}, "MODEL.DEVICE: there is no device 'cdua'"),
        ({"MODEL.BACKBONE.NAME": "build_sn2_snii_backbone"}, "MODEL.BACKBONE.NAME.*'build_sn2_sni_backbone'"),
    ],
)
def test_mistakes_are_one_message(keys: dict[str, Any], words: str, command: Command) -> None:
    args = command("sni", **keys)
    with pytest.raises(UserError, match=words):
        engine.run(engine.load_config(args), args)


def test_a_file_that_asks_for_code_is_refused(command: Command, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "code.pkl").write_bytes(pickle.dumps({"model": {"x": Code()}}))
    args = command("sni", "--eval-only", MODEL__WEIGHTS=str(tmp_path / "code.pkl"))
    with pytest.raises(UserError, match=r"code\.pkl is refused"):
        engine.run(engine.load_config(args), args)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny_boxes", "MODEL.MASK_ON, .*none of the .* objects of data set '?tiny_boxes'? has one"),
        ("tiny_lost", r"image file does not exist \(8 of 8 images"),
    ],
)
def test_data_that_cannot_teach_are_refused(
    name: str, words: str, command: Command, tiny_keys: dict[str, Any], tmp_path: Path
) -> None:
    entry = {**tiny_keys["DATASETS.CUSTOM"][0], "NAME": name}
    if name == "tiny_lost":
        entry["IMAGES"] = str(tmp_path)
    else:
        content = json.loads(Path(entry["JSON"]).read_text())
        content["annotations"] = [{**a, "segmentation": []} for a in content["annotations"]]
        entry["JSON"] = str(tmp_path / "boxes.json")
        Path(entry["JSON"]).write_text(json.dumps(content))
    args = command("sni", MODEL__MASK_ON=True, DATASETS__CUSTOM=[entry], DATASETS__TRAIN=(name,), DATASETS__TEST=())
    with pytest.raises(UserError, match=words):
        engine.run(engine.load_config(args), args)


def test_several_cpu_processes_need_the_native_engine(command: Command) -> None:
    args = command("sni", "--num-gpus", "2")
    with pytest.raises(UserError, match="--num-gpus 2: Detectron2 trains in several processes on GPUs only"):
        engine.load_config(args)


def test_a_checkpoint_that_does_not_fit_is_one_message(command: Command, tmp_path: Path) -> None:
    keys = dict(DATASETS__TEST=(), SOLVER__MAX_ITER=1)
    args = command("sni", **keys)
    engine.run(engine.load_config(args), args)
    args = command("sni", "--resume", SOLVER__BIAS_LR_FACTOR=2.0, **keys)
    with pytest.raises(UserError, match="Detectron2 cannot load this checkpoint into this configuration: ValueError"):
        engine.run(engine.load_config(args), args)
    assert "SOLVER.BIAS_LR_FACTOR: 1.0 -> 2.0" in (tmp_path / "out/log.txt").read_text()


def test_detectron2_names_a_best_metric_that_a_run_does_not_give(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"TEST\.BEST_METRIC: unknown value 'bbox/AP51'; did you mean 'bbox/AP"):
        engine.load_config(command("fpn", TEST__BEST_METRIC="bbox/AP51"))
    monkeypatch.setattr(engine.Trainer, "test", lambda *_: {"tiny_val": {"bbox": {"AP": 1.0, "AP-circle": 2.0}}})
    args = command("fpn", DATASETS__TEST=["tiny_val", "tiny_train"], TEST__EVAL_PERIOD=1, SOLVER__MAX_ITER=2)
    engine.run(engine.load_config(args), args)
    log = (tmp_path / "out/log.txt").read_text()
    assert log.count("TEST.BEST_METRIC bbox/AP: the evaluations of this run do not give it") == 1
    assert not (tmp_path / "out/model_best.pth").exists()
    header = (tmp_path / "out/results.csv").read_text().splitlines()[0]
    assert header == "iteration,epoch,seconds,tiny_val/bbox/AP"


def test_detectron2_refuses_to_evaluate_another_models_checkpoint(command: Command, tmp_path: Path) -> None:
    args = command("sni", SOLVER__MAX_ITER=1, DATASETS__TEST=())
    engine.run(engine.load_config(args), args)
    keys = {"MODEL.WEIGHTS": str(tmp_path / "out/model_final.pth"), "OUTPUT_DIR": str(tmp_path / "evaluated")}
    args = command("pafpn", "--eval-only", config=QUICK / "faster_rcnn_R18_sni_shapes.yaml", **keys)
    args.opts += ["MODEL.BACKBONE.NAME", "build_sn2_pafpn_backbone"]
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS: .*another model.*--allow-partial"):
        engine.run(engine.load_config(args), args)
    args.allow_partial = True
    assert "bbox" in engine.run(engine.load_config(args), args)


def test_detectron2_refuses_to_evaluate_another_pyramid_with_the_same_names(command: Command, tmp_path: Path) -> None:
    args = command("sni", SOLVER__MAX_ITER=1, DATASETS__TEST=())
    engine.run(engine.load_config(args), args)
    out = tmp_path / "out"
    of_training = (out / "config.yaml").read_text()
    keys = {"MODEL.WEIGHTS": str(out / "model_final.pth")}
    args = command("sni", "--eval-only", **keys)
    args.opts += ["MODEL.BACKBONE.NAME", "build_sn2_fpn_backbone"]
    with pytest.raises(
        UserError, match=r"MODEL.WEIGHTS: .*BACKBONE.NAME was build_sn2_sni_backbone and is build_sn2_f"
    ):
        engine.run(engine.load_config(args), args)
    args = command("sni", "--eval-only", **keys)
    assert "bbox" in engine.run(engine.load_config(args), args)
    assert (out / "config.yaml").read_text() == of_training and (out / "inference/config.yaml").is_file()


def test_detectron2_refuses_classes_in_another_order(command: Command, tmp_path: Path) -> None:
    args = command("sni", SOLVER__MAX_ITER=1, DATASETS__TEST=())
    engine.run(engine.load_config(args), args)
    file = tmp_path / "out/model_final.pth"
    saved = torch.load(file, weights_only=True)
    torch.save(saved | {"class_names": saved["class_names"][::-1]}, file)
    args = command("sni", "--eval-only", **{"MODEL.WEIGHTS": str(file)})
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS: class 0 is .* in data set 'tiny_val'.*--allow-partial"):
        engine.run(engine.load_config(args), args)
    args = command("sni", "--resume", SOLVER__MAX_ITER=2, DATASETS__TEST=())
    with pytest.raises(UserError, match=r"class 0 is .* in the checkpoint and 'circle' in the training data"):
        engine.run(engine.load_config(args), args)


def test_detectron2s_own_backbone_has_its_norms_and_deformable_stages(command: Command) -> None:
    keys = {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone", "MODEL.FPN.NORM": "nnSyncBN"}
    assert engine.load_config(command("sni", **keys)).MODEL.FPN.NORM == "nnSyncBN"
    keys = {
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False] * 3 + [True],
    }
    assert any(engine.load_config(command("sni", **keys)).MODEL.RESNETS.DEFORM_ON_PER_STAGE)


def test_detectron2_takes_a_model_without_a_pyramid_whose_heads_are_the_usual_ones(command: Command) -> None:
    dc5 = {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.OUT_FEATURES": ["res5"],
        "MODEL.RPN.IN_FEATURES": ["res5"],
        "MODEL.ROI_HEADS.IN_FEATURES": ["res5"],
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    }
    args = command("fpn", **dc5)
    assert engine.load_config(args).MODEL.BACKBONE.NAME == "build_resnet_backbone"
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE\.NAME: .*\(C4, DC5\) is served by Detectron2 only"):
        native.load_config(args)
