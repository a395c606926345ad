"""Tests of ESD-1 and ESD-2: golden numbers, the definition window by window, odd sizes, channels, initialisation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golden_modules import count_parameters, load_case
from sn2fpn.layers import ESD1, ESD2, Conv2d, esd_average, esd_fuse, esd_fuse_conv


@pytest.mark.parametrize(("name", "cls"), [("esd1_equal", ESD1), ("esd1_double", ESD1), ("esd2_double", ESD2)])
def test_golden(name: str, cls: type) -> None:
    case = load_case(name)
    esd = cls(case.hyper["c_in"], case.hyper["c_out"]).eval()
    case.load_into(esd, {"dense": "dense", "fuse": "fuse"})
    case.check({"y": esd(case.inputs["x"])})


def windows(x: Tensor, border: float) -> Tensor:
    """Return the 4x4 windows at stride 2 with padding 1 (Tensor[N, C, H/2, W/2, 16])."""
    x = F.pad(x, (1, 1, 1, 1), value=border)
    return x.unfold(2, 4, 2).unfold(3, 4, 2).flatten(4)


def test_matches_the_definition() -> None:
    x = torch.randn(2, 4, 10, 14)
    average, maximum = windows(x, 0.0).sum(-1) / 16, windows(x, -torch.inf).amax(-1)
    for c_out in (4, 8):
        dense = torch.randn(2, c_out, 5, 7)
        fuse = esd_fuse_conv(4, c_out)
        views = torch.cat((average, maximum, dense), dim=1)
        expected = average + maximum + dense if c_out == 4 else torch.cat((average, maximum), dim=1) + dense
        assert torch.allclose(esd_fuse(x, dense), expected, atol=1e-6)
        mixed = torch.einsum("oi,nihw->nohw", fuse.weight[:, :, 0, 0], views)
        assert torch.allclose(esd_fuse(x, dense, fuse), mixed, atol=1e-5)


def test_channels_last_maps_on_a_gpu_are_padded_before_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's padded average pool has a wrong gradient for such maps."""
    for size in ((10, 14), (9, 13), (1, 5)):
        results = []
        for on_cpu in (True, False):
            monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _, here=on_cpu: here))
            x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(1))
            x = x.to(memory_format=torch.channels_last).requires_grad_()
            y = esd_average(x)
            assert ("ConstantPadNdBackward" in str(y.grad_fn.next_functions)) == (not on_cpu)
            y.backward(torch.arange(float(y.numel())).reshape(y.shape))
            results.append((y, x.grad))
        torch.testing.assert_close(*results)


def test_any_size_is_halved_and_rounded_up() -> None:
    modules = [ESD1(2, 2).eval(), ESD1(2, 4).eval(), ESD2(2, 3).eval()]
    for h in range(1, 20):
        for esd in modules:
            assert esd(torch.randn(1, 2, h, h + 5)).shape[2:] == ((h + 1) // 2, (h + 6) // 2)


def test_parameter_counts() -> None:
    assert count_parameters(ESD1(256, 256)) == 590_336
    assert count_parameters(ESD1(128, 256)) == 295_424
    assert count_parameters(ESD2(256, 256)) == 786_944
    assert count_parameters(ESD2(64, 128)) == 106_752
    # Inside ResNets, ESD-2 adds the fuse convolution alone, because FrozenBN has no parameters.
    assert sum(count_parameters(esd_fuse_conv(c, c)) for c in (128, 256, 512)) == 1_032_192
    assert count_parameters(ESD1(64, 64, activation="relu")) == 36_992
    assert count_parameters(ESD2(64, 64, activation="relu")) == 49_280


def test_dense_identity_starts_as_the_dense_branch_and_learns() -> None:
    esd = ESD2(6, 12, activation="relu", fuse_init="dense_identity")
    x = torch.randn(2, 6, 9, 12)
    y = esd(x)
    assert torch.equal(y, esd.dense(x))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in esd.parameters())


def test_an_existing_conv_can_be_the_dense_branch() -> None:
    conv2 = Conv2d(8, 8, 3, stride=2, padding=1, norm="FrozenBN", activation="relu")
    u = torch.randn(1, 8, 13, 10).relu()
    esd = ESD1(8, 8, norm="FrozenBN", activation="relu")
    esd.dense.load_state_dict(conv2.state_dict())
    assert torch.equal(esd_fuse(u, conv2(u)), esd(u))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ESD1(64, 96), "out_channels: .* 64 or 128 was expected for in_channels 64; found 96"),
        (lambda: ESD1(8, 8, stride=1), "stride: .* 2 was expected; found 1"),
        (lambda: ESD2(8, 8, stride=4), "stride: .* 2 was expected; found 4"),
        (lambda: ESD2(8, 8, kernel_size=4), "kernel_size: expected an odd number of at least 1, found 4"),
        (lambda: ESD2(8, 8, fuse_init="dense_identty"), "fuse_init: .*; did you mean 'dense_identity'"),
        (lambda: esd_fuse(torch.ones(1, 3, 4, 4), torch.ones(1, 5, 2, 2)), "out_channels: .* 3 or 6 was expected"),
    ],
)
def test_mistakes_are_named(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        make()
