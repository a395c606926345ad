"""Static quantisation of an exported detector to 8-bit integers by onnxruntime.

Quantised are the convolutions and matrix products of the backbone, of the RPN's 3x3 convolutions and of the box head's
layers, where nearly all multiplications are. The layers that predict logits and offsets stay in float32, because they
make few multiplications and their small differences decide on boxes and scores. So does the mask head, which runs on
detections alone and has no input to calibrate with where there are none.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..atomic import atomic_path
from .libraries import require

__all__ = ["quantise"]

_QUANTISED = ("backbone.", "proposal_generator.rpn_head.conv", "roi_heads.box_head.")
"""The beginnings of the names of the weights that are quantised."""
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantise(source: Path, path: Path, images: Iterable[Tensor]) -> float:
    """Write the quantised form of an ONNX file.

    Weights have a scale per output channel; activations have one scale each, from their range on the given images.

    Args:
        source: the ONNX file of a detector.
        path: the file to write, which is complete or not there.
        images (Tensor[C, H, W]): images to calibrate with, as the graph takes them.

    Returns:
        The share of the weights of all convolutions and matrix products that are quantised. It is small for
        transformers, whose weights the exporter transposes and renames, so that they are not recognised.

    Raises:
        UserError: a library is missing, or the file cannot be written.
    """
    onnx = require("onnx", "--int8")
    quantization = require("onnxruntime.quantization", "--int8")
    graph = onnx.load(str(source)).graph
    all_products = [node for node in graph.node if node.op_type in _PRODUCTS]
    nodes = [node for node in all_products if any(map(_is_quantised, node.input))]
    sizes = {weight.name: math.prod(weight.dims) for weight in graph.initializer}
    with atomic_path(path, ".part.onnx") as temporary, _quiet():
        quantization.quantize_static(
            str(source),
            str(temporary),
            _Reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            nodes_to_quantize=[node.name for node in nodes],
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    quantised, total = (_weights(some, sizes) for some in (nodes, all_products))
    return quantised / total


def _weights(nodes: Iterable[Any], sizes: Mapping[str, int]) -> int:
    """Return the number of weights of some nodes, of which a matrix of weights is the second input."""
    names = {node.input[1] for node in nodes}
    return sum(sizes.get(name, 0) for name in names)


def _is_quantised(name: str) -> bool:
    return name.startswith(_QUANTISED) and name.split(":")[0].endswith("weight")


class _Reader:
    """Gives onnxruntime the images one after the other, as its `CalibrationDataReader` does."""

    def __init__(self, images: Iterable[Tensor]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next inputs of the graph, or None after the last image."""
        image = next(self._images, None)
        return None if image is None else {"image": image.numpy()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice to optimise the graph first, which the exporter has done already."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
