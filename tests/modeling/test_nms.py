"""Tests of NMS within groups against the greedy definition."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from sn2fpn.modeling.nms import grouped_nms


def greedy(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, threshold: float) -> list[int]:
    iou, numbers = box_iou(boxes, boxes).tolist(), groups.tolist()  # lists, as tensors are slow to read by number
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(numbers[i] != numbers[j] or iou[i][j] <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("number, num_groups", [(1, 1), (300, 1), (300, 7), (1500, 2)])
def test_greedy(number: int, num_groups: int) -> None:
    generator = torch.Generator().manual_seed(number + num_groups)
    xy = torch.rand(number, 2, generator=generator) * 80
    boxes = torch.cat([xy, xy + 10 + 30 * torch.rand(number, 2, generator=generator)], dim=1)
    scores = torch.randperm(number, generator=generator) / number
    groups = torch.randint(num_groups, (number,), generator=generator)
    keep = grouped_nms(boxes, scores, groups, 0.5)
    assert keep.tolist() == greedy(boxes, scores, groups, 0.5)
    assert number == 1 or len(keep) < number


def test_no_boxes() -> None:
    keep = grouped_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    assert keep.tolist() == [] and keep.dtype == torch.int64
