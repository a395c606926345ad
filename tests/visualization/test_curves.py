"""Tests of the training curves, also from the log of a run that was killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sn2fpn.errors import UserError
from sn2fpn.visualization import plot_curves
from sn2fpn.visualization.curves import read_metrics, smooth


def _write(path: Path, records: list[dict], torn: str = "") -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + torn)
    return path


def test_resumed_and_torn_logs(tmp_path: Path, caplog) -> None:
    """Iteration 20 occurs twice: the later value counts, and values that only the earlier line has are kept."""
    path = _write(
        tmp_path / "metrics.json",
        [
            {"iteration": 0, "total_loss": 3.0},
            {"iteration": 20, "total_loss": 2.0, "bbox/AP": 5.0},
            {"iteration": 40, "total_loss": 9.0},
        ],
        torn='{"iteration": 60, "tot{"iteration": 20, "total_loss": 2.5}\n',
    )
    with path.open("a") as file:
        file.write('{"iteration": 20, "total_loss": 2.25}\n{"iteration": 40, "total_loss": null, "bbox/AP": 7')
    curves = read_metrics(path)
    assert {name: [c.tolist() for c in curve] for name, curve in curves.items()} == {
        "total_loss": [[0, 20, 40], [3.0, 2.25, 9.0]],
        "bbox/AP": [[20], [5.0]],
    }
    assert "left out lines 4, 6" in caplog.text


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 0, "a": NaN, "b": Infinity, "c": null, "d": "text", "e": 1}\n')
    assert list(read_metrics(path)) == ["e"]


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        read_metrics(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"metrics\.json: expected one JSON object .* found none in 2 lines"):
        read_metrics(_write(tmp_path / "metrics.json", [], torn="text\n[1]\n"))
    with pytest.raises(UserError, match="there are no losses, learning rates or average precisions"):
        plot_curves(_write(tmp_path / "metrics.json", [{"iteration": 0, "time": 1.0}]), tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_smoothing_neither_lags_nor_bends_a_line() -> None:
    line = np.linspace(0.0, 1.0, 401)
    assert smooth(line)[10:-10] == pytest.approx(line[10:-10])
    assert smooth(np.full(5, 2.0)) == pytest.approx(np.full(5, 2.0))
    assert smooth(np.array([4.0])) == pytest.approx([4.0])


@pytest.mark.parametrize(
    "records",
    [
        [{"iteration": 0, "total_loss": 1.0}],
        [
            {
                "iteration": i,
                "total_loss": 1 / (i + 1),
                "loss_cls": 0.5,
                "lr": 0.1,
                "val/total_loss": 2.0,
                "bbox/AP": 1.0,
                "voc/bbox/AP50": 2.0,
            }
            for i in range(50)
        ],
        [{"iteration": i, "total_loss": 0.0, "lr": 0.0} for i in range(3)],
    ],
    ids=["one point", "everything", "zeros"],
)
def test_pictures(tmp_path: Path, records: list[dict]) -> None:
    out = plot_curves(_write(tmp_path / "metrics.json", records), tmp_path / "pictures" / "curves.png")
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert picture.shape[1] >= 700 and (picture != 255).any(axis=2).mean() > 0.01
    curve = (abs(picture.astype(int) - (31, 119, 180)) < 9).all(axis=2)  # matplotlib's first colour
    assert curve.sum() > 20  # a single point is seen too
    assert [p.name for p in out.parent.iterdir()] == ["curves.png"]
