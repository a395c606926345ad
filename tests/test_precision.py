"""Tests of the contexts of mixed precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sn2fpn import precision
from sn2fpn.precision import autocast, is_float32_inside, no_grad_between

# Each takes a map (2, 6, 4, 5), a matrix (8, 12) and a vector (8,).
_PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "conv2d": lambda x, w, b: F.conv2d(x, w.view(8, 6, 1, 2), b, stride=2),
    "conv_transpose2d": lambda x, w, b: F.conv_transpose2d(x, w.view(6, 8, 2, 1), b),
    "linear": lambda x, w, b: F.linear(x, w[:, :5], bias=b),
    "matmul": lambda x, w, b: x @ w[:5],
    "einsum": lambda x, w, b: torch.einsum("nchw,wk->nkh", x, w[:5]),
    "attention": lambda x, w, b: F.scaled_dot_product_attention(x[0, 0], w[:, :5], w[:, 5:10]),
}


@pytest.fixture
def without_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute as on a CPU that has no instructions for bfloat16."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)


def test_weights_have_gradients_after_a_computation_without_them() -> None:
    """In torch 2.6, autocast keeps weights that it converts without gradients, unless it keeps none."""
    layer, x = nn.Linear(3, 2), torch.ones(1, 3)
    with autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match="stop"), no_grad_between():
            assert not layer(x).requires_grad and not torch.is_autocast_cache_enabled()
            raise RuntimeError("stop")
        assert torch.is_autocast_cache_enabled()
        loss = layer(x).sum()
    loss.backward()
    assert layer.weight.grad is not None and layer.bias.grad is not None


@pytest.mark.parametrize("kind", _PRODUCTS)
def test_without_instructions_products_round_once(kind: str, without_instructions: None) -> None:
    """Values and gradients are those of exact products of rounded operands, rounded to bfloat16 at the end."""
    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(s, generator=generator).requires_grad_() for s in ((2, 6, 4, 5), (8, 12), (8,))]
    with autocast("cpu", torch.bfloat16):
        y = _PRODUCTS[kind](*operands)
    dy = torch.randn(y.shape, generator=generator).bfloat16()
    y.backward(dy)

    exact = [t.detach().bfloat16().double().requires_grad_() for t in operands]
    y_exact = _PRODUCTS[kind](*exact)
    y_exact.backward(dy.double())

    assert y.dtype == torch.bfloat16
    for found, expected in zip([y.float(), *(t.grad for t in operands)], [y_exact, *(t.grad for t in exact)]):
        if found is None or expected is None:
            assert found is expected
            continue
        rounded = expected.bfloat16().float()
        assert found.dtype == torch.float32 and (found == rounded).float().mean() > 0.97
        torch.testing.assert_close(found, rounded, rtol=2**-7, atol=1e-6)


def test_without_instructions_other_contexts_and_dtypes_are_as_in_autocast(without_instructions: None) -> None:
    x, w = torch.randn(1, 4, 5, 5), torch.randn(3, 4, 1, 1)
    rounded = x.bfloat16()
    assert not is_float32_inside(rounded) and is_float32_inside(x)
    with autocast("cpu", torch.bfloat16):
        assert is_float32_inside(rounded) and not is_float32_inside(x.double())
        assert F.conv2d(x.double(), w.double()).dtype == torch.float64
        assert (x + x).dtype == torch.float32 and F.relu(rounded).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert not is_float32_inside(rounded)
            assert torch.equal(F.conv2d(x, w), F.conv2d(x, w)) and F.conv2d(x, w).dtype == torch.float32
        with torch.autocast("cpu", torch.float16):
            assert F.conv2d(x, w).dtype == torch.float16
    assert F.conv2d(x, w).dtype == torch.float32 and not is_float32_inside(rounded)
    with autocast("cpu", None):
        assert F.conv2d(x, w).dtype == torch.float32


def test_with_instructions_autocast_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    assert isinstance(autocast("cpu", torch.bfloat16), torch.autocast)
