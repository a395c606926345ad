"""Test matching against golden tables and a slow implementation."""

from __future__ import annotations

import pytest
import torch

from golden_detectron2 import CASES, max_error, numbers
from sn2fpn.errors import UserError
from sn2fpn.modeling.matching import Matcher


@pytest.mark.parametrize("rows", [4, 3, 0])
@pytest.mark.parametrize("name", ["rpn", "rpn_nolow", "roi"])
def test_golden(name: str, rows: int) -> None:
    golden, spec = numbers("components"), CASES["components"]["matchers"][name]
    matcher = Matcher(spec["thresholds"], spec["labels"], spec["allow_low_quality_matches"])
    index, labels = matcher(torch.from_numpy(golden["iou"])[:rows])
    assert max_error(index, golden[f"match_{name}_{rows}gt_idx"]) == 0
    assert max_error(labels, golden[f"match_{name}_{rows}gt_label"]) == 0
    assert (index.dtype, labels.dtype) == (torch.int64, torch.int8)


@pytest.mark.parametrize("allow_low_quality", [False, True])
def test_slow_version(allow_low_quality: bool) -> None:
    iou = torch.randint(0, 11, (5, 60), generator=torch.Generator().manual_seed(1)) / 10.0  # many ties
    index, labels = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality)(iou)
    table = iou.tolist()
    for n in range(60):
        column = [row[n] for row in table]
        best = max(column)
        assert column[index[n]] == best
        # The thresholds are compared as float32, like the IoUs.
        expected = 1 if best >= torch.tensor(0.7).item() else -1 if best >= torch.tensor(0.3).item() else 0
        if allow_low_quality and any(row[n] == max(row) for row in table):
            expected = 1
        assert labels[n] == expected


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"^labels: expected 3 numbers out of -1, 0 and 1 .* found \[0, 1\]"):
        Matcher([0.3, 0.7], [0, 1])
    with pytest.raises(UserError, match=r"^thresholds: expected one or more rising IoUs, found \[0.7, 0.3\]"):
        Matcher([0.7, 0.3], [0, -1, 1])
