"""Short descriptions of recorded operations and modules: "3x3/2", "max-pool 3x3/2", "nearest", "× 1/4", "ESD-1"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn

__all__ = ["SAME", "SIGNS", "arguments", "call_stack", "describe_module", "describe_operation", "operation"]

SAME = (  # operations that do not change the values of a map
    "alias",
    "clone",
    "contiguous",
    "detach",
    "dropout",
    "expand",
    "flatten",
    "getitem",
    "reshape",
    "select",
    "slice",
    "split",
    "squeeze",
    "to",
    "unflatten",
    "unsqueeze",
    "view",
    "_assert_tensor_metadata",
    "_to_copy",
    "constant_pad_nd",
    "pad",
    "lift_fresh_copy",
)
SIGNS = {"add": "+", "sum": "+", "mul": "×", "maximum": "max", "div": "÷", "sub": "−"}


def describe_operation(node: Any, maps: int = 1) -> str | None:
    """Describe a recorded operation; the result is None if the operation changes nothing.

    Args:
        node: the operation.
        maps: number of its arguments that are maps.
    """
    op = operation(node)
    if "deform_conv2d" in op:
        return f"deform {_kernel(node.args[1])}"
    if op in ("conv2d", "convolution"):
        stride = node.args[3][0] if len(node.args) > 3 else 1
        return _kernel(node.args[1]) + (f"/{stride}" if stride > 1 else "")
    if "pool2d" in op:
        if "adaptive" in op:
            return "global " + ("mean" if "avg" in op else "max")
        k = node.args[1][0]
        stride = node.args[2][0] if len(node.args) > 2 and node.args[2] else k
        return "subsample" if k == 1 else f"{op[:3]}-pool {k}x{k}/{stride}"
    if op.startswith("upsample"):
        corners = op.startswith("upsample_bilinear") and node.args[2]
        return ("nearest" if "nearest" in op else "bilinear") + (", corners aligned" if corners else "")
    if maps == 1 and op in ("mul", "div"):
        factor = next((a for a in node.args if isinstance(a, (int, float))), None)
        if factor is None:
            return "× w"
        factor = 1 / factor if op == "div" else factor
        return None if factor == 1 else f"× {_fraction(factor)}"
    if maps == 1 and op in ("add", "sub"):
        return "+ b"
    if maps == 1 and op == "mean":
        return "global mean"
    return SIGNS.get(op, op) if maps > 1 else op


def describe_module(module: nn.Module) -> list[str]:
    """Describe a module: a conv as "3x3/2", "BN", "relu", a sequence by its parts, and others by their class."""
    if isinstance(module, nn.Sequential):
        return [word for part in module for word in describe_module(part)]
    if isinstance(module, nn.Conv2d):
        which = "dw " if 1 < module.groups == module.in_channels else ""
        which = "deform " if "Deform" in type(module).__name__ else which
        kernel, stride = module.kernel_size[0], module.stride[0]
        words = [f"{which}{kernel}x{kernel}" + (f"/{stride}" if stride > 1 else "")]
        parts = [getattr(module, "norm", None), getattr(module, "activation", None)]
        return words + [_class_words(part) for part in parts if part is not None]
    chains = [child for child in module.children() if isinstance(child, nn.Sequential)]
    return [_class_words(module) + (f" n={len(chains[0])}" if len(chains) == 1 else "")]


def _class_words(thing: Any) -> str:
    name = getattr(thing, "__name__", None) or type(thing).__name__
    if getattr(thing, "align_corners", False):
        name += ", corners aligned"
    if "BatchNorm" in name:
        return "frozen BN" if "Frozen" in name else "BN"
    name = {"GroupNorm": "GN", "C3": "C3 block"}.get(name, name).strip("_")  # C3 is also a map of the trunk
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)  # FeatureSelection -> Feature Selection
    name = re.sub(r"^(ESD|GSConvE)(\d)$", r"\1-\2", name)
    return name if name[:2].isupper() or "-" in name else name.lower()


def _kernel(weight: Any) -> str:
    return "x".join(str(int(side)) for side in weight.meta["val"].shape[-2:])


def _fraction(value: float) -> str:
    near = Fraction(value).limit_denominator(1024)
    return str(near) if abs(near - value) < 1e-6 else f"{value:.3g}"


def operation(node: Any) -> str:
    """Return the name of an operation, e.g. "upsample_nearest2d" for "aten.upsample_nearest2d.vec"."""
    target = node.target
    name = getattr(target, "_opname", None) or str(getattr(target, "__name__", target))
    return name.partition(".")[0].rstrip("_")


def call_stack(node: Any) -> list[str]:
    """Return the module calls around an operation, the outermost first; the call of the pyramid itself is ""."""
    return ["", *list(node.meta.get("nn_module_stack", {}))[1:]]


def arguments(node: Any) -> Sequence[Any]:
    """Return the values that an operation reads, in the order of its arguments and as often as they are read."""
    found: list[Any] = []
    torch.fx.map_arg((node.args, node.kwargs), lambda n: found.append(n))
    return found
