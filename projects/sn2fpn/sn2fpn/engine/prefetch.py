"""Batches that are copied to a GPU while it works on the batch before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

__all__ = ["one_ahead", "prefetched"]

Batch = list[dict[str, Any]]
A = TypeVar("A")
B = TypeVar("B")


def prefetched(batches: Iterable[Batch], device: torch.device) -> Iterable[Batch]:
    """Return batches whose images lie on a GPU, or the batches themselves for another device.

    Each batch is copied from pinned memory, on a stream of its own and while the batch before it is trained on, so that
    neither the program nor the GPU waits for the copy. The ground truth stays on the CPU, because the model checks it
    there, and is small.

    Args:
        batches: the inputs of a model, with an `image` each.
        device: the device of the model.
    """
    return one_ahead(batches, _Copy(device)) if device.type == "cuda" else batches


def one_ahead(items: Iterable[A], start: Callable[[A], Callable[[], B]]) -> Iterator[B]:
    """Yield the result of `start(item)()` for each item, where `start` is called for the next item before.

    An error while the next item is made takes the place of the item before it.
    """
    finish = None
    for item in items:
        previous, finish = finish, start(item)
        if previous is not None:
            yield previous()
    if finish is not None:
        yield finish()


class _Copy:
    """Starts to copy a batch to a GPU, and returns the function that makes the present stream wait for the copy."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def __call__(self, batch: Batch) -> Callable[[], Batch]:
        with torch.cuda.stream(self._stream):
            copied = [x | {"image": x["image"].pin_memory().to(self._device, non_blocking=True)} for x in batch]
            done = self._stream.record_event()

        def finish() -> Batch:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(done)
            for x in copied:
                x["image"].record_stream(stream)  # so that the memory is not used for a later copy too early
            return copied

        return finish
