"""Tests of the charts of what a detector does right and wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sn2fpn.visualization import plot_analysis


@pytest.mark.parametrize("name", ["a$_$", "$1-$5", "a\\$b", "50% & more"])
def test_names_are_no_formulas(name: str, tmp_path: Path) -> None:
    """Matplotlib reads what stands between two dollar signs as a formula, which may be a wrong one."""
    confusion = np.array([[5, 1, 0], [2, 4, 1], [0, 3, 0]])
    lost = {"misses": 2.0, "background": 1.0}
    path = plot_analysis(np.full(101, 50.0), lost, confusion, [name, "dog", "background"], 0.5, tmp_path / "a.png")
    with Image.open(path) as chart:
        assert chart.width > 1000
