"""Tests that layers of heads which a user has hooked, wrapped or replaced are called, with the usual results."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from sn2fpn.modeling.roi_heads import MaskHead
from sn2fpn.modeling.roi_heads.box_head import BoxHead
from sn2fpn.modeling.rpn import RPNHead

Heads = tuple[nn.Module, Callable[[nn.Module], Tensor]]


def _box() -> Heads:
    torch.manual_seed(0)
    head, x = BoxHead(8, 4, [6], [16, 12]), torch.randn(5, 8, 4, 4, requires_grad=True)
    return head, lambda h: h(x)


def _mask() -> Heads:
    torch.manual_seed(0)
    head, x = MaskHead(8, 3, [8], 8), torch.randn(5, 8, 4, 4, requires_grad=True)
    return head, lambda h: h(x)


def _rpn() -> Heads:
    torch.manual_seed(0)
    head, maps = (
        RPNHead(8, 3, [8, -1]),
        [torch.randn(2, 8, 9, 7, requires_grad=True), torch.randn(2, 8, 5, 4, requires_grad=True)],
    )
    return head, lambda h: torch.cat([x.flatten() for part in h(maps) for x in part])


HEADS = {"box": _box, "mask": _mask, "rpn": _rpn}
LAYERS = [
    ("box", "fc1"),
    ("box", "fc2"),
    ("box", "conv1"),
    ("mask", "deconv"),
    ("mask", "mask_fcn1"),
    ("mask", "predictor"),
]
LAYERS += [("rpn", "conv.conv0"), ("rpn", "conv.conv1"), ("rpn", "objectness_logits")]


def _gradients(head: nn.Module, run: Callable[[nn.Module], Tensor]) -> tuple[Tensor, list[Tensor]]:
    out = run(head)
    head.zero_grad()
    out.square().sum().backward()
    return out.detach(), [p.grad.clone() for p in head.parameters()]


@pytest.mark.parametrize(("name", "layer"), LAYERS)
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_are_called_and_change_nothing(name: str, layer: str, kind: str) -> None:
    head, run = HEADS[name]()
    expected = _gradients(head, run)
    calls: list[str] = []
    getattr(head.get_submodule(layer), f"register_{kind}_hook")(lambda *_: calls.append(kind))
    found = _gradients(head, run)
    assert calls
    torch.testing.assert_close(found, expected)


class _Wrapped(nn.Module):
    """A layer with a part of its own beside it, as adapters have it."""

    def __init__(self, layer: nn.Linear, part: float) -> None:
        super().__init__()
        self.layer, self.part = layer, nn.Parameter(torch.full((layer.out_features,), part))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.part


class _Shifted(nn.Linear):
    """A linear layer with a forward pass of its own."""

    def __init__(self, layer: nn.Linear, part: float) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.part = nn.Parameter(torch.full((layer.out_features,), part))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.part


@pytest.mark.parametrize("layer", ["fc1", "fc2"])
@pytest.mark.parametrize("kind", [_Wrapped, _Shifted])
def test_a_layer_in_place_of_a_linear_one_is_called(kind: type[nn.Module], layer: str) -> None:
    head, run = _box()
    expected = run(head)
    linear = head.get_submodule(layer)
    setattr(head, layer, kind(linear, 0.0))
    torch.testing.assert_close(run(head), expected)
    setattr(head, layer, kind(linear, -0.5))
    out, gradients = _gradients(head, run)
    assert out.min() == 0  # the layers are still followed by ReLU
    assert not torch.allclose(out, expected) and all(g.abs().sum() > 0 for g in gradients)


def test_pruned_and_parametrized_layers_train() -> None:
    head, run = _box()
    prune.l1_unstructured(head.fc1, "weight", 0.5)
    first = [_gradients(head, run)[1] for _ in range(2)]  # the weight is computed anew in each step
    torch.testing.assert_close(first[0], first[1])
    prune.remove(head.fc1, "weight")
    parametrize.register_parametrization(head.fc1, "weight", nn.Identity())
    _gradients(head, run)
