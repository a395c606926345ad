"""Tests of masks as runs against bitmaps and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sn2fpn.structures import Instances, RunLengthMasks, masks_to_rle


def windows(bitmaps: np.ndarray) -> list:  # type: ignore[type-arg]
    """Return each bitmap with its tight window, or an empty one."""
    out = []
    for b in bitmaps:
        rows, columns = np.flatnonzero(b.any(1)), np.flatnonzero(b.any(0))
        part = (slice(0, 0),) * 2 if not len(rows) else tuple(slice(i[0], i[-1] + 1) for i in (rows, columns))
        out.append((part, b[part]))
    return out


@pytest.fixture
def bitmaps() -> np.ndarray:
    """Noise, an empty and a full mask, full columns at both ends, single pixels, and a ring."""
    rng = np.random.default_rng(0)
    out = np.zeros((9, 7, 11), dtype=bool)
    out[0] = rng.random((7, 11)) < 0.5
    out[2] = True
    out[3, :, :4] = True
    out[4, :, 9:] = True
    out[5, 0, 0] = out[6, -1, -1] = True
    out[7, 1:6, 2:9] = True
    out[7, 2:5, 3:8] = False
    out[8, :, 3:5] = out[8, 2:, 5] = True
    return out


def test_they_are_the_bitmaps(bitmaps: np.ndarray) -> None:
    masks = RunLengthMasks.from_windows(windows(bitmaps), bitmaps.shape[1:])
    assert len(masks) == len(bitmaps) and (np.stack(list(masks)) == bitmaps).all()
    assert [masks.area(i) for i in range(len(masks))] == bitmaps.sum((1, 2)).tolist()
    assert masks_to_rle(masks) == masks_to_rle(torch.from_numpy(bitmaps))
    assert (coco_mask.decode(masks.rles()[0]).astype(bool) == bitmaps[0]).all()
    for i, (part, bitmap) in enumerate(windows(bitmaps)):
        assert masks.window(i)[0] == part and (masks.window(i)[1] == bitmap).all()
    wide = RunLengthMasks.from_windows([((slice(0, 7), slice(0, 11)), b) for b in bitmaps], bitmaps.shape[1:])
    assert all((a == b).all() for a, b in zip(wide.runs, masks.runs))


def test_they_are_a_field_of_instances(bitmaps: np.ndarray) -> None:
    masks = RunLengthMasks.from_windows(windows(bitmaps), (7, 11))
    found = Instances((7, 11), pred_masks=masks, scores=torch.arange(9.0))
    for index in (torch.tensor([2, 0]), torch.arange(9) > 6, slice(1, 4)):
        picked = found[index].to("cpu")
        assert (np.stack(list(picked.pred_masks)) == bitmaps[index]).all() and len(picked) == len(picked.scores)
    both = Instances.cat([found, found[torch.tensor([5])]])
    assert len(both.pred_masks) == 10 and both.pred_masks.area(9) == 1
    assert list(RunLengthMasks([], (7, 11))) == []
