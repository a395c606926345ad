"""Test the box regression losses against written-out formulas."""

from __future__ import annotations

import math

import pytest
import torch

from sn2fpn.modeling.box_coding import BoxCoder
from sn2fpn.modeling.losses import BOX_LOSSES, box_regression_loss


def pairs(number: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return offsets, references and targets; half of the decoded boxes overlap their targets."""
    g = torch.Generator().manual_seed(3)
    xy, wh = torch.rand(2, number, 2, generator=g) * 60, torch.rand(2, number, 2, generator=g) * 40 + 4
    reference, target = torch.cat([xy, xy + wh], dim=-1)
    return torch.randn(number, 4, generator=g) * 0.3, reference, target


def iou_terms(a: list[float], b: list[float]) -> tuple[float, float, float, float]:
    """Return the IoU, (hull - union) / hull, squared centre distance / squared hull diagonal, and the aspect term v."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(w, 0) * max(h, 0)
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    union = sum(area) - overlap
    hull_w, hull_h = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    distance = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    angle = [math.atan((x[2] - x[0]) / (x[3] - x[1])) for x in (a, b)]
    v = 4 / math.pi**2 * (angle[0] - angle[1]) ** 2
    return overlap / union, (hull_w * hull_h - union) / (hull_w * hull_h), distance / (hull_w**2 + hull_h**2), v


def by_formula(kind: str, deltas: torch.Tensor, reference: torch.Tensor, target: torch.Tensor, beta: float) -> float:
    coder = BoxCoder()
    if kind == "smooth_l1":
        errors = (deltas - coder.encode(reference, target)).abs().flatten().tolist()
        return sum(0.5 * e * e / beta if e < beta else e - 0.5 * beta for e in errors)
    total = 0.0
    for a, b in zip(coder.decode(deltas, reference).tolist(), target.tolist()):
        iou, hull, distance, v = iou_terms(a, b)
        total += {
            "giou": 1 - iou + hull,
            "diou": 1 - iou + distance,
            "ciou": 1 - iou + distance + v * v / (1 - iou + v),
        }[kind]
    return total


@pytest.mark.parametrize("kind, beta", [("smooth_l1", 0.0), ("smooth_l1", 0.5), ("giou", 0), ("diou", 0), ("ciou", 0)])
def test_formula(kind: str, beta: float) -> None:
    deltas, reference, target = pairs()
    loss = box_regression_loss(kind, BoxCoder(), deltas, reference, target, beta)
    assert loss.item() == pytest.approx(by_formula(kind, deltas, reference, target, beta), rel=1e-5)


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_no_boxes_and_low_precision(kind: str) -> None:
    deltas, reference, target = pairs(6)
    empty = torch.zeros(0, 4, requires_grad=True)
    loss = box_regression_loss(kind, BoxCoder(), empty, reference[:0], target[:0])
    loss.backward()
    assert loss.item() == 0 and empty.grad is not None
    low = box_regression_loss(kind, BoxCoder(), deltas.to(torch.bfloat16), reference, target)
    assert low.dtype == torch.float32
    assert low == box_regression_loss(kind, BoxCoder(), deltas.to(torch.bfloat16).float(), reference, target)
