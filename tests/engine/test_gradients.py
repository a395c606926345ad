"""Tests of the gradients of a batch that is computed in parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sn2fpn.config import CfgNode
from sn2fpn.data import register_custom
from sn2fpn.engine import Trainer
from sn2fpn.engine.gradients import Gradients
from sn2fpn.engine.options import RunOptions
from sn2fpn.modeling.metrics import log_scalar
from sn2fpn.structures import Boxes, Instances

MakeCfg = Callable[..., CfgNode]


def test_accumulated_gradients_are_those_of_the_whole_batch(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    # without sampling and batch statistics and with images of one size, the mean over the parts is that of the batch
    keys = {
        "MODEL.RESNETS.NORM": "GN",
        "MODEL.FPN.NORM": "",
        "SEED": 5,
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 50000,
        "MODEL.RPN.NMS_THRESH": 1.0,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 60,
        "MODEL.ROI_HEADS.POSITIVE_FRACTION": 1.0,
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
        "SOLVER.CLIP_GRADIENTS.ENABLED": False,
        "SOLVER.WARMUP_ITERS": 0,
    }
    batch = []
    for i in range(3):  # the parts have one image and two
        target = Instances((96, 128), gt_boxes=Boxes([[8, 8, 60 + i, 70]]), gt_classes=torch.tensor([i]))
        image = torch.randint(0, 256, (3, 96, 128), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
        batch.append({"image": image, "height": 96, "width": 128, "instances": target})
    states, found = [], []
    for parts in (1, 2):
        out = str(tmp_path / f"parts{parts}")
        cfg = tiny_cfg(keys | {"SOLVER.ACCUMULATE_STEPS": parts, "OUTPUT_DIR": out})
        register_custom(cfg.DATASETS.CUSTOM)
        Path(out).mkdir()
        trainer = Trainer(cfg)
        trainer.run_step(iter([batch]))
        found.append(trainer.storage.smoothed())
        states.append(trainer.model.state_dict())
    means = ("total_loss", "roi_head/num_fg_samples", "roi_head/num_bg_samples", "rpn/num_pos_anchors")
    for name in means:
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4), name
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-5)


class _Model(nn.Module):
    """Its loss is the mean of the images' values; it logs the mean and, where one exists, that of the negative ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.sizes: list[int] = []

    def forward(self, batch: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        values = torch.tensor([x["value"] for x in batch])
        self.sizes.append(len(batch))
        log_scalar("mean", values.mean())
        log_scalar("negative", values[values < 0].mean())
        log_scalar("number", float(len(batch)))
        log_scalar("never", math.nan)
        if len(batch) == 1:
            log_scalar("single", 7.0)
        if not values.isfinite().all():
            raise FloatingPointError("broken values")
        return {"loss": self.weight * values.mean()}


def _add(values: Sequence[float], parts: int) -> tuple[_Model, dict[str, Tensor], dict[str, Any]]:
    model = _Model()
    batch = [{"value": value, "image_id": i} for i, value in enumerate(values)]
    options = RunOptions(device="cpu", accumulate_steps=parts)
    return model, *Gradients(model, options).add(batch, torch.amp.GradScaler("cpu", enabled=False))


def test_losses_and_metrics_are_means_over_the_images() -> None:
    values = [1.0, 2.0, 3.0, -5.0, 6.0]
    model, losses, metrics = _add(values, parts=2)
    assert model.sizes == [2, 3]
    assert losses["loss"].item() == model.weight.grad.item() == pytest.approx(sum(values) / 5)
    assert metrics["mean"].item() == pytest.approx(sum(values) / 5)
    assert metrics["negative"].item() == -5.0  # of the only part that has one
    assert metrics["number"] == pytest.approx((2 * 2 + 3 * 3) / 5) and isinstance(metrics["number"], float)
    assert math.isnan(metrics["never"]) and "single" not in metrics
    assert _add(values, parts=5)[2]["single"] == 7.0


def test_more_parts_than_images() -> None:
    model, losses, metrics = _add([1.0, 3.0], parts=9)
    assert model.sizes == [1, 1] and losses["loss"].item() == metrics["mean"].item() == 2.0


def test_an_error_names_the_images_of_its_part() -> None:
    with pytest.raises(FloatingPointError, match=r"broken values on images 2, 3$"):
        _add([1.0, 2.0, 3.0, math.nan], parts=2)
