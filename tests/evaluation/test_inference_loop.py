"""Tests of the inference loop: modes, gradients, progress and several processes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from sn2fpn.data.catalog import DatasetCatalog, MetadataCatalog
from sn2fpn.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    PascalVOCEvaluator,
    inference_on_dataset,
)
from sn2fpn.structures import Boxes, BoxMode, Instances

CLASSES = ["a", "b"]


class _Model(nn.Module):
    """A model whose boxes depend only on the image, and that records how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.frozen = nn.Linear(1, 1), nn.BatchNorm1d(1)
        self.frozen.eval()
        self.calls: list[tuple[bool, bool]] = []

    def forward(self, batch: list[dict]) -> list[dict]:
        self.calls.append((self.training or self.live.training, torch.is_grad_enabled()))
        return [{"instances": _found(image["image_id"])} for image in batch]


class _Count(DatasetEvaluator):
    def reset(self) -> None:
        self.seen = 0

    def process(self, inputs: list, outputs: list) -> None:
        self.seen += len(inputs)

    def evaluate(self) -> dict:
        return {"count": {"images": self.seen}}


def _found(image_id: int) -> Instances:
    generator = torch.Generator().manual_seed(image_id)
    corner = torch.rand(4, 2, generator=generator) * 5 + 100
    return Instances(
        (300, 300),
        pred_boxes=Boxes(torch.cat([corner, corner + 50], dim=1)),
        scores=torch.rand(4, generator=generator),
        pred_classes=torch.arange(4) % 2,
    )


def _records() -> list[dict]:
    truth = [{"category_id": c, "bbox": [102.0, 102.0, 152.0, 152.0], "bbox_mode": BoxMode.XYXY_ABS} for c in (0, 1)]
    return [
        {"image_id": i, "file_name": f"{i}.jpg", "height": 300, "width": 300, "annotations": truth} for i in range(7)
    ]


@pytest.fixture
def dataset() -> str:
    name = "inference_loop_test"
    DatasetCatalog.register(name, _records)
    MetadataCatalog.get(name).set(thing_classes=CLASSES)
    yield name
    DatasetCatalog.remove(name)


def _loader(image_ids: list[int], batch: int = 2) -> list[list[dict]]:
    return [[{"image_id": i} for i in image_ids[k : k + batch]] for k in range(0, len(image_ids), batch)]


def test_modes_and_gradients() -> None:
    model = _Model().train()
    model.frozen.eval()
    assert inference_on_dataset(model, _loader(list(range(5))), _Count()) == {"count": {"images": 5}}
    assert model.calls == [(False, False)] * 3
    assert model.training and model.live.training and not model.frozen.training
    assert torch.is_grad_enabled()


def test_modes_come_back_after_an_error() -> None:
    class Failing(_Count):
        def process(self, inputs: list, outputs: list) -> None:
            raise RuntimeError("no")

    model = _Model().train()
    with pytest.raises(RuntimeError, match="no"):
        inference_on_dataset(model, _loader([1]), Failing())
    assert model.training and model.live.training


def test_functions_several_evaluators_or_none(dataset: str) -> None:
    def model(batch: list[dict]) -> list[dict]:
        return [{"instances": _found(image["image_id"])} for image in batch]

    results = inference_on_dataset(model, _loader(list(range(7))), [_Count(), COCOEvaluator(dataset)])
    assert results["count"] == {"images": 7}
    assert 0 < results["bbox"]["AP"] < 100
    assert inference_on_dataset(model, _loader([1, 2]), None) == {}
    assert inference_on_dataset(model, [], _Count()) == {"count": {"images": 0}}
    with pytest.raises(ValueError, match=r"two evaluators return results for \['count'\]"):
        inference_on_dataset(model, _loader([1]), DatasetEvaluators([_Count(), _Count()]))


class _Silent(_Count):
    def evaluate(self) -> None:  # type: ignore[override]
        """Return nothing, as many evaluators do in all processes but the main one."""


def test_an_evaluator_may_return_nothing(dataset: str) -> None:
    batches = [[{"image_id": 1}]]
    assert inference_on_dataset(_Model(), batches, _Silent()) == {}
    assert inference_on_dataset(_Model(), batches, [_Silent(), _Count()]) == {"count": {"images": 1}}


def test_progress_says_speed_and_eta(caplog) -> None:
    caplog.set_level("INFO")
    inference_on_dataset(_Model(), _loader(list(range(20))), _Count(), log_period_s=0.0)
    assert "images/s; per image" in caplog.text
    assert "ETA 0:00:0" in caplog.text
    assert "evaluated 10/10 batches" in caplog.text


@pytest.mark.slow
def test_two_processes_score_as_one(dataset: str, tmp_path: Path) -> None:
    """The shares have one image in common. The main process has the scores of a single process, the other has none."""
    alone = {
        kind.__name__: inference_on_dataset(_Model(), _loader(list(range(7))), kind(dataset))
        for kind in (COCOEvaluator, PascalVOCEvaluator)
    }
    mp.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    together = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert together[1] == {"COCOEvaluator": {}, "PascalVOCEvaluator": {}}
    for kind, results in alone.items():
        assert together[0][kind]["bbox"] == pytest.approx(results["bbox"], nan_ok=True)
        assert not math.isnan(results["bbox"]["AP"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["coco_instances_results.json"]


def _one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    DatasetCatalog.register("share", _records)
    MetadataCatalog.get("share").set(thing_classes=CLASSES)
    share = ([6, 4, 2, 0], [5, 3, 1, 0])[rank]
    results = {
        kind.__name__: inference_on_dataset(_Model(), _loader(share), kind("share", output_dir=f"{folder}/out"))
        for kind in (COCOEvaluator, PascalVOCEvaluator)
    }
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
