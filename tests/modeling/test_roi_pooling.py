"""Tests of RoI pooling: golden numbers, the choice of levels, corner cases. `tests/layers/cpu` tests the CPU kernel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from golden_detectron2 import max_error, numbers
from sn2fpn.config import get_cfg
from sn2fpn.errors import UserError
from sn2fpn.modeling import build_model
from sn2fpn.modeling.roi_heads.pooler import ROIPooler, _roi_align_by_level, assign_levels

CONFIGS = Path(__file__).parents[2] / "configs"
STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize("name", ["ROIAlignV2_7_0", "ROIAlignV2_14_2", "ROIAlign_7_0"])
def test_golden(name: str) -> None:
    golden = numbers("components")
    maps = [
        torch.from_numpy(
            np.random.Generator(np.random.PCG64(50 + i)).standard_normal((2, 3, 64 >> i, 80 >> i)).astype(np.float32)
        )
        for i in range(4)
    ]
    kind, size, ratio = name.split("_")
    pooler = ROIPooler(int(size), STRIDES, int(ratio), aligned=kind == "ROIAlignV2")
    pooled = pooler(maps, [torch.from_numpy(golden[f"pool_boxes{i}"]) for i in range(2)])
    assert max_error(pooled, golden[f"pool_{name}"]) < 2e-6


@pytest.mark.parametrize("levels", [(2, 5), (3, 5)])
def test_golden_levels(levels: tuple[int, int]) -> None:
    golden = numbers("components")
    found = assign_levels(torch.from_numpy(golden["level_boxes"]), *levels)
    assert max_error(found, golden["level_{}_{}".format(*levels)]) == 0


def test_levels_by_definition() -> None:
    sides = [1, 55.9, 56.1, 111.9, 112.1, 223.9, 224.1, 447.9, 448.1, 2000]
    found = assign_levels(torch.tensor([[0, 0, s, s] for s in sides]), 2, 5)
    assert (found + 2).tolist() == [min(max(math.floor(4 + math.log2(s / 224)), 2), 5) for s in sides]


def test_a_smaller_canonical_size_sends_boxes_to_coarser_maps() -> None:
    boxes = random_boxes(3)
    sizes, usual = ROIPooler(7, STRIDES, canonical_box_size=112), ROIPooler(7, STRIDES)
    assert torch.equal(sizes.levels(boxes), usual.levels(2 * boxes)) and not torch.equal(
        sizes.levels(boxes), usual.levels(boxes)
    )
    maps = [torch.full((1, 2, 128 >> i, 128 >> i), float(i)) for i in range(4)]
    assert torch.equal(sizes(maps, [boxes])[:, 0, 3, 3].long(), sizes.levels(boxes))
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / "quick/Base-Shapes.yaml"))
    cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.CANONICAL_BOX_SIZE = True, 56
    heads = build_model(cfg).roi_heads
    assert heads.box_pooler.canonical_box_size == heads.mask_pooler.canonical_box_size == 56
    cfg.MODEL.ROI_HEADS.CANONICAL_BOX_SIZE = 0
    with pytest.raises(UserError, match=r"MODEL\.ROI_HEADS\.CANONICAL_BOX_SIZE: .* found 0"):
        build_model(cfg)


def random_boxes(seed: int) -> torch.Tensor:
    """Return twenty boxes of 1 to 400 pixels; some reach beyond the map's borders."""
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(20, 2, generator=g) * torch.tensor([400.0, 330.0]) - 40
    return torch.cat([xy, xy + torch.exp(torch.rand(20, 2, generator=g) * 6)], dim=1)


def test_one_image_equals_the_batch_and_order_is_kept() -> None:
    maps = [torch.randn(2, 4, 32 >> i, 40 >> i) for i in range(2)]
    boxes = [random_boxes(s) for s in (1, 2)]
    pooler = ROIPooler(3, (8, 16))
    together = pooler(maps, boxes)
    for n, b in enumerate(boxes):
        alone = pooler([m[n : n + 1] for m in maps], [b])
        torch.testing.assert_close(together[20 * n : 20 * n + 20], alone)


def test_no_boxes_still_reach_the_maps() -> None:
    maps = [torch.randn(2, 4, 8, 8, requires_grad=True)]
    pooled = ROIPooler(7, (8,))(maps, [torch.zeros(0, 4)] * 2)
    assert pooled.shape == (0, 4, 7, 7)
    pooled.sum().backward()
    assert maps[0].grad is not None and not maps[0].grad.any()


def test_half_precision_maps_keep_their_type() -> None:
    maps = [torch.randn(2, 4, 32, 40, dtype=torch.bfloat16, requires_grad=True)]
    pooled = ROIPooler(7, (8,))(maps, [random_boxes(1), random_boxes(2)])
    assert pooled.dtype == torch.bfloat16
    pooled.float().sum().backward()
    assert maps[0].grad.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_kernel_of_gpus_takes_maps_of_any_precision(dtype: torch.dtype) -> None:
    maps, boxes = [torch.randn(1, 4, 32 >> i, 40 >> i) for i in range(2)], random_boxes(5)
    rois, levels = torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1), torch.arange(len(boxes)) % 2
    expected = _roi_align_by_level([m.to(dtype).float() for m in maps], rois, levels, (8, 16), 7)
    found = _roi_align_by_level([m.to(dtype) for m in maps], rois, levels, (8, 16), 7)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected.to(dtype).float())


def test_strides_must_double() -> None:
    with pytest.raises(UserError, match=r"strides: .* double from one to the next, found \[4, 16\]"):
        ROIPooler(7, (4, 16))
