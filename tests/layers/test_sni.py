"""Tests of SNI: the paper's rule, and the fused top-down step against interpolation, product and sum."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from golden_modules import load_case
from sn2fpn.layers import SNI, soft_nearest, soft_nearest_add

# Fine sizes: even, odd rows, odd columns, both, tiny. The other pairs are no doubling: equal, zoom 4, arbitrary.
SIZES = [(8, 12), (9, 12), (8, 11), (17, 23), (1, 1), (2, 1)]
OTHER_SIZES = [((5, 6), (5, 6)), ((3, 4), (12, 16)), ((4, 5), (9, 7))]


def coarse_size(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def test_golden() -> None:
    case = load_case("sni_x2")
    case.check({"y": SNI(scale_factor=2, alpha="area")(case.inputs["x"])})


def test_matches_the_definition_pixel_by_pixel() -> None:
    x = torch.randn(2, 3, 5, 6)
    y = SNI()(x, size=(9, 12))
    for i in range(9):
        for j in range(12):
            assert torch.allclose(y[:, :, i, j], x[:, :, i * 5 // 9, j * 6 // 12] * (5 * 6) / (9 * 12))


@pytest.mark.parametrize(("zoom", "alpha", "factor"), [(2, "area", 1 / 4), (4, "area", 1 / 16), (2, 0.6, 0.6)])
def test_gradient_carries_alpha_times_the_copies(zoom: int, alpha: float | str, factor: float) -> None:
    x = torch.randn(1, 2, 3, 4, requires_grad=True)
    y = SNI(zoom, alpha)(x)
    assert y.shape == (1, 2, 3 * zoom, 4 * zoom)
    y.sum().backward()
    assert torch.allclose(x.grad, torch.full_like(x, factor * zoom**2))


def test_bilinear_has_half_pixel_centres() -> None:
    x = torch.tensor([[[[0.0, 4.0]]]])
    y = soft_nearest(x, (1, 4), alpha=1.0, interp="bilinear")
    assert torch.allclose(y, torch.tensor([[[[0.0, 1.0, 3.0, 4.0]]]]))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("interp", ["nearest", "bilinear"])
def test_fused_step_equals_interpolate_multiply_add(interp: str, dtype: torch.dtype, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    for small, size in [(coarse_size(s), s) for s in SIZES] + OTHER_SIZES:
        values = [torch.randn(2, 3, *s).to(dtype).contiguous(memory_format=layout) for s in (size, small)]
        fused, plain = ([v.clone().requires_grad_() for v in values] for _ in range(2))
        y = soft_nearest_add(*fused, alpha="area", interp=interp)
        alpha = small[0] * small[1] / (size[0] * size[1])
        expected = plain[0] + alpha * F.interpolate(plain[1], size=size, mode=interp)
        grad = torch.randn_like(y)
        y.backward(grad)
        expected.backward(grad)
        assert y.dtype == dtype
        assert torch.allclose(y, expected, atol=tolerance)
        for a, b in zip(fused, plain):
            assert torch.allclose(a.grad, b.grad, atol=tolerance), (small, size)


@pytest.mark.parametrize("size", SIZES)
def test_fused_step_gradcheck(size: tuple[int, int]) -> None:
    lateral = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 2, *coarse_size(size), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_nearest_add, (lateral, x))


def test_fused_step_under_the_transforms_of_torch_func() -> None:
    fine, coarse, weight = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 4, 6), torch.randn(2, 3, 8, 12)
    leaves = fine.clone().requires_grad_(), coarse.clone().requires_grad_()
    (soft_nearest_add(*leaves) * weight).sum().backward()
    found = torch.func.grad(lambda x: (soft_nearest_add(*x) * weight).sum())((fine, coarse))
    assert all(torch.equal(a, b.grad) for a, b in zip(found, leaves))
    y = soft_nearest_add(fine, coarse)
    assert torch.allclose(torch.func.vmap(lambda a, b: soft_nearest_add(a[None], b[None])[0])(fine, coarse), y)
    value, tangent = torch.func.jvp(soft_nearest_add, (fine, coarse), (fine, coarse))
    assert torch.allclose(value, y) and torch.allclose(tangent, y)  # the step is linear
    with forward_ad.dual_level():
        dual = soft_nearest_add(forward_ad.make_dual(fine, fine), forward_ad.make_dual(coarse, coarse))
        assert torch.allclose(forward_ad.unpack_dual(dual).tangent, y)


def test_fused_step_takes_views_and_mixed_dtypes() -> None:
    lateral = torch.randn(2, 16, 24, 4).permute(0, 3, 1, 2)[:, :, ::2, 1::2]
    x = torch.randn(2, 6, 4, 6).transpose(1, 2).expand(2, 4, 6, 6)[:, :, :4]
    expected = lateral + 0.25 * F.interpolate(x, size=(8, 12))
    assert torch.allclose(soft_nearest_add(lateral, x), expected)
    mixed = soft_nearest_add(lateral, x.bfloat16())
    assert mixed.dtype == torch.float32
    assert torch.allclose(mixed, expected, atol=0.02)


def test_fused_step_makes_no_map_of_the_fine_size_but_its_result() -> None:
    class Allocations(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.storages: dict[int, int] = {}
            self.alive: list[torch.Tensor] = []  # kept alive, so that no address is used twice

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(t, torch.Tensor):
                    self.storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
                    self.alive.append(t)
            return out

    for size in SIZES[:4]:
        lateral, x = torch.randn(1, 4, *size), torch.randn(1, 4, *coarse_size(size))
        for layout in (torch.contiguous_format, torch.channels_last):
            lateral = lateral.contiguous(memory_format=layout)
            with Allocations() as seen:
                y = soft_nearest_add(lateral, x)
            assert y.is_contiguous(memory_format=layout)
            new = {address: size for address, size in seen.storages.items() if address != lateral.data_ptr()}
            assert new.pop(y.data_ptr()) == y.numel() * 4
            assert all(size <= x.numel() * 4 for size in new.values())
        leaves = [lateral.requires_grad_(), x.requires_grad_()]
        assert soft_nearest_add(*leaves).grad_fn.saved_tensors == ()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: soft_nearest(torch.ones(1, 1, 4, 4), (3, 8)), r"\(3, 8\) is smaller than the size \(4, 4\)"),
        (lambda: soft_nearest_add(torch.ones(1, 2, 8, 8), torch.ones(1, 1, 4, 4)), "agree in batch size and channels"),
        (lambda: SNI(interp="nearst"), "interp: .*'nearst'; did you mean 'nearest'"),
        (lambda: SNI(alpha="learnt"), "alpha: expected a number or 'area', 'learned', found 'learnt'; did you mean"),
        (lambda: soft_nearest_add(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 4, 4), interp="cubic"), "interp: .*'cubic'"),
        (lambda: soft_nearest_add(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 4, 4), alpha="learned"), "found 'learned'"),
    ],
)
def test_mistakes_are_named(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        call()
