"""Tests of convolutions with norm and activation, of frozen and synchronised norms, and of norms by name."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from sn2fpn.errors import UserError
from sn2fpn.layers import Conv2d, ConvNormAct, FrozenBatchNorm2d, SyncBatchNorm, get_norm

STATISTICS = ["bias", "running_mean", "running_var", "weight"]


def frozen_conv(bias: bool | None = None) -> Conv2d:
    conv = Conv2d(5, 7, 3, stride=2, padding=1, bias=bias, norm="FrozenBN", activation="relu")
    for buffer in conv.norm.buffers():
        buffer.uniform_(0.5, 2.0)
    return conv


def plain(conv: Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return the result of convolution, batch norm in evaluation mode and ReLU as three steps."""
    n = conv.norm
    y = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
    return F.batch_norm(y, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps).relu()


@pytest.mark.parametrize("bias", [None, True])
def test_frozen_norm_is_folded_exactly(bias: bool | None) -> None:
    conv = frozen_conv(bias)
    x = torch.randn(2, 5, 9, 8)
    folded = conv(x)
    expected = plain(conv, x)
    assert torch.allclose(folded, expected, atol=1e-5)
    grads = [torch.autograd.grad(y.square().sum(), conv.weight)[0] for y in (folded, expected)]
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-3)


def test_folding_follows_every_change_of_the_weights() -> None:
    conv, x = frozen_conv().eval(), torch.randn(2, 5, 9, 8)
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
    other = frozen_conv().state_dict()

    def step() -> None:
        conv.train()(x).sum().backward()
        optimizer.step()
        conv.eval()

    changes = [
        lambda: None,
        step,
        lambda: conv.load_state_dict(other),
        lambda: conv.norm.running_mean.add_(1.0),
        lambda: conv.weight.data.mul_(0.5),
        lambda: conv.norm.weight.data.mul_(0.5),
        lambda: conv.bfloat16().float(),
        lambda: setattr(conv, "weight", nn.Parameter(torch.randn_like(conv.weight))),
        lambda: setattr(conv, "norm", frozen_conv().norm),
    ]
    for change in changes:
        change()
        with torch.no_grad():
            assert torch.allclose(conv(x), plain(conv, x), atol=1e-5)
            assert torch.allclose(copy.deepcopy(conv)(x), conv(x))
    assert set(conv.state_dict()) == {"weight", *(f"norm.{name}" for name in STATISTICS)}


def test_state_dict_names_are_detectron2s() -> None:
    assert set(Conv2d(3, 4, 1).state_dict()) == {"weight", "bias"}
    assert set(Conv2d(3, 32, 1, norm="GN").state_dict()) == {"weight", "norm.weight", "norm.bias"}
    batch_norm = set(Conv2d(3, 4, 1, norm="BN").state_dict())
    assert batch_norm == {"weight", "norm.num_batches_tracked", *(f"norm.{name}" for name in STATISTICS)}


def test_frozen_batch_norm_loads_checkpoints_of_batch_norm() -> None:
    trained = Conv2d(3, 4, 1, norm="BN")
    trained(torch.randn(4, 3, 5, 5))
    frozen = Conv2d(3, 4, 1, norm="FrozenBN")
    state = trained.state_dict()
    assert frozen.load_state_dict(state).missing_keys == []
    assert "norm.num_batches_tracked" in state  # the caller's dict stays as it was
    x = torch.randn(2, 3, 5, 5)
    assert torch.allclose(frozen(x), trained.eval()(x), atol=1e-6)
    assert not list(frozen.norm.parameters())


def test_convert_frozen_batchnorm() -> None:
    net = nn.Sequential(Conv2d(3, 4, 3, norm="BN"), nn.Sequential(nn.BatchNorm2d(4)), SyncBatchNorm(4))
    net(torch.randn(4, 3, 8, 8))
    net.eval()
    x = torch.randn(2, 3, 8, 8)
    expected = net(x)
    converted = FrozenBatchNorm2d.convert_frozen_batchnorm(net)
    assert converted is net
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in net.modules()) == 3
    assert torch.allclose(net(x), expected, atol=1e-5)
    assert torch.allclose(net.train()(x), expected, atol=1e-5)


def test_get_norm() -> None:
    x = torch.randn(4, 64, 5, 5)
    for name in ("BN", "SyncBN", "GN"):
        y = get_norm(name, 64, eps=1e-3)(x)
        groups = y.view(4, 32, -1) if name == "GN" else y.transpose(0, 1).flatten(1)
        assert groups.mean(-1).abs().max() < 1e-5
        assert torch.allclose(groups.var(-1, unbiased=False), torch.ones(()), atol=0.01)
    assert get_norm("", 64) is None
    assert get_norm(None, 64) is None
    assert get_norm(partial(nn.BatchNorm2d, eps=0.5), 64).eps == 0.5
    assert get_norm("BN", 8, eps=1e-3, momentum=0.03).momentum == 0.03
    with pytest.raises(UserError, match="norm: unknown value 'FrozenBatch'; did you mean 'FrozenBN'"):
        get_norm("FrozenBatch", 8)
    with pytest.raises(UserError, match="divisible by 32, found 48"):
        get_norm("GN", 48)


@pytest.mark.parametrize("norm", ["", "BN", "GN", "FrozenBN"])
def test_conv_block_under_autocast(norm: str) -> None:
    block = ConvNormAct(8, 32, 3, stride=2, norm=norm)
    x = torch.randn(2, 8, 9, 12)
    expected = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert y.shape == (2, 32, 5, 6)
    assert torch.allclose(y.float(), expected, atol=0.1)


def _sync_batch_norm_process(rank: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    x, grad = torch.randn(5, 4, 3, 3) * 2 + 30, torch.randn(5, 4, 3, 3)
    mine = slice(0, 2) if rank == 0 else slice(2, 5)  # the processes have shares of different sizes
    whole, part = nn.BatchNorm2d(4), SyncBatchNorm(4)
    x_whole, x_part = x.clone().requires_grad_(), x[mine].clone().requires_grad_()
    y_whole, y_part = whole(x_whole), part(x_part)
    y_whole.backward(grad)
    y_part.backward(grad[mine])
    dist.all_reduce(part.weight.grad)
    assert torch.allclose(y_part, y_whole[mine], atol=1e-5)
    assert torch.allclose(x_part.grad, x_whole.grad[mine], atol=1e-5)
    assert torch.allclose(part.weight.grad, whole.weight.grad, atol=1e-4)
    assert torch.allclose(part.running_mean, whole.running_mean)
    assert torch.allclose(part.running_var, whole.running_var)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_sync_batch_norm_on_two_cpu_processes_equals_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.multiprocessing.spawn(_sync_batch_norm_process, (str(tmp_path / "rendezvous"),), nprocs=2)
