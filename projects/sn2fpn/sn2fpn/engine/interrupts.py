"""Requests to stop a run: signals, dead worker processes and broken images, on which all processes of the run agree."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from .. import distributed as comm
from ..errors import UserError
from ..program import STOP_SIGNALS, Interrupted, StopSignals

__all__ = ["Interrupts", "Stopped"]

_PROBLEM = len(STOP_SIGNALS) + 1
_BATCHES_BETWEEN = 8  # of an evaluation; asking more often would make the processes wait for each other


class Stopped(KeyboardInterrupt):
    """All processes have agreed to stop; each raises this error at the same place.

    Args:
        number: the number of the signal, or 0.
        problem: what has happened if it was no signal.
    """

    def __init__(self, number: int, problem: str = "") -> None:
        super().__init__(problem or signal.Signals(number).name)
        self.number = number
        self.problem = problem

    def reason(self, where: str, what: str) -> Interrupted | UserError:
        """Return the error that ends the program.

        Args:
            where: where the run has stopped, such as "after iteration 5".
            what: what became of it, such as "model_0000004.pth was saved".
        """
        if self.problem:
            return UserError(f"{self.problem}. The run has ended {where}; {what}")
        return Interrupted(self.number, f"Interrupted {where} by {signal.Signals(self.number).name}; {what}")


class Interrupts(StopSignals):
    """A context in which the first signal is noted, so that a step can finish, and the second one raises an error.

    Attributes:
        stopped: what the processes have agreed on, or None.

    Raises:
        Interrupted: on the second signal, see `StopSignals`.
    """

    def __init__(self) -> None:
        super().__init__(patient=True)
        self.stopped: Stopped | None = None
        self._problem = ""

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches of a training loader, which is endless, until any process has to stop.

        Raises:
            Stopped: before the same batch in all processes, also where a loader ends.
        """
        source = iter(loader)
        while True:
            batch = self._next(source)
            if batch is None and not (self.heard or self._problem):
                self._problem = "the training loader has no more batches, and a training needs an endless one"
            self._agree()
            yield batch

    def evaluating(self, loader: Any) -> Any:
        """Return a loader with the batches of another one, which has a length, until any process has to stop.

        Its iterator raises `Stopped`, also where the number of batches differs between the processes.
        """
        return _Stoppable(self, loader)

    def _evaluation_batches(self, loader: Any) -> Iterator[Any]:
        source = iter(loader)
        for i in range(max(comm.all_gather(len(loader)))):
            batch = self._next(source)
            if i % _BATCHES_BETWEEN == 0:
                self._agree()
            if batch is not None:
                yield batch
        self._agree()

    def _next(self, source: Iterator[Any]) -> Any:
        """Return the next batch, or None at the end and if this process has to stop."""
        if self.heard or self._problem:
            return None
        try:
            return next(source, None)
        except UserError as e:  # a worker has died, or an image cannot be read
            self._problem = str(e)
            return None

    def _agree(self) -> None:
        if self.stopped is None:
            own = _PROBLEM if self._problem else STOP_SIGNALS.index(self.heard) + 1 if self.heard else 0
            agreed = comm.largest(own)
            if agreed == _PROBLEM:
                problems = comm.all_gather(self._problem)
                self.stopped = Stopped(0, next(filter(None, problems)))
            elif agreed:
                self.stopped = Stopped(STOP_SIGNALS[agreed - 1])
        if self.stopped is not None:
            raise self.stopped


class _Stoppable(Sized):
    def __init__(self, interrupts: Interrupts, loader: Any) -> None:
        self._interrupts = interrupts
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return self._interrupts._evaluation_batches(self._loader)
