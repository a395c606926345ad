"""Detectors on a GPU against the CPU: suppression, pooling, mask pasting, whole models, and mixed precision.

The models and images are those of Detectron2's golden numbers, to which `tests/modeling` holds the CPU. The tolerances
are ten times those of the goldens, because a GPU's convolutions round differently.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_comparison import HALF, Both, assert_close, moved, unmatched, with_gradients
from torch import Tensor

from golden_detectron2 import CASES, inputs, model
from sn2fpn.modeling import GeneralizedRCNN
from sn2fpn.modeling.nms import grouped_nms
from sn2fpn.modeling.roi_heads.mask_pasting import paste_masks
from sn2fpn.modeling.roi_heads.pooler import ROIPooler
from sn2fpn.structures import Instances

pytestmark = pytest.mark.gpu

INFERENCE = ["infer_faster_r18", "infer_faster_r50", "infer_mask_r50"]
TRAINING = [("train_faster_r18", "boxes"), ("train_mask_r50", "polygon"), ("train_mask_r50", "bitmask")]


# ------------------------------------------------------------------ parts


@pytest.mark.parametrize(("number", "groups"), [(0, 1), (1, 1), (300, 1), (300, 7), (2500, 80)])
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_suppression(number: int, groups: int, threshold: float, both: Both) -> None:
    """Corners are whole numbers, for which overlaps are exact also where groups are moved apart."""
    g = torch.Generator().manual_seed(number + groups)
    corner = torch.randint(0, 300, (number, 2), generator=g).float()
    boxes = torch.cat([corner, corner + torch.randint(10, 120, (number, 2), generator=g)], dim=1)
    scores = torch.randperm(number, generator=g) / max(number, 1)
    group = torch.randint(groups, (number,), generator=g)
    expected, found = both(grouped_nms, boxes, scores, group, threshold)
    assert torch.equal(found, expected) and (number < 2 or len(found) < number)


def random_boxes(seed: int, number: int = 60) -> Tensor:
    """Return boxes of 1 to 400 pixels; some reach beyond the borders of the maps."""
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(number, 2, generator=g) * torch.tensor([400.0, 330.0]) - 40
    return torch.cat([xy, xy + torch.exp(torch.rand(number, 2, generator=g) * 6)], dim=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("size", "ratio", "aligned"), [(7, 0, True), (14, 2, True), (7, 0, False)])
def test_pooling(size: int, ratio: int, aligned: bool, layout: torch.memory_format, both: Both) -> None:
    g = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 8, 64 >> i, 80 >> i, generator=g).to(memory_format=layout) for i in range(4)]
    pooler = ROIPooler(size, (4, 8, 16, 32), ratio, aligned)
    boxes = [random_boxes(1), random_boxes(2)]
    expected, found = both(with_gradients, pooler, [x.requires_grad_() for x in maps], boxes)
    assert_close(found, expected, values=1e-4, gradients=1e-3)


def test_pooling_without_boxes_reaches_the_maps(both: Both) -> None:
    maps = [moved(torch.randn(2, 4, 8, 8), both.device).requires_grad_()]
    with both.on_device():
        pooled = ROIPooler(7, (8,))(maps, [torch.zeros(0, 4, device=both.device)] * 2)
        pooled.sum().backward()
    assert pooled.shape == (0, 4, 7, 7) and not maps[0].grad.any()


def test_pasted_masks(both: Both) -> None:
    """Pixels may differ where a probability equals the threshold up to rounding."""
    g = torch.Generator().manual_seed(0)
    expected, found = both(paste_masks, torch.rand(60, 28, 28, generator=g), random_boxes(3), (320, 400))
    assert found.dtype == torch.bool and expected.any()
    assert (found != expected).sum() <= 1e-4 * expected.sum()


# ------------------------------------------------------------------ whole models


def stages(detector: GeneralizedRCNN, batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the maps and the proposals of a batch."""
    with torch.no_grad():
        images = detector.preprocess_image(batch)
        maps = detector.backbone(images.tensor)
        proposals, _ = detector.proposal_generator(images, maps)
    return {"maps": maps, "proposals": [p.proposal_boxes.tensor for p in proposals]}


