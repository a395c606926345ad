"""Clocks and memory: how several things are measured side by side on a machine whose speed varies."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

__all__ = ["Neighbours", "forget_peak", "now", "resident_mib", "take_turns"]

logger = logging.getLogger(__name__)


def now() -> float:
    """Return a time in seconds, after everything that was started on a GPU has ended."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(actions: Mapping[str, Callable[[], None]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Return the seconds that each action takes in each round, after rounds for warming up, which do not count.

    Every action runs once per round, so that a machine that slows down slows all actions alike. Every second round has
    the reversed order.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for i in range(warm_up + rounds):
        for name in actions if i % 2 == 0 else reversed(actions):
            started = now()
            actions[name]()
            elapsed = now() - started
            if i >= warm_up:
                seconds[name].append(elapsed)
    return seconds


def resident_mib(peak: bool = False) -> float:
    """Return how many MiB of RAM this process uses, now or at its peak.

    `getrusage` is not used because its peak includes that of the parent process before `exec`.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)[1]) / 2**10


def forget_peak() -> None:
    """Let the peak of `resident_mib` begin anew, where Linux allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Neighbours:
    """Measures how many of the machine's cores other processes use, from its construction until `stop`."""

    def __init__(self) -> None:
        self._started = self._read()

    def stop(self) -> dict[str, Any]:
        """Return "cores", "cores_used_by_others" and "reliable", and warn if others left this process too few cores."""
        everyone, own, clock = (b - a for a, b in zip(self._started, self._read()))
        cores, used = os.cpu_count() or 1, max(0.0, everyone - own) / clock
        threads = min(torch.get_num_threads(), cores)
        reliable = used <= cores - threads + 0.1 * threads
        if not reliable:
            logger.warning(
                "other processes used %.1f of the %d cores meanwhile, so these timings are unreliable; "
                "measure again when the machine is idle",
                used,
                cores,
            )
        return {"cores": cores, "cores_used_by_others": round(used, 2), "reliable": reliable}

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Return the core seconds of all processes, those of this one and of its ended children, and the clock."""
        user, nice, system, _, _, irq, soft_irq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
        everyone = (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")
        return everyone, sum(os.times()[:4]), time.perf_counter()
