"""Count the parameters, multiply-adds and activations of each part of a detector."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .detector import GeneralizedRCNN

__all__ = ["PARTS", "Analysis", "analyze", "multiply_adds"]

PARTS = {
    "trunk": ["backbone.bottom_up"],
    "pyramid": ["backbone"],
    "RPN": ["proposal_generator.rpn_head"],
    "box head": ["roi_heads.box_head", "roi_heads.box_predictor"],
    "mask head": ["roi_heads.mask_head"],
}
"""The modules of each part. The trunk is inside the pyramid's module but is not counted as part of the pyramid."""

Arguments = tuple[Any, ...]
_aten = torch.ops.aten


class Analysis(NamedTuple):
    """The counts of each part of a detector.

    Attributes:
        size: the (height, width) of the padded input.
        parameters: number of parameters by part.
        flops: number of multiply-adds by part.
        activations: number of activations by part.
        uncounted: how often each operator occurs that computes something and has no counting rule, by names such as
            "aten::max_pool2d".
    """

    size: tuple[int, int]
    parameters: dict[str, int]
    flops: dict[str, int]
    activations: dict[str, int]
    uncounted: Counter[str]


class _LearnedParts(nn.Module):
    """The modules of a detector that have parameters, called one after the other."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, *pooled: Tensor) -> None:
        """Call all parts.

        Args:
            images (Tensor[1, 3, H, W]): one image.
            *pooled: the pooled features (Tensor[R, C, P, P]) for the box head and, if there is one, the mask head.
        """
        maps = self.detector.backbone(images)
        rpn, heads = self.detector.proposal_generator, self.detector.roi_heads
        rpn.rpn_head([maps[name] for name in rpn.in_features])
        for stage in heads.stages:
            stage.predictor(stage.head(pooled[0]))
        if len(pooled) > 1:
            heads.mask_head(pooled[1])


def analyze(detector: GeneralizedRCNN, size: tuple[int, int]) -> Analysis:
    """Count the parts of a detector for one image.

    A flop is a multiply-add of a convolution, matrix product, norm or interpolation. Deformable convolutions are
    included, but not their sampling. An activation is an output element of a convolution or matrix product. The heads
    are counted for the largest number of boxes: the RPN's `post_nms_topk` proposals in the box head and the RoI heads'
    `max_detections` detections in the mask head, which has as many as proposals where detections have no limit.

    The shapes of the tensors tell the counts, so nothing is computed: the parts are called with tensors of torch's
    "meta" device in place of their weights. Only a detector with a module that needs numbers is called with its own
    weights.

    Args:
        detector: a detector on any device. It is left in evaluation mode.
        size: the (height, width) of the input before padding.
    """
    step = detector.backbone.size_divisibility
    height, width = (-(-side // step) * step for side in size)
    channels = next(iter(detector.backbone.output_shape().values())).channels
    heads = detector.roi_heads
    proposals = detector.proposal_generator.post_nms_topk[1]
    boxes = [(proposals, heads.box_pooler)]
    if heads.mask_head is not None:
        boxes.append((proposals if heads.max_detections < 0 else heads.max_detections, heads.mask_pooler))
    shapes = [(1, len(detector.pixel_mean), height, width)]
    shapes += [(max(count, 1), channels, p.output_size, p.output_size) for count, p in boxes]
    try:
        counter = _count(detector.eval(), shapes, "meta")
    except RuntimeError:  # a module needs numbers, which meta tensors do not have
        if detector.device.type == "meta":
            raise
        counter = _count(detector, shapes, detector.device)
    return Analysis((height, width), _parameters(detector), counter.flops, counter.activations, counter.uncounted)


def multiply_adds(module: nn.Module, *inputs: Tensor) -> int:
    """Return the multiply-adds of one call of a module, counted as in `analyze`. Only shapes are computed.

    Args:
        module: any module that needs no numbers, only shapes; it is left as it is.
        *inputs: the tensors that it is called with, of which only shape and dtype count.
    """
    weights = {name: t.to("meta") for name, t in (*module.named_parameters(), *module.named_buffers())}
    counter = _CostCounter("module")
    with torch.no_grad(), counter:
        torch.func.functional_call(module, weights, tuple(x.to("meta") for x in inputs))
    return counter.flops["module"]


def _count(detector: GeneralizedRCNN, shapes: list[tuple[int, ...]], device: torch.device | str) -> _CostCounter:
    """Call the parts of a detector with weights and inputs on a device, and return what was counted."""
    model = _LearnedParts(detector)
    weights = {name: t.to(device) for name, t in (*model.named_parameters(), *model.named_buffers())}
    inputs = tuple(torch.zeros(shape, device=device) for shape in shapes)
    counter = _CostCounter()
    with torch.no_grad(), counter.of_parts(detector), counter:
        torch.func.functional_call(model, weights, inputs)
    return counter


def _parameters(detector: nn.Module) -> dict[str, int]:
    found = {name: sum(p.numel() for p in module.parameters()) for name, module in detector.named_modules()}
    out = {part: sum(found.get(name, 0) for name in names) for part, names in PARTS.items()}
    out["pyramid"] -= out["trunk"]
    return out


class _CostCounter(TorchDispatchMode):
    """A context that counts the operators of torch that run inside, for the part whose module is being called.

    Args:
        *whole: the name of a part that everything belongs to which is in no other part.
    """

    def __init__(self, *whole: str) -> None:
        super().__init__()
        self.flops = dict.fromkeys([*PARTS, *whole], 0)
        self.activations = dict.fromkeys([*PARTS, *whole], 0)
        self.uncounted: Counter[str] = Counter()
        self._active = list(whole)  # the parts whose modules are being called, the innermost last

    @contextmanager
    def of_parts(self, detector: nn.Module) -> Iterator[None]:
        """Know inside which part of the detector is being called."""
        modules = dict(detector.named_modules())
        named = [(part, modules[name]) for part, names in PARTS.items() for name in names if name in modules]
        # A list of the stages of a cascade is not called itself.
        named = [(part, m) for part, found in named for m in (found if isinstance(found, nn.ModuleList) else [found])]
        hooks = [m.register_forward_pre_hook(lambda *_, part=part: self._active.append(part)) for part, m in named]
        hooks += [m.register_forward_hook(lambda *_: self._leave()) for _, m in named]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _leave(self) -> None:
        self._active.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Arguments = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        if not self._active:
            return out
        if operator in _PRODUCTS:
            self.flops[self._active[-1]] += _PRODUCTS[operator](args, out)
            self.activations[self._active[-1]] += out.numel()
        elif operator in _OTHERS:
            self.flops[self._active[-1]] += _OTHERS[operator](args, out)
        elif not func.is_view and not _FREE.fullmatch(name := func.name().partition(".")[0]):
            self.uncounted[name.removesuffix("_with_indices")] += 1
        return out


def _of_convolution(args: Arguments, out: Tensor) -> int:
    x, weight, transposed = args[0], args[1], args[6]
    return (x if transposed else out).shape[2:].numel() * len(x) * weight.numel()


def _of_norm(weight: int) -> Callable[[Arguments, Any], int]:
    """Return the rule of a norm that computes its statistics, whose argument `weight` may be None."""
    return lambda args, _: args[0].numel() * (4 if args[weight] is None else 5)


def _of_batch_norm(args: Arguments, out: Any) -> int:
    return _of_norm(1)(args, out) if args[5] is True else args[0].numel() * (1 if args[1] is None else 2)


def _of_outputs(factor: int) -> Callable[[Arguments, Tensor], int]:
    return lambda _, out: out.numel() * factor


_PRODUCTS: dict[Any, Callable[[Arguments, Tensor], int]] = {
    _aten.convolution: _of_convolution,
    _aten.mm: lambda args, out: out.numel() * args[0].shape[-1],
    _aten.bmm: lambda args, out: out.numel() * args[0].shape[-1],
    _aten.addmm: lambda args, out: out.numel() * args[1].shape[-1],
    _aten.baddbmm: lambda args, out: out.numel() * args[1].shape[-1],
    torch.ops.torchvision.deform_conv2d: lambda args, out: out.numel() * prod(args[1].shape[1:]),
}
"""The multiply-adds of the operators whose outputs are activations, from arguments and output."""

_OTHERS: dict[Any, Callable[[Arguments, Any], int]] = {
    _aten.native_batch_norm: _of_batch_norm,
    _aten._native_batch_norm_legit: _of_batch_norm,
    _aten._native_batch_norm_legit_no_training: _of_batch_norm,
    _aten.native_group_norm: _of_norm(1),
    _aten.native_layer_norm: _of_norm(2),
    _aten.upsample_nearest2d: _of_outputs(1),
    _aten.upsample_bilinear2d: _of_outputs(4),
    _aten.grid_sampler_2d: _of_outputs(4),
    _aten._adaptive_avg_pool2d: lambda args, _: args[0].numel(),
}
"""The multiply-adds of all other operators that are counted. Those of norms with statistics are a rough estimate."""

_FREE = re.compile(
    "aten::(arange|cat|clamp_?|clone|constant_pad_nd|copy_|detach|empty(_like)?|fill_|full(_like)?|gather|index"
    "|lift_fresh|masked_fill|new_empty|new_zeros|ones|promote_types|relu_?|roll|scalar_tensor|stack|_to_copy"
    "|_unsafe_view|zero_|zeros(_like)?)"
)
"""Operators that only make, move or clip numbers."""
