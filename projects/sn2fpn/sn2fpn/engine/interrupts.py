"""Requests to stop a run: Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
from types import TracebackType
from typing import Any

import torch

from .. import distributed as comm

__all__ = ["Interrupts"]


class Interrupts:
    """A context in which the first Ctrl-C or SIGTERM is noted, so that a step can finish, and the second one raises.

    Raises:
        KeyboardInterrupt: on the second signal.
    """

    def __init__(self) -> None:
        self._noted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, *_: Any) -> None:
        if self._noted:
            raise KeyboardInterrupt
        self._noted = True

    def requested(self, device: torch.device) -> bool:
        """Return whether any process was asked to stop; all processes get the same answer.

        Args:
            device: where the processes can exchange a tensor.
        """
        if comm.get_world_size() == 1:
            return self._noted
        flag = torch.tensor(float(self._noted), device=device)
        torch.distributed.all_reduce(flag)
        return bool(flag)
