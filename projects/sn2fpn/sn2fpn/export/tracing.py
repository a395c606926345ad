"""The graph of a detector's inference, from `torch.export` or `torch.jit.trace`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from .inference import PlainDetector

__all__ = ["LARGEST_SIDE", "SMALLEST_SIDE", "export_graph", "quiet_torchscript", "script_graph"]

SMALLEST_SIDE, LARGEST_SIDE = 65, 8192
"""The sides in pixels of the images that a graph takes. The tracer does not tell a map's side of one pixel from a
constant, and from 65 pixels on, the coarsest map of a pyramid, which has stride 64, has two pixels."""


def export_graph(model: PlainDetector, image: Tensor, *, dynamic: bool) -> ExportedProgram:
    """Return the graph of a model by `torch.export`.

    Args:
        model: the model, in evaluation mode.
        image (Tensor[C, H, W]): an image with the size and the dtype that the graph takes.
        dynamic: whether the graph takes images of other sizes too, with sides from `SMALLEST_SIDE` to `LARGEST_SIDE`.
    """
    _replace_fake_nms()
    sides = {n: Dim(name, min=SMALLEST_SIDE, max=LARGEST_SIDE) for n, name in ((1, "height"), (2, "width"))}
    # Where the tracer cannot prove that maps fit, as for p6 at any size, the graph checks it when it runs.
    options = {"prefer_deferred_runtime_asserts_over_guards": True}
    return torch.export.export(model, (image,), dynamic_shapes={"image": sides if dynamic else None}, **options)


def script_graph(model: PlainDetector, image: Tensor) -> torch.jit.ScriptModule:
    """Return the graph of a model by `torch.jit.trace`; it takes images of any size with the dtype of `image`."""
    with quiet_torchscript():
        return torch.jit.trace(model, (image,), check_trace=False)


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Silence PyTorch's advice against TorchScript, and its warnings of each decision on a shape.

    The shapes that padding gives decide in the same way for all sizes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


def _replace_fake_nms() -> None:
    """Tell the tracer that NMS may keep any number of boxes. What torchvision tells it is wrong for 0 and 1."""

    def fake_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(min=0), dtype=torch.long)

    torch.library.register_fake("torchvision::nms", fake_nms, allow_override=True)
