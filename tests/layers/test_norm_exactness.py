"""Tests of the errors of norms in float32 on a CPU, against float64."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sn2fpn.layers import BatchNorm2d, GroupNorm, SyncBatchNorm, get_norm

CHANNELS_LAST = torch.channels_last
KINDS = ["BN", "SyncBN", "GN"]


def make(kind: str, channels: int = 64) -> nn.Module:
    torch.manual_seed(0)
    norm = get_norm(kind, channels)
    nn.init.uniform_(norm.weight, 0.5, 2.0), nn.init.normal_(norm.bias)
    return norm


def maps(mean: float, size: tuple[int, ...] = (2, 64, 120, 160)) -> tuple[Tensor, Tensor]:
    """Return a channels-last map of deviation 1, and a gradient of its normalised map."""
    generator = torch.Generator().manual_seed(1)
    x, grad = (torch.randn(size, generator=generator).contiguous(memory_format=CHANNELS_LAST) for _ in range(2))
    return x + mean, grad + 0.1


def run(norm: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Return the normalised map, the gradients of map, weight and bias, and the running statistics."""
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(grad)
    found = {"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    return found | dict(norm.named_buffers())


@pytest.mark.parametrize(("mean", "limit"), [(0.0, 4e-6), (3.0, 4e-6), (17.0, 2e-5)])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_channels_last_norms(kind: str, mean: float, limit: float) -> None:
    """PyTorch's own kernels for channels-last maps have errors of 1e-5 to 7e-3 here."""
    norm, (x, grad) = make(kind), maps(mean)
    reference = copy.deepcopy(norm).double() if kind != "SyncBN" else nn.BatchNorm2d(64).double()
    reference.load_state_dict(norm.state_dict())
    found, expected = run(norm, x, grad), run(reference, x.double(), grad.double())
    assert found["y"].is_contiguous(memory_format=CHANNELS_LAST) and found["x"].stride() == x.stride()
    assert (found["y"] - expected["y"]).abs().max() <= limit * expected["y"].std()
    for name in found.keys() - {"y", "num_batches_tracked"}:
        # The gradient of the weight sums products with the deviations, in which the rounding of the mean adds up.
        error = (found[name] - expected[name]).norm() / expected[name].norm()
        assert error <= (5 * limit if name == "weight" else limit / 2), name


def test_norms_are_pytorchs_elsewhere() -> None:
    """Contiguous maps, other dtypes and evaluation go to PyTorch's operators, with bitwise equal results."""
    x = maps(1.0, (2, 64, 9, 11))[0]
    for ours, plain in ((BatchNorm2d(64), nn.BatchNorm2d(64)), (GroupNorm(32, 64), nn.GroupNorm(32, 64))):
        assert isinstance(ours, type(plain))
        assert torch.equal(ours(x.contiguous()), plain(x.contiguous()))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ours(x.bfloat16()), plain(x.bfloat16()))
        assert torch.equal(ours.double()(x.double()), plain.double()(x.double()))
        assert ours.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(BatchNorm2d(64).eval()(x), nn.BatchNorm2d(64).eval()(x))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_follow_pytorchs(momentum: float | None) -> None:
    x = maps(2.0, (2, 64, 9, 11))[0]
    ours, plain = (cls(64, momentum=momentum) for cls in (BatchNorm2d, nn.BatchNorm2d))
    for _ in range(3):
        ours(x), plain(x)
    for name, value in plain.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-5), name
    bare = BatchNorm2d(64, track_running_stats=False)
    assert torch.allclose(bare(x), plain(x), atol=1e-5)
    assert torch.allclose(BatchNorm2d(64, affine=False)(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_one_pixel_no_image_and_parts_of_maps(kind: str) -> None:
    norm = make(kind)
    part = maps(17.0, (2, 128, 9, 11))[0][:, 32:96]  # neither contiguous nor channels-last, but the channels are inner
    expected = copy.deepcopy(norm).double()(part.double()) if kind != "SyncBN" else make("BN").double()(part.double())
    assert torch.allclose(norm(part).double(), expected, atol=2e-5)
    assert norm(torch.zeros(0, 64, 3, 3).contiguous(memory_format=CHANNELS_LAST)).shape == (0, 64, 3, 3)
    pixels = torch.randn(5, 64, 1, 1)
    assert torch.allclose(norm(pixels), copy.deepcopy(norm)(pixels.contiguous(memory_format=CHANNELS_LAST)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compilation_keeps_pytorchs_operators(kind: str) -> None:
    norm, (x, _) = make(kind), maps(0.0, (2, 64, 9, 11))
    compiled = torch.compile(copy.deepcopy(norm), fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), norm(x), atol=1e-4)
    exported = torch.export.export(norm.eval(), (x,), strict=False)
    operators = {str(node.target) for node in exported.graph.nodes}
    assert any("norm" in name for name in operators), operators


@pytest.mark.parametrize("kind", ["BN", "GN"])
def test_the_transforms_of_torch_func_take_pytorchs_operators(kind: str) -> None:
    norm, (x, grad) = make(kind, 32), maps(0.0, (2, 32, 6, 5))
    expected = run(copy.deepcopy(norm), x, grad)["x"]
    buffers = {name: value.clone() for name, value in norm.named_buffers()}
    found = torch.func.grad(lambda x, b: (torch.func.functional_call(norm, b, (x,)) * grad).sum())(x, buffers)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_synchronised_norm_in_one_process_is_a_batch_norm() -> None:
    x, _ = maps(17.0)
    assert torch.equal(SyncBatchNorm(64)(x), BatchNorm2d(64)(x))


def test_a_synchronised_norm_runs_in_a_process_group_of_one(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        x = torch.randn(2, 64, 5, 7)
        assert torch.equal(SyncBatchNorm(64)(x), BatchNorm2d(64)(x))
    finally:
        dist.destroy_process_group()
