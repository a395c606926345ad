"""Tests of what a run records about its machine."""

from __future__ import annotations

import pytest
import torch

from sn2fpn.engine import versions


@pytest.mark.parametrize(("has", "words"), [(True, "with bfloat16"), (False, "without bfloat16")])
def test_the_processor_is_named_by_what_changes_numbers_and_speed(
    has: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "has_bfloat16", lambda: has)
    cores, threads, capability, half = versions.environment()["CPU"].split(", ")
    assert cores.split()[1] in ("core", "cores") and threads.startswith(f"{torch.get_num_threads()} torch thread")
    assert capability == torch.backends.cpu.get_cpu_capability() and half == words
