"""The results of a study as a tidy table: its values, the states of cells, and messages about broken files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import median

import pytest
from fabricated_study import fabricate

from sn2fpn.errors import UserError
from sn2fpn.study.measure.results import load_results
from sn2fpn.study.measure.tidy_table import tidy_rows, write_tables
from sn2fpn.study.report.tables import feature_table


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fabricate(
        tmp_path_factory.mktemp("table") / "pair",
        {"fpn": 0.12, "sni": 0.05},
        seeds=(1, 2),
        masks=True,
        without=["sni/seed2"],
    )
    failed = folder / "cells" / "sni" / "seed2"
    failed.mkdir()
    (failed / "failure.txt").write_text("Traceback (most recent call last):\n  …\nRuntimeError: out of memory\n")
    return folder


def test_every_cell_is_a_row_with_the_numbers_of_its_files(study: Path) -> None:
    rows = {(row["variant"], row["seed"]): row for row in tidy_rows(load_results(study))}
    assert set(rows) == {("fpn", 1), ("fpn", 2), ("sni", 1), ("sni", 2)}
    for (variant, seed), row in rows.items():
        if (variant, seed) == ("sni", 2):
            continue
        result = json.loads((study / "cells" / variant / f"seed{seed}" / "result.json").read_text())
        (scores,) = result["results"].values()
        assert row["state"] == "finished" and row["axis:pyramid"] == variant
        for task in ("bbox", "segm"):
            for metric, value in scores[task].items():
                assert row[f"{task}/{metric}"] == value
        costs = json.loads((study / "costs.json").read_text())[variant]
        speed = json.loads((study / "speed.json").read_text())
        assert row["parameters"] == sum(costs["parameters"].values())
        assert row["gflops"] == pytest.approx(sum(costs["flops"].values()) / 1e9)
        assert row["latency_ms"] == pytest.approx(1000 * median(speed["variants"][variant]["inference_s"]))
        step = median(speed["variants"][variant]["train_step_s"])
        assert row["train_images_per_s"] == pytest.approx(speed["batch"] / step)
        assert row["training_memory_mib"] == 900 and row["peak_memory_mib"] == 1000


def test_a_failed_cell_stays_in_the_table_with_its_reason(study: Path) -> None:
    results = load_results(study)
    (absent,) = results.absent
    assert (absent.cell.name, absent.status.state, absent.note) == (
        "sni/seed2",
        "failed",
        "RuntimeError: out of memory",
    )
    row = next(row for row in tidy_rows(results) if row["state"] == "failed")
    assert row["bbox/AP"] is None and row["note"] == "RuntimeError: out of memory"
    assert results.values("sni", "bbox/AP").keys() == {1}


def test_csv_and_json_hold_the_same_table(study: Path) -> None:
    as_csv, as_json = write_tables(load_results(study), study)
    rows = json.loads(as_json.read_text(encoding="utf-8"))
    with as_csv.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [list(row) for row in read] == [list(row) for row in rows]
    for text, row in zip(read, rows, strict=True):
        for key, value in row.items():
            back = None if text[key] == "" else type(value)(text[key])
            assert back == value, key


@pytest.mark.parametrize("nested", [True, False], ids=["new layout", "old layout"])
def test_both_layouts_of_features_are_read(study: Path, nested: bool) -> None:
    """Files of earlier versions have the variants beside "images" and "set"."""
    variants = {"fpn": {"p2": {"coarse_share": 0.5}}, "sni": {"p2": {"coarse_share": 0.2}}}
    content = {"images": 64, "set": "shapes"} | ({"variants": variants} if nested else variants)
    (study / "features.json").write_text(json.dumps(content))
    results = load_results(study)
    (study / "features.json").unlink()
    assert results.features == {"images": 64, "set": "shapes", "variants": variants}
    table = feature_table(results)
    assert [[entry.text for entry in row] for row in table.rows] == [["fpn", "p2", "0.500"], ["sni", "p2", "0.200"]]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("costs.json", "{", r"costs\.json: cannot be read as JSON"),
        ("speed.json", "[1]", r"speed\.json: expected a JSON object, found list"),
        (
            "cells/fpn/seed1/result.json",
            '{"results": {"set": {"bbox": {"AP": "high"}}}}',
            r"fpn/seed1/result\.json: results/set/bbox/AP: expected a number or null, found 'high'",
        ),
        ("cells/fpn/seed1/result.json", '{"results": []}', r"result\.json: results: expected an object, found list"),
        ("cells/fpn/seed1/cell.json", "\x00", r"fpn/seed1/cell\.json: cannot be read as JSON"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    (tmp_path / "cells" / "fpn" / "seed1").mkdir(parents=True)
    (tmp_path / "study.yaml").write_text("{NAME: s, BASE: b.yaml, AXES: {pyramid: [fpn]}}")
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=message):
        load_results(tmp_path)


def test_a_folder_without_a_study_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no study\.yaml there"):
        load_results(tmp_path)