def detections(detector: GeneralizedRCNN, batch: list[dict[str, Any]], proposals: list[Tensor]) -> list[Instances]:
    """Return the detections of a batch from given proposals."""

    def replace(_: Any, __: Any, output: tuple[list[Instances], Any]) -> Any:
        given = [
            Instances(p.image_size, proposal_boxes=type(p.proposal_boxes)(boxes), objectness_logits=boxes[:, 0])
            for p, boxes in zip(output[0], proposals)
        ]
        return given, output[1]

    detector.proposal_generator.register_forward_hook(replace)
    return [output["instances"] for output in detector(batch)]


@pytest.mark.parametrize("name", INFERENCE)
def test_inference(name: str, both: Both) -> None:
    """Up to 2 % of the boxes may differ, since rounding decides between boxes whose scores or overlaps are equal."""
    detector, batch = model(CASES[name]).eval(), inputs(CASES[name])
    expected, found = both(stages, detector, batch)
    assert_close(found["maps"], expected["maps"], values=1e-3, gradients=0)
    for boxes, right in zip(found["proposals"], expected["proposals"]):
        distance = torch.cdist(right, boxes, p=torch.inf).amin(dim=1)
        assert (distance > 5e-2).float().mean() <= 0.02
    expected_detections, found_detections = both(detections, detector, batch, expected["proposals"])
    for some, right in zip(found_detections, expected_detections):
        assert some.image_size == right.image_size and len(right) > 10
        assert abs(len(some) - len(right)) <= 2 and unmatched(some, right) <= max(1, 0.02 * len(right))


def losses_and_gradients(detector: GeneralizedRCNN, batch: list[dict[str, Any]]) -> tuple[dict[str, float], Any]:
    losses = detector(batch)
    sum(losses.values()).backward()
    grads = {f"gradient of {n}": p.grad for n, p in detector.named_parameters() if p.grad is not None}
    return {k: v.item() for k, v in losses.items()}, grads


@pytest.mark.parametrize(("name", "masks"), TRAINING)
def test_losses_and_gradients(name: str, masks: str, both: Both) -> None:
    """All anchors and proposals are sampled, so that nothing is drawn at random."""
    (expected, gradients), (found, found_gradients) = both(
        losses_and_gradients, model(CASES[name]), inputs(CASES[name], masks)
    )
    assert found == pytest.approx(expected, rel=1e-3)
    assert_close(found_gradients, gradients, values=0, gradients=1e-2)


def test_channels_last_weights_change_nothing(both: Both) -> None:
    detector, batch = moved(model(CASES["train_faster_r18"]), both.device), inputs(CASES["train_faster_r18"])
    with both.on_device():
        expected, gradients = losses_and_gradients(moved(detector, both.device), batch)
        found, found_gradients = losses_and_gradients(detector.to(memory_format=torch.channels_last), batch)
    assert found == pytest.approx(expected, rel=1e-3)
    assert_close(found_gradients, gradients, values=0, gradients=1e-2)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(("name", "masks"), TRAINING[:2])
def test_mixed_precision_stays_close_and_its_gradients_are_finite(
    name: str, masks: str, dtype: torch.dtype, both: Both
) -> None:
    detector, batch = moved(model(CASES[name]), both.device), inputs(CASES[name], masks)
    with both.on_device():
        exact = {k: v.item() for k, v in detector(batch).items()}
        with torch.autocast(both.device.type, dtype):
            losses = detector(batch)
        assert all(v.dtype == torch.float32 for v in losses.values())
        assert {k: v.item() for k, v in losses.items()} == pytest.approx(exact, rel=0.1)
        sum(losses.values()).backward()
        with torch.autocast(both.device.type, dtype):
            output = detector.eval()(batch[:1])[0]["instances"]
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)
    assert output.pred_boxes.tensor.dtype == torch.float32 and len(output) > 0
