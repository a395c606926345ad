"""Timing side by side: all variants do equal work, and no weights change."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import SmallStudy

from sn2fpn.modeling import build_model
from sn2fpn.study.measure import speed, timing
from sn2fpn.study.measure.timing import take_turns
from sn2fpn.study.measure.workload import fill_weights, fix_work, make_images, model_inputs


def test_actions_take_turns_and_the_first_rounds_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []
    monkeypatch.setattr(timing, "now", lambda: clock[0])

    def act(name: str, seconds: float) -> None:
        order.append(name)
        clock[0] += seconds

    found = take_turns({"a": lambda: act("a", 1), "b": lambda: act("b", 3)}, rounds=3, warm_up=1)
    assert found == {"a": [1, 1, 1], "b": [3, 3, 3]} and "".join(order) == "abba" * 2


@pytest.mark.parametrize("weights", ["filled", "fresh"])
def test_work_is_the_same_whatever_the_weights(weights: str) -> None:
    study = SmallStudy()
    model = build_model(study.config(study.variants[0], 3))
    if weights == "filled":
        model.load_state_dict(fill_weights(model.state_dict()))
    inputs = model_inputs(make_images(2, 64, 96), 6)
    seen: list[Any] = []
    fix_work(model, inputs[0])
    model.roi_heads.register_forward_hook(lambda _, x, out: seen.append((x[2], out[0])))
    model(inputs[:1])
    proposals, detections = seen[0]
    assert len(proposals[0]) == 40 and len(detections[0]) == 20
    boxes = proposals[0].proposal_boxes.tensor
    assert (boxes[:, 2:] - boxes[:, :2] > 15.9).all() and (boxes >= 0).all() and (boxes[:, 2] <= 96.01).all()
    model.train()
    losses = model(inputs)
    assert torch.equal(seen[1][0][1].proposal_boxes.tensor, boxes) and all(v.isfinite() for v in losses.values())


def test_made_up_weights_keep_activations_near_one() -> None:
    """In a deep network with frozen norms, fresh weights would make activations explode or fade."""
    study = SmallStudy(
        keys={"MODEL.RESNETS.NORM": "FrozenBN", "MODEL.RESNETS.DEPTH": 50, "MODEL.RESNETS.RES2_OUT_CHANNELS": 256}
    )
    model = build_model(study.config(study.variants[0], 3)).eval()
    model.load_state_dict(fill_weights(model.state_dict()))
    maps = model.backbone(model.preprocess_image(make_images(1, 64, 96)).tensor)
    assert all(0.02 < x.std() < 50 for x in maps.values())


@pytest.mark.slow
def test_variants_are_measured_back_to_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = SmallStudy(
        keys={
            "MODEL.MASK_ON": True,
            "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
            "SOLVER.IMS_PER_BATCH": 8,
            "SOLVER.ACCUMULATE_STEPS": 4,
        }
    )
    cell = tmp_path / "cells/ihp/seed3"
    cell.mkdir(parents=True)
    model = build_model(study.config(study.variants[1], 3))
    torch.save({"model": model.state_dict()}, cell / "model_final.pth")
    monkeypatch.setattr(speed.Neighbours, "_read", staticmethod(iter([(0, 0, 0), (30, 10, 10)]).__next__))
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 2)
    random_state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        found = speed.measure_speed(study, tmp_path, rounds=2)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert json.loads((tmp_path / "speed.json").read_text()) == found
    assert found["batch"] == 2
    for timed in found["variants"].values():
        assert (timed["image_size"], timed["proposals"], timed["detections"]) == ([64, 96], 40, 20)
    assert found["threads"] == torch.get_num_threads() and found["device"].startswith("cpu (")
    assert found["cores_used_by_others"] == 2 and not found["reliable"]
    assert "other processes used 2.0 of the 2 cores" in caplog.text
    assert {name: v["weights"] for name, v in found["variants"].items()} == {"fpn": "made up", "ihp": "trained"}
    for variant in found["variants"].values():
        assert len(variant["inference_s"]) == len(variant["train_step_s"]) == 2
        assert all(0 < a < b for a, b in zip(variant["inference_s"], variant["train_step_s"]))
        assert 5 < variant["peak_memory_mib"]["inference"] < variant["peak_memory_mib"]["training"] < 2000


def test_a_measuring_process_does_not_hear_ctrl_c() -> None:
    blocked = speed._in_new_process(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    assert signal.SIGINT in blocked and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_measuring_process_ends_with_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Future) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        speed._in_new_process(time.sleep, 10_000)
    assert time.monotonic() - start < 1000


def test_a_variants_own_files_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring only writes its result, and no step changes a weight by more than rounding."""
    study = SmallStudy()
    monkeypatch.chdir(tmp_path)
    run = speed._Run(speed._Setup.of(study.config(study.variants[0]), None, "cpu"))
    before = {k: v.clone() for k, v in run._model.named_parameters()}
    run.train()
    assert all(torch.allclose(v, before[k], atol=1e-8) for k, v in run._model.named_parameters())
    assert list(tmp_path.iterdir()) == []


def test_augmentations_that_need_bitmaps_do_not_disturb_the_measurement() -> None:
    """The steps read no data, and their masks are polygons whatever the configuration says."""
    keys = {"MODEL.MASK_ON": True, "INPUT.MASK_FORMAT": "bitmask", "INPUT.COPY_PASTE.PROB": 0.5}
    study = SmallStudy(keys=keys | {"MODEL.ROI_MASK_HEAD.CONV_DIM": 8})
    speed._Run(speed._Setup.of(study.config(study.variants[0]), None, "cpu")).train()


def test_started_processes_count_as_own_work() -> None:
    before = timing.Neighbours._read()[1]
    subprocess.run([sys.executable, "-c", "sum(range(12 * 10**7))"], check=True)
    assert timing.Neighbours._read()[1] - before > 0.2
