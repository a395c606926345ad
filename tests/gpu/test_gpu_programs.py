"""What users start on a GPU beside the training: prediction, and the speed measurement of a study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from gpu_comparison import Both, unmatched
from small_study import SmallStudy

from golden_detectron2 import CASES, filler, model
from sn2fpn.modeling import GeneralizedRCNN
from sn2fpn.predict import Predictor
from sn2fpn.structures import Instances
from sn2fpn.study.measure.speed import measure_speed

pytestmark = pytest.mark.gpu


def predict(detector: GeneralizedRCNN, picture: torch.Tensor) -> Instances:
    return Predictor(detector)(picture)["instances"]


@pytest.mark.parametrize("name", ["infer_faster_r18", "infer_mask_r50"])
def test_predictions_equal_the_cpus(name: str, both: Both) -> None:
    """The picture is a tensor on the device, which the predictor takes like an array."""
    spec = CASES[name]["inputs"][0]
    picture = torch.from_numpy(filler.make_image(spec["seed"], spec["h"], spec["w"]))
    expected, found = both(predict, model(CASES[name]).eval(), picture)
    assert found.image_size == expected.image_size == (spec["h"], spec["w"]) and len(expected) > 10
    assert unmatched(found, expected) <= 0.05 * len(expected)


@pytest.mark.slow
def test_speed_of_a_study(device: torch.device, tmp_path: Path) -> None:
    study = SmallStudy(keys={"MODEL.DEVICE": str(device)})
    found = measure_speed(study, tmp_path, rounds=2)
    assert json.loads((tmp_path / "speed.json").read_text()) == found
    if device.type == "cuda":
        assert found["device"] == torch.cuda.get_device_name(device)
    assert (found["proposals"], found["detections"]) == (40, 20)
    for variant in found["variants"].values():
        assert all(0 < a < b for a, b in zip(variant["inference_s"], variant["train_step_s"]))
        assert 1 < variant["peak_memory_mib"]["inference"] <= variant["peak_memory_mib"]["training"]
