"""Tests of every CPU kernel against the plain operator that it replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import profile
from torchvision.ops import batched_nms, deform_conv2d, roi_align

from sn2fpn.layers import Conv2d
from sn2fpn.layers.cpu import linear
from sn2fpn.layers.cpu.deform_conv import deform_conv2d_by_grid
from sn2fpn.layers.cpu.fused_add import add_doubled_by_columns
from sn2fpn.layers.cpu.layout import channels_last_on_cpu
from sn2fpn.layers.cpu.mask_windows import windows_of_boxes
from sn2fpn.layers.cpu.nms import nms_per_group
from sn2fpn.layers.cpu.pointwise import pointwise_conv
from sn2fpn.layers.cpu.roi_align import roi_align_pyramid
from sn2fpn.layers.cpu.sync_batch_norm import sync_batch_norm
from sn2fpn.modeling.roi_heads import mask_pasting
from sn2fpn.modeling.roi_heads.pooler import _roi_align_by_level

STRIDES = (4, 8, 16, 32)
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def random_rois(number: int, seed: int = 0) -> Tensor:
    """Return boxes of 1 to 400 pixels on two images. Some reach beyond the map's borders, and some are empty."""
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(number, 2, generator=g) * torch.tensor([400.0, 330.0]) - 40
    wh = torch.exp(torch.rand(number, 2, generator=g) * 6)
    wh[0], wh[1, 0], wh[2] = 0, 0, 1e-3
    return torch.cat([torch.randint(0, 2, (number, 1), generator=g).float(), xy, xy + wh], dim=1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("keys", [{}, {"stride": 2}, {"groups": 4}, {"padding": 1, "bias": False}])
def test_pointwise_convolutions_take_onednn(keys: dict[str, Any], threads: int) -> None:
    g, before = torch.Generator().manual_seed(1), torch.get_num_threads()
    conv = Conv2d(8, 12, 1, **keys)
    x = torch.randn(2, 8, 9, 11, generator=g).contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.set_num_threads(threads)
    try:
        with profile() as recorded:
            y = conv(x)
        expected = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)
        grad = torch.randn(y.shape, generator=g)
        found, right = (torch.autograd.grad(out, [x, conv.weight], grad) for out in (y, expected))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)
    assert any(event.key == "aten::mkldnn_convolution" for event in recorded.key_averages())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("side", [1, 5, 40])
