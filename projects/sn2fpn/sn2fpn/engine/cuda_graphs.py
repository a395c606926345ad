"""CUDA graphs of a model's trunk and pyramid, which a GPU starts as a whole instead of kernel by kernel."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .options import RunOptions

__all__ = ["Graphs", "graphs_of_backbone"]

logger = logging.getLogger(__name__)

_MOST = 32  # sizes of images that are recorded; each of them keeps its maps in the memory of the GPU


def graphs_of_backbone(model: nn.Module, options: RunOptions) -> AbstractContextManager[object]:
    """Return the context in which a training step runs trunk and pyramid as CUDA graphs, if the options ask for it.

    Elsewhere the model stays as it is: evaluations, exports and copies know nothing of the graphs. On a CPU the context
    does nothing.

    Args:
        model: a detector with a `backbone`.
        options: the options of the run.

    Raises:
        UserError: the model has no `backbone`.
    """
    if not (options.cuda_graphs and options.device.startswith("cuda")):
        return nullcontext()
    key, backbone = options.key("cuda_graphs"), getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise UserError(f"{key}: expected a model with a `backbone`, found {type(model).__name__}; set it to False")
    return Graphs(backbone, key)


class Graphs(AbstractContextManager[None]):
    """A context in which a module is run as a CUDA graph, one for each size of its input.

    Small images leave a GPU waiting for the program, which starts some 800 kernels for a trunk and a pyramid forward
    and backward. A graph starts the same kernels at once.

    An input size is recorded when it comes for the second time, so that sizes that come once cost nothing. All graphs
    share their memory, because only one of them is used in a step: maps and gradients must be used before the next one.
    A size for which the GPU has no memory left is not recorded.

    Args:
        backbone: the module, which maps a tensor to a tree of tensors.
        key: the configuration key that asked for it, for messages.
    """

    def __init__(self, backbone: nn.Module, key: str = "cuda_graphs") -> None:
        self._backbone = backbone
        self._eager = backbone.forward
        self._key = key
        self._seen: set[Any] = set()
        self._recorded: dict[Any, Callable[[Tensor], Any]] = {}
        self._pool: Any = None

    def __enter__(self) -> None:
        self._backbone.forward = self._forward

    def __exit__(self, *_: object) -> None:
        del self._backbone.forward  # the class's own takes its place again

    def _forward(self, x: Tensor) -> Any:
        size = (x.shape, x.stride(), x.dtype)
        if size in self._recorded:
            return self._recorded[size](x)
        if size not in self._seen or len(self._recorded) == _MOST:
            self._seen.add(size)
            return self._eager(x)
        self._recorded[size] = self._record(x)
        return self._recorded[size](x)

    def _record(self, x: Tensor) -> Callable[[Tensor], Any]:
        part = _Part(self._backbone, self._eager)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            with _without_autocast_cache(), _kept_buffers(part):
                return torch.cuda.make_graphed_callables(
                    part,
                    (x.clone(),),
                    num_warmup_iters=2,
                    allow_unused_input=True,
                    pool=self._pool,
                    **_in_this_thread(),
                )
        except torch.OutOfMemoryError as e:
            logger.warning(
                "%s: images of %s are not recorded, because the GPU has too little free memory: %s",
                self._key,
                tuple(x.shape),
                e,
            )
            return self._eager
        except RuntimeError as e:
            raise UserError(f"{self._key}: the trunk and the pyramid cannot be recorded: {e}; set it to False") from e


class _Part(nn.Module):
    """A module with the parameters of another one that computes what a function does; torch records it."""

    def __init__(self, module: nn.Module, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.module = module
        self._function = function

    def forward(self, x: Tensor) -> Any:
        return self._function(x)


def _in_this_thread() -> dict[str, Any]:
    """Return the argument that lets other threads, such as the one that pins the loader's memory, go on meanwhile."""
    known = inspect.signature(torch.cuda.make_graphed_callables).parameters
    return {"capture_error_mode": "thread_local"} if "capture_error_mode" in known else {}  # since torch 2.14


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Let autocast convert weights within a graph, each time that the graph runs."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


@contextmanager
def _kept_buffers(module: nn.Module) -> Iterator[None]:
    """Give buffers, such as the statistics of batch norms, the values back that recording has changed."""
    values = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(values[name])
