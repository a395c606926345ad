"""Tests of the environment of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sn2fpn.engine.setup import _set_float32_precision


@pytest.fixture(autouse=True)
def _restore_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(("precision", "convolutions"), [("highest", False), ("high", True), ("medium", True)])
def test_the_precision_counts_for_products_and_convolutions(
    precision: str, convolutions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_float32_matmul_precision("highest" if convolutions else "medium")
    torch.backends.cudnn.allow_tf32 = not convolutions
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _set_float32_precision(precision)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    _set_float32_precision("")
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    _set_float32_precision(precision)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (precision, convolutions)
