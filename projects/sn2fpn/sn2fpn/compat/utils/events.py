"""Detectron2's `utils.events`: metrics that hooks and models of one's own add to those of the training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean, median
from types import TracebackType

from torch import Tensor

from ...engine.writers import WINDOW, MetricStorage
from ..absent import absent

__all__ = ["EventStorage", "History", "get_event_storage", "has_event_storage"]

__getattr__ = absent(__name__, __all__)

_open: list[EventStorage] = []


class History:
    """The values of a metric, with their iterations."""

    def __init__(self) -> None:
        self._values: list[tuple[float, int]] = []

    def add(self, value: float, iteration: int) -> None:
        """Add a value."""
        self._values.append((value, iteration))

    def values(self) -> list[tuple[float, int]]:
        """Return all values, each with its iteration."""
        return list(self._values)

    def latest(self) -> float:
        """Return the last value."""
        return self._values[-1][0]

    def smoothed(self, window_size: int) -> float:
        """Return the median of the values of the last iterations up to that of the last value."""
        newest = self._values[-1][1]
        return median(v for v, iteration in self._values[-window_size:] if iteration > newest - window_size)

    def median(self, window_size: int) -> float:
        """Return the median of the last values."""
        return median(v for v, _ in self._values[-window_size:])

    def avg(self, window_size: int) -> float:
        """Return the mean of the last values."""
        return fmean(v for v, _ in self._values[-window_size:])

    def global_avg(self) -> float:
        """Return the mean of all values."""
        return fmean(v for v, _ in self._values)


class EventStorage(MetricStorage):
    """The metrics of a training, with Detectron2's methods. The trainer's writers write what is put here.

    Args:
        start_iter: the first iteration.

    Attributes:
        iter: the present iteration.
    """

    def __init__(self, start_iter: int = 0) -> None:
        super().__init__()
        self.iter = start_iter
        self._histories: dict[str, History] = {}
        self._added: dict[str, bool] = {}  # by the metrics of the next row: whether they are smoothed
        self._prefix = ""

    iteration = property(lambda self: self.iter)

    def put(self, values: dict[str, float], iteration: int) -> None:
        super().put(values, iteration)
        self._remember(values, iteration)

    def put_rare(self, values: dict[str, float]) -> None:
        super().put_rare(values)
        self._remember(values, self.iter)

    def put_scalar(
        self, name: str, value: float | Tensor, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add a value of a metric, which the next row of `metrics.json` has, by default that of 20 iterations.

        Args:
            name: the name of the metric.
            value: the value.
            smoothing_hint: whether the row has the median over the last 20 iterations, or the last value.
            cur_iter: the iteration of the value, by default the present one.
        """
        name = f"{self._prefix}{name}"
        self._added[name] = smoothing_hint
        self._remember({name: float(value)}, self.iter if cur_iter is None else cur_iter)

    def take_added(self) -> dict[str, float]:
        """Return the metrics that were added by `put_scalar` and have not been written yet, as they are written."""
        added, self._added = self._added, {}
        found = {name: self._histories[name] for name in added}
        return {name: h.smoothed(WINDOW) if added[name] else h.latest() for name, h in found.items()}

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **values: float | Tensor
    ) -> None:
        """Add a value of each of several metrics; see `put_scalar`."""
        for name, value in values.items():
            self.put_scalar(name, value, smoothing_hint, cur_iter)

    def _remember(self, values: Mapping[str, float], iteration: int) -> None:
        for name, value in values.items():
            self._histories.setdefault(name, History()).add(value, iteration)

    def history(self, name: str) -> History:
        """Return all values of a metric.

        Raises:
            KeyError: there is no such metric.
        """
        return self._histories[name]

    def histories(self) -> dict[str, History]:
        """Return all values of all metrics."""
        return dict(self._histories)

    def latest(self) -> dict[str, tuple[float, int]]:
        """Return the last value of each metric, with its iteration."""
        return {name: history.values()[-1] for name, history in self._histories.items()}

    def step(self) -> None:
        """Go to the next iteration. The trainer does so itself."""
        self.iter += 1

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put "<name>/" in front of the names of the metrics that are added inside the block."""
        before, self._prefix = self._prefix, f"{name.rstrip('/')}/"
        try:
            yield
        finally:
            self._prefix = before

    def __enter__(self) -> EventStorage:
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.remove(self)


def has_event_storage() -> bool:
    """Return whether a training runs, or an `EventStorage` is open."""
    return bool(_open)


def get_event_storage() -> EventStorage:
    """Return the storage of the training that runs, or the `EventStorage` that was opened last.

    Raises:
        RuntimeError: there is none.
    """
    if not _open:
        raise RuntimeError("get_event_storage: expected a training that runs, or an open `with EventStorage()`")
    return _open[-1]
