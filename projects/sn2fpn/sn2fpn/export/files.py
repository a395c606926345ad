"""Write the graph of a detector to a file, and run such a file.

The formats are ONNX, PyTorch's exported programs and TorchScript. Each file holds its metadata: the class names, the
order of the channels, the sizes for which the model was configured, the version of this package and the configuration.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_path
from ..errors import ArgumentError
from ..layers import DeformConv2d
from .inference import PlainDetector
from .libraries import require
from .tracing import export_graph, quiet_torchscript, script_graph

__all__ = ["ENDINGS", "OUTPUTS", "check_opset", "describe", "load_exported", "write_exported"]

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".pt"}
"""The formats and the endings of their files."""
OUTPUTS = ("boxes", "scores", "classes", "masks")
"""The names of the outputs in their order; "masks" is there with a mask head only."""

_OPSETS = range(18, 24)
_DEFORM_OPSET = 19  # the first with an operator for deformable convolution
_METADATA = "metadata.json"

Runnable = Callable[[Tensor], list[Tensor]]


def check_opset(opset: int | None, model: PlainDetector) -> int:
    """Return the opset to write, by default the lowest one that has all operators of the model.

    Raises:
        ArgumentError: the opset is too low or not known yet.
    """
    deformable = any(isinstance(module, DeformConv2d) for module in model.modules())
    lowest = _DEFORM_OPSET if deformable else _OPSETS[0]
    opset = lowest if opset is None else opset
    if opset not in _OPSETS:
        why = "RoIAlign with aligned pixels needs 16, and PyTorch's exporter writes 18 and newer"
        raise ArgumentError("opset", f"expected {_OPSETS[0]} to {_OPSETS[-1]}, found {opset} ({why})")
    if opset < lowest:
        raise ArgumentError("opset", f"the model has deformable convolutions, which need {lowest}, found {opset}")
    return opset


def write_exported(
    model: PlainDetector,
    image: Tensor,
    path: Path,
    kind: str,
    metadata: Mapping[str, Any],
    *,
    dynamic: bool,
    opset: int | None = None,
) -> None:
    """Write the graph of a model to a file, which is complete or not there.

    Args:
        model: the model, in evaluation mode.
        image (Tensor[C, H, W]): an image with the size and the dtype that the graph takes.
        path: the file.
        kind: a format, see `ENDINGS`.
        metadata: what to write beside the graph; values that are not strings become JSON.
        dynamic: whether the graph takes images of any size. A graph of TorchScript always does.
        opset: the version of ONNX's operators, see `check_opset`.

    Raises:
        ArgumentError: the opset does not suit the model.
        UserError: a library is missing, or the file cannot be written.
    """
    if kind == "onnx":
        content = _onnx_bytes(model, image, metadata, dynamic, check_opset(opset, model))
    else:
        buffer, extra = io.BytesIO(), {_METADATA: json.dumps(dict(metadata))}
        if kind == "torchscript":
            with quiet_torchscript():
                torch.jit.save(script_graph(model, image), buffer, _extra_files=extra)
        else:
            torch.export.save(export_graph(model, image, dynamic=dynamic), buffer, extra_files=extra)
        content = buffer.getvalue()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _onnx_bytes(model: PlainDetector, image: Tensor, metadata: Mapping[str, Any], dynamic: bool, opset: int) -> bytes:
    """Return the content of the model's ONNX file."""
    for package in ("onnx", "onnxscript"):
        require(package, "--format onnx")
    outputs = OUTPUTS if model.roi_heads.mask_head is not None else OUTPUTS[:3]
    graph = export_graph(model, image, dynamic=dynamic)
    with _quiet_exporter():
        program = torch.onnx.export(
            graph, (), input_names=["image"], output_names=list(outputs), opset_version=opset, verbose=False
        )
    proto = program.model_proto
    for value in proto.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "detections"
    for n, name in enumerate(("height", "width"), 1) if dynamic else ():
        proto.graph.input[0].type.tensor_type.shape.dim[n].dim_param = name
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    return proto.SerializeToString()


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says about its own work: constants it does not fold, and its deprecations."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def load_exported(path: Path, kind: str, threads: int) -> Runnable:
    """Return a function from an image (Tensor[C, H, W]) to the outputs of the file, in the order of `OUTPUTS`.

    Args:
        path: the file.
        kind: its format, see `ENDINGS`.
        threads: number of threads of onnxruntime; the other formats use those of torch.
    """
    if kind == "onnx":
        session = _onnx_session(path, threads)
        return lambda image: [torch.from_numpy(np.asarray(x)) for x in session.run(None, {"image": image.numpy()})]
    if kind == "torchscript":
        with quiet_torchscript():
            module = torch.jit.load(str(path))
    else:
        module = torch.export.load(str(path)).module()
    return torch.no_grad()(lambda image: list(module(image)))  # a graph of TorchScript keeps gradients


def _onnx_session(path: Path, threads: int) -> Any:
    """Return onnxruntime's session of a file on the CPU."""
    runtime = require("onnxruntime", "running an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # only errors
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def describe(path: Path, kind: str, outputs: Sequence[Tensor], image: Tensor, dynamic: bool) -> list[str]:
    """Return lines that describe a file: its size, and the names and shapes of its inputs and outputs."""
    size = ("height", "width") if dynamic else tuple(image.shape[1:])
    shape = ", ".join(map(str, (image.shape[0], *size)))
    lines = [f"{path}: {kind}, {path.stat().st_size / 2**20:.1f} MiB"]
    lines.append(f"  input image: {_dtype(image)} ({shape})")
    for name, output in zip(OUTPUTS, outputs):
        shape = ", ".join(["detections", *map(str, output.shape[1:])])
        lines.append(f"  output {name}: {_dtype(output)} ({shape})")
    return lines


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
