"""Clocks and memory: measuring several things side by side on a machine that is not always equally fast."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

__all__ = ["Neighbours", "now", "resident_mib", "take_turns"]


def now() -> float:
    """Seconds; what was started on a GPU has ended."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(actions: Mapping[str, Callable[[], None]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds that each action takes in each round.

    All act once a round, so that a machine that slows down slows them alike; every second round in reversed order.

    Args:
        warm_up: rounds before, which do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for i in range(warm_up + rounds):
        for name in actions if i % 2 == 0 else reversed(actions):
            started = now()
            actions[name]()
            if i >= warm_up:
                seconds[name].append(now() - started)
            else:
                now()
    return seconds


def resident_mib(peak: bool = False) -> float:
    """Memory that this process has in RAM, in MiB, now or at its most.

    Of this program: getrusage would count the parent's, from before exec.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)[1]) / 2**10


class Neighbours:
    """How many cores other processes use while this one measures.

    Attributes (after `stop`):
        cores: of the machine.
        used: cores that others used on average since the start.
        disturb: whether they left too few for this process's threads.
    """

    def __init__(self) -> None:
        self.cores = os.cpu_count() or 1
        self._started = self._read()

    def stop(self) -> None:
        everyone, own, clock = (b - a for a, b in zip(self._started, self._read()))
        self.used = max(0.0, everyone - own) / clock
        threads = min(torch.get_num_threads(), self.cores)
        self.disturb = self.used > self.cores - threads + 0.1 * threads

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Seconds of all cores used by all processes and by this one, and the clock."""
        user, nice, system, _, _, irq, soft_irq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
        everyone = (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")
        return everyone, time.process_time(), time.perf_counter()
