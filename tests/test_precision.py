"""Tests of the contexts of mixed precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sn2fpn.precision import autocast, no_grad_between


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
