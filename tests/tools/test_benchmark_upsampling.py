"""The benchmark of the upsampling kinds on tiny maps."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

_FILE = Path(__file__).parents[2] / "tools" / "benchmark_upsampling.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_upsampling", _FILE)
benchmark = sys.modules["benchmark_upsampling"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(benchmark)

SMALL = ["--threads", str(torch.get_num_threads()), "--repeats", "1", "--batch", "1", "--channels", "8"]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.torch.jit.trace:FutureWarning")
def test_a_table_per_level_dtype_and_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([*SMALL, "--image", "36", "40", "--levels", "2", "--dtypes", "float32", "bfloat16"]) == 0
    said = capsys.readouterr().out
    assert said.count("p2: 1 x 8 x 9 x 10") == 4
    table = said.split("\n\n")[1].splitlines()[3:]
    rows = {line[:18].strip(): line[18:].split() for line in table}
    assert list(rows) == [*benchmark.KINDS, "interpolate, *, +"]
    assert all(float(cell.replace(",", "")) >= 0 for row in rows.values() for cell in row)
    assert rows["nearest"][1] == "1.00" and rows["nearest"][3] == "1.00"
    parameters = {kind: int(row[6].replace(",", "")) for kind, row in rows.items()}
    assert parameters["nearest"] == 0 and parameters["deconv"] == 16 * 8**2 + 8
    # The fused step allocates its result alone: 8 x 9 x 10 float32 values; the plain step makes the upsampled map too.
    assert float(rows["sni"][4]) < float(rows["interpolate, *, +"][4])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.torch.jit.trace:FutureWarning")
def test_multiply_adds_of_a_step() -> None:
    maps = torch.zeros(1, 8, 10, 12), torch.zeros(1, 8, 5, 6)
    deconv, nearest = (benchmark.gflops(benchmark.Step(kind, 8), *maps) for kind in ("deconv", "nearest"))
    assert deconv == pytest.approx(16 * 8**2 * 30 / 1e9)
    assert nearest == pytest.approx(8 * 120 / 1e9)  # fvcore counts one per interpolated value


def test_an_unknown_kind_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([*SMALL, "--kinds", "nearest", "carfae"]) == 2
    assert "error: --kinds: unknown value 'carfae'; did you mean 'carafe'?" in capsys.readouterr().err
