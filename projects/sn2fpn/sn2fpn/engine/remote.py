"""Services that the metrics of a run are sent to besides its own files: Weights & Biases and MLflow."""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import yaml

from ..atomic import atomic_write
from ..errors import ArgumentError

__all__ = ["Remote", "check_installed"]

logger = logging.getLogger(__name__)
_TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
_PROJECT = "sn2fpn"
_WAITING = 10_000  # rows that wait for a slow service
_LAST_WAIT_S = 30.0  # at the end of a run
_AT_ONCE, _LONGEST = 100, 500  # parameters in a call to MLflow, and characters in the value of one


def check_installed(service: str) -> None:
    """Raise an ArgumentError if the library of a service ("wandb" or "mlflow") is not installed."""
    spec = find_spec(service)
    if spec is None or spec.origin is None:  # a folder of this name without code, which a run has left, does not count
        problem = f"{_TITLES[service]} needs the package {service}; run: pip install 'sn2fpn[{service}]'"
        raise ArgumentError("service", problem)


class _Service(Protocol):
    """A run at a service. Its methods may fail and take long.

    Attributes:
        identity: the name under which a resumed run finds it again.
    """

    identity: str

    def send(self, iteration: int, seconds: float, scalars: dict[str, float]) -> None: ...

    def end(self, complete: bool) -> None: ...


class Remote:
    """Sends metrics to a service in a thread of its own, so that nothing there can stop or delay a training.

    The service's name of the run is kept in `<service>_run.txt` in the output folder, and a resumed run continues it.
    The first failure is a warning, and later ones are silent. A run that cannot be begun is not tried again.

    Args:
        service: "wandb" or "mlflow", whose library is installed.
        folder: the output folder of the run.
        resumed: whether the run continues an earlier one.
    """

    def __init__(self, service: str, folder: Path, resumed: bool) -> None:
        self._title = _TITLES[service]
        self._rows: queue.Queue[tuple[int, float, dict[str, float]] | bool] = queue.Queue(_WAITING)
        self._warned = False
        try:
            library = import_module(service)  # here, because processes that load data are forked later
        except Exception as e:
            self._warn(e)
            return
        begin = _begin(service, library, folder, resumed)
        self._thread = threading.Thread(target=self._work, args=(begin,), name=service, daemon=True)
        self._thread.start()

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        """Send the metrics of an iteration later."""
        try:
            self._rows.put_nowait((iteration, time.time(), dict(scalars)))
        except queue.Full:
            self._warn("it takes metrics more slowly than they come, and some are left out")

    def close(self, complete: bool) -> None:
        """Wait for at most half a minute until everything is sent.

        Args:
            complete: whether the training came to its end.
        """
        if not hasattr(self, "_thread") or not self._thread.is_alive():
            return
        end = time.monotonic() + _LAST_WAIT_S
        with suppress(queue.Full):
            self._rows.put(complete, timeout=_LAST_WAIT_S)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._warn(f"it did not take the last metrics within {_LAST_WAIT_S:.0f} s")

    def _work(self, begin: Callable[[], _Service]) -> None:
        try:
            service = begin()
        except Exception as e:
            self._warn(e)
            return
        while True:
            row = self._rows.get()
            try:
                if isinstance(row, bool):
                    service.end(row)
                    return
                service.send(*row)
            except Exception as e:
                self._warn(e)
                if isinstance(row, bool):
                    return

    def _warn(self, what: object) -> None:
        if self._warned:
            return
        self._warned = True
        if isinstance(what, Exception):
            what = f"{type(what).__name__}: {str(what).strip() or 'without a message'}"
        logger.warning("Metrics are not sent to %s: %s. The training is not affected", self._title, what)


def _begin(service: str, library: Any, folder: Path, resumed: bool) -> Callable[[], _Service]:
    """Return the function that begins or continues a run at a service and notes its name."""
    file = folder / f"{service}_run.txt"

    def begin() -> _Service:
        known = file.read_text(encoding="utf-8").strip() if resumed and file.is_file() else ""
        run = _SERVICES[service](library, folder, known)
        with atomic_write(file) as f:
            f.write(run.identity + "\n")
        return run

    return begin


class _WandB:
    """A run of Weights & Biases. Its metrics are drawn over the column "iteration".

    The steps that the library itself counts must rise, and would not let a resumed run repeat rows.
    """

    def __init__(self, wandb: Any, folder: Path, known: str) -> None:
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            dir=str(folder),
            name=os.environ.get("WANDB_NAME", folder.name),
            id=known or None,
            resume="allow",
            config=_configuration(folder),
            settings=wandb.Settings(console="off", login_timeout=_LAST_WAIT_S),  # the console has a progress bar
        )
        self._run.define_metric("*", step_metric="iteration")
        self.identity = self._run.id

    def send(self, iteration: int, seconds: float, scalars: dict[str, float]) -> None:
        self._run.log({"iteration": iteration, **scalars})

    def end(self, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)


class _MLflow:
    """A run of MLflow, at the address of `MLFLOW_TRACKING_URI` and in the experiment of `MLFLOW_EXPERIMENT_NAME`."""

    def __init__(self, mlflow: Any, folder: Path, known: str) -> None:
        self._library = mlflow
        self._client = mlflow.MlflowClient()
        self.identity = known or self._create(folder)
        if known:
            self._client.update_run(known, status="RUNNING")

    def _create(self, folder: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(number, run_name=folder.name).info.run_id
        values = [
            self._library.entities.Param(_allowed(k), str(v)[:_LONGEST]) for k, v in _flat(_configuration(folder))
        ]
        for first in range(0, len(values), _AT_ONCE):
            self._client.log_batch(run, params=values[first : first + _AT_ONCE])
        return run

    def send(self, iteration: int, seconds: float, scalars: dict[str, float]) -> None:
        metric = self._library.entities.Metric
        rows = [metric(_allowed(name), value, int(seconds * 1000), iteration) for name, value in scalars.items()]
        self._client.log_batch(self.identity, metrics=rows)

    def end(self, complete: bool) -> None:
        self._client.set_terminated(self.identity, "FINISHED" if complete else "KILLED")


_SERVICES: dict[str, Callable[[Any, Path, str], _Service]] = {"wandb": _WandB, "mlflow": _MLflow}


def _allowed(name: str) -> str:
    """Return the name of a metric without characters that MLflow refuses, such as the brackets of a slice."""
    return re.sub(r"[^\w/. -]", "_", name)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a configuration and their values."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _configuration(folder: Path) -> dict[str, Any]:
    """Return the configuration that the run has written to its folder."""
    file = folder / "config.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