def test_pointwise_convolutions_never_take_the_kernels_of_dilated_ones(side: int, dtype: torch.dtype) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    x, weight = torch.randn(1, 16, side, side, dtype=dtype), torch.randn(8, 16, 1, 1, dtype=dtype)
    try:
        assert torch.equal(pointwise_conv(x, weight), F.conv2d(x, weight))  # contiguous maps
        x = x.contiguous(memory_format=torch.channels_last)
        with profile() as recorded:
            y = pointwise_conv(x, weight)
        torch.testing.assert_close(y, F.conv2d(x, weight), rtol=1e-5, atol=2e-6)
    finally:
        torch.set_num_threads(before)
    assert not [event.key for event in recorded.key_averages() if "dilated" in event.key]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_a_recorded_pointwise_convolution_has_no_dilation() -> None:
    conv, x = Conv2d(4, 6, 1), torch.randn(1, 4, 5, 7)
    exported = next(node for node in torch.export.export(conv, (x,)).graph.nodes if "conv2d" in str(node.target))
    assert len(exported.args) == 3 and not exported.kwargs  # Stride, padding, dilation and groups are the defaults.
    traced = str(torch.jit.trace(conv, x).inlined_graph)
    assert "aten::_convolution" in traced and "value=2]" not in traced


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("size, ratio", [(7, 0), (7, 2), (14, 0), (1, 3)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_roi_align_forward_and_backward(size: int, ratio: int, aligned: bool, layout: torch.memory_format) -> None:
    g = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 5, 64 >> i, 80 >> i, generator=g) for i in range(4)]
    maps = [m.to(memory_format=layout).requires_grad_() for m in maps]
    rois, levels = random_rois(150), torch.randint(0, 4, (150,), generator=g)
    pooled = roi_align_pyramid(maps, rois, levels, STRIDES, size, ratio, aligned)
    expected = torch.cat(
        [
            roi_align(maps[level], roi[None], size, 1 / STRIDES[level], ratio, aligned)
            for level, roi in zip(levels.tolist(), rois)
        ]
    )
    torch.testing.assert_close(pooled, expected, rtol=0, atol=2e-5)
    assert torch.equal(_roi_align_by_level(maps, rois, levels, STRIDES, size, ratio, aligned), expected)
    grad = torch.randn(pooled.shape, generator=g)
    for found, right in zip(torch.autograd.grad(pooled, maps, grad), torch.autograd.grad(expected, maps, grad)):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_roi_align_in_half_precision_is_float32_rounded_once(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(2)
    maps = [torch.randn(2, 5, 64 >> i, 80 >> i, generator=g).to(dtype).requires_grad_() for i in range(4)]
    exact = [m.detach().float().requires_grad_() for m in maps]
    rois, levels = random_rois(150), torch.randint(0, 4, (150,), generator=g)
    pooled, expected = (roi_align_pyramid(m, rois, levels, STRIDES, 7) for m in (maps, exact))
    assert pooled.dtype == dtype and torch.equal(pooled, expected.to(dtype))
    grad = torch.randn(pooled.shape, generator=g).to(dtype)
    found, right = torch.autograd.grad(pooled, maps, grad), torch.autograd.grad(expected, exact, grad.float())
    assert all(torch.equal(a, b.to(dtype)) for a, b in zip(found, right))


def test_roi_align_gradient_in_double_precision() -> None:
    maps = [torch.randn(2, 2, 6 >> i, 8 >> i, dtype=torch.float64, requires_grad=True) for i in range(2)]
    rois, levels = random_rois(6) / 10, torch.tensor([0, 1, 0, 1, 1, 0])
    rois[:, 0] = torch.tensor([0, 1, 0, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda *m: roi_align_pyramid(m, rois, levels, STRIDES, 2), maps)


@pytest.mark.parametrize("number, num_groups", [(0, 1), (1, 1), (300, 1), (300, 7), (1500, 2)])
def test_nms_in_threads_and_without(number: int, num_groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(number + num_groups)
    xy = torch.rand(number, 2, generator=g) * 80
    boxes = torch.cat([xy, xy + 10 + 30 * torch.rand(number, 2, generator=g)], dim=1)
    scores = torch.randperm(number, generator=g) / max(number, 1)
    groups = torch.randint(num_groups, (number,), generator=g)
    expected = batched_nms(boxes, scores, groups, 0.5)
    assert torch.equal(nms_per_group(boxes, scores, groups, 0.5), expected)
    monkeypatch.setattr("sn2fpn.layers.cpu.nms._PAIRS_WORTH_THREADS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert torch.equal(nms_per_group(boxes, scores, groups, 0.5), expected)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "padding"), [((1, 1), (1, 1)), ((2, 1), (0, 2))])
@pytest.mark.parametrize("modulated", [False, True])
def test_deform_conv(groups: int, stride: tuple[int, int], padding: tuple[int, int], modulated: bool) -> None:
    x, weight, bias = torch.randn(2, 4, 11, 8), torch.randn(6, 4, 3, 3), torch.randn(6)
    plain = F.conv2d(x, weight, bias, stride, padding)
    offset = 2 * torch.randn(2, 18 * groups, *plain.shape[2:])
    mask = torch.rand(2, 9 * groups, *plain.shape[2:]) if modulated else None
    found = deform_conv2d_by_grid(x, offset, weight, bias, stride, padding, mask)
    assert torch.allclose(found, deform_conv2d(x, offset, weight, bias, stride, padding, mask=mask), atol=1e-4)
    still = deform_conv2d_by_grid(x, torch.zeros_like(offset), weight, bias, stride, padding)
    assert torch.allclose(still, plain, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(8, 12), (9, 12), (8, 11), (17, 23), (1, 1), (2, 1)])
def test_fused_add(size: tuple[int, int], layout: torch.memory_format) -> None:
    fine = torch.randn(2, 3, *size).contiguous(memory_format=layout)
    coarse = torch.randn(2, 3, *((side + 1) // 2 for side in size)).contiguous(memory_format=layout)
    found = add_doubled_by_columns(fine, coarse, 0.3, torch.empty_like(fine))
    assert torch.allclose(found, fine + 0.3 * F.interpolate(coarse, size), atol=1e-6)


@pytest.mark.parametrize("avx512", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_linear_of_maps(layout: torch.memory_format, avx512: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_AVX512", avx512)
    layer, x = nn.Linear(4 * 49, 10), torch.randn(5, 4, 7, 7).contiguous(memory_format=layout)
    assert torch.allclose(linear.linear_of_maps(x, layer.weight, layer.bias), layer(x.flatten(1)), atol=1e-5)
    traced = torch.jit.trace(linear.linear_of_maps, (x, layer.weight.detach(), layer.bias.detach()))
    assert "aten::linear" in str(traced.graph) and "conv" not in str(traced.graph)  # a graph may run elsewhere


def test_sync_batch_norm_of_one_process(tmp_path: Path) -> None:
    """`tests/layers/test_conv.py` compares two processes with one."""
    plain, synced, of_doubles = nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.SyncBatchNorm(4).double()
    x, grad = torch.randn(5, 4, 3, 3) * 2 + 30, torch.randn(5, 4, 3, 3)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        results = [plain(leaves[0]), sync_batch_norm(leaves[1], synced)]
        for y in results:
            y.backward(grad)
        before = {name: value.clone() for name, value in synced.state_dict().items()}
        assert sync_batch_norm(torch.zeros(0, 4, 3, 3), synced).shape == (0, 4, 3, 3)
        assert all(torch.equal(before[name], value) for name, value in synced.state_dict().items())
        assert torch.allclose(sync_batch_norm(x.double(), of_doubles).float(), results[0], atol=1e-5)
    finally:
        dist.destroy_process_group()
    assert torch.allclose(*results, atol=1e-5)
    assert torch.allclose(*(leaf.grad for leaf in leaves), atol=1e-5)
    for name, value in plain.state_dict().items():
        assert torch.allclose(synced.state_dict()[name], value), name


def test_layout() -> None:
    x = torch.randn(2, 3, 5, 7)
    inside = channels_last_on_cpu(x)
    assert torch.equal(inside, x) and inside.is_contiguous(memory_format=torch.channels_last)
    elsewhere = x.to("meta")
    assert channels_last_on_cpu(elsewhere) is elsewhere


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_mask_windows_hold_all_pixels_that_whole_images_have(monkeypatch: pytest.MonkeyPatch, threshold: float) -> None:
    g = torch.Generator().manual_seed(0)
    masks, corner = torch.rand(20, 28, 28, generator=g), torch.rand(20, 2, generator=g) * 120 - 20
    boxes = torch.cat([corner, corner + 1 + torch.rand(20, 2, generator=g) * 50], dim=1)
    found = mask_pasting.paste_masks(masks, boxes, (90, 110), threshold)
    assert len(list(windows_of_boxes(boxes, (90, 110)))) < 20  # some boxes lie outside of the image
    monkeypatch.setattr(mask_pasting, "_PIXELS_PER_PASS", 8 * 90 * 110)
    whole = mask_pasting._whole_images
    monkeypatch.setattr(mask_pasting, "windows_of_boxes", lambda boxes, size, _: whole(len(boxes), size))
    assert torch.equal(mask_pasting.paste_masks(masks, boxes, (90, 110), threshold), found)
