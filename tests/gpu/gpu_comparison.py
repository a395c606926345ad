"""The comparison of a computation on the device under test with the same computation on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from sn2fpn.structures import Instances

HALF = [pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16]  # a rehearsal in float16 is slow


class Both:
    """Runs a computation on the CPU and on the device under test.

    Args:
        device: the device under test.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, compute: Callable[..., Any], *inputs: Any) -> tuple[Any, Any]:
        """Return what `compute(*inputs)` returns on the CPU and on the device, both as tensors on the CPU.

        Args:
            compute: the computation.
            inputs: tensors, modules, lists and dicts of them, which are copied for each of the two, and other values.
        """
        expected = compute(*(moved(x, torch.device("cpu")) for x in inputs))
        with self.on_device():
            found = compute(*(moved(x, self.device) for x in inputs))
        return moved(expected, torch.device("cpu")), moved(found, torch.device("cpu"))

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Let tensors of a rehearsal pretend that they do not lie on a CPU."""
        with pytest.MonkeyPatch.context() as patch:
            if self.device.type == "cpu":
                patch.setattr(torch.Tensor, "is_cpu", property(lambda _: False), raising=False)
            yield


def moved(x: Any, device: torch.device) -> Any:
    """Return a copy of tensors, modules, and lists and dicts of them on a device; tensors keep `requires_grad`."""
    if isinstance(x, nn.Module):
        return copy.deepcopy(x).to(device)
    if isinstance(x, Tensor):
        return x.detach().clone().to(device).requires_grad_(x.requires_grad)
    if isinstance(x, Mapping):
        return {k: moved(v, device) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [moved(v, device) for v in x]
    return x.to(device) if hasattr(x, "to") else x


def with_gradients(module: Callable[..., Any], *inputs: Any) -> dict[str, Tensor]:
    """Return the outputs of a module by name, and the gradients of its inputs and parameters for fixed slopes."""
    outputs = _tensors(module(*inputs))
    leaves = {f"input {k}": t for k, t in _tensors(list(inputs)).items() if t.requires_grad}
    if isinstance(module, nn.Module):
        leaves |= {k: p for k, p in module.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(99)
    slopes = [torch.randn(t.shape, generator=generator) for t in outputs.values()]
    loss = sum((t.float() * slope.to(t.device)).sum() for t, slope in zip(outputs.values(), slopes))
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return {k: t.float() for k, t in outputs.items()} | {f"gradient of {k}": g for k, g in zip(leaves, grads)}


def _tensors(x: Any) -> dict[str, Tensor]:
    """Return all tensors in nested lists and dicts by name."""
    if isinstance(x, Tensor):
        return {"0": x}
    items = x.items() if isinstance(x, Mapping) else enumerate(x) if isinstance(x, list | tuple) else ()
    return {f"{k}.{name}": t for k, v in items for name, t in _tensors(v).items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], values: float, gradients: float) -> None:
    """Compare results of `with_gradients`.

    Args:
        found, expected: the results.
        values: tolerance of outputs, in deviations of the output.
        gradients: tolerance of the norm of a gradient's error, in norms of the gradient. A gradient that is 0 up to
            rounding, such as that of a bias before a batch norm, counts as a hundredth of the largest one.
    """
    assert found.keys() == expected.keys()
    least = 0.01 * max([float(g.norm()) for name, g in expected.items() if name.startswith("gradient")], default=0.0)
    for name, right in expected.items():
        difference = found[name] - right
        assert difference.isfinite().all(), name
        if name.startswith("gradient"):
            scale = max(float(right.norm()), least)
            assert difference.norm() <= gradients * scale, f"{name}: {difference.norm() / scale:.1e}"
        elif right.numel():
            scale = right.std() if right.numel() > 1 else right.abs().max()
            assert difference.abs().max() <= values * scale, f"{name}: {difference.abs().max() / scale:.1e}"


def unmatched(found: Instances, expected: Instances) -> int:
    """Return how many expected detections have no partner of the same class, score and box, and compare the masks."""
    iou = box_iou(expected.pred_boxes.tensor, found.pred_boxes.tensor)
    iou[expected.pred_classes[:, None] != found.pred_classes] = 0
    partner = iou.argmax(dim=1)
    scores = (found.scores[partner] - expected.scores).abs() < 5e-4
    boxes = (found.pred_boxes.tensor[partner] - expected.pred_boxes.tensor).abs().amax(dim=1) < 5e-2
    same = scores & boxes & (iou.amax(dim=1) > 0)
    if expected.has("pred_masks"):
        wrong = (found.pred_masks[partner] != expected.pred_masks)[same].sum()
        assert wrong <= 5e-3 * expected.pred_masks[same].sum()
    return int((~same).sum())
