"""The steps after the cells."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fabricated_study import fabricate

from sn2fpn.study.features.examine import _measured_before
from sn2fpn.study.files import read_json, write_json
from sn2fpn.study.folder import CellFolder, trained_cells
from sn2fpn.study.run.steps import STEPS, run_steps
from sn2fpn.study.spec.study import Study


@pytest.mark.usefixtures("plain_charts")
def test_a_step_is_repeated_when_a_cell_is_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is a real step here. A folder that was written by hand in the documented format can be reported."""
    study = Study.load(fabricate(tmp_path / "pair", {"fpn": 0.1, "sni": 0.1}, seeds=(1,)) / "study.yaml")
    folder = tmp_path / "pair"
    monkeypatch.setattr("sn2fpn.study.run.steps.STEPS", {"report": STEPS["report"]})
    report = folder / STEPS["report"][0]
    assert run_steps(study, folder) == []
    written = report.stat().st_mtime_ns
    assert run_steps(study, folder) == []
    assert report.stat().st_mtime_ns == written and "up to date" in capsys.readouterr().out
    CellFolder(folder, study.cells[0]).result_file.touch()
    assert run_steps(study, folder) == []
    assert (again := report.stat().st_mtime_ns) > written
    study.save(file := folder / "study.yaml")  # in another form
    saved = file.stat().st_mtime_ns
    study.save(file)
    assert file.stat().st_mtime_ns == saved  # the same content leaves the file as it is
    assert run_steps(study, folder) == [] and report.stat().st_mtime_ns > again
    again = report.stat().st_mtime_ns
    shutil.rmtree(CellFolder(folder, study.cells[1]).path)
    assert run_steps(study, folder) == [] and report.stat().st_mtime_ns > again


def test_a_step_is_repeated_when_a_variant_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of merged studies need not have all variants. Feature maps can only be measured with weights."""
    folder = fabricate(tmp_path / "pair", {"fpn": 0.1, "sni": 0.1}, seeds=(1,))
    study = Study.load(folder / "study.yaml")
    done: list[str] = []
    names = ("costs", "speed", "features")
    fakes = {name: (f"{name}.json", lambda *_, name=name: done.append(name)) for name in names}
    monkeypatch.setattr("sn2fpn.study.run.steps.STEPS", fakes)
    costs, speed = (read_json(folder / f"{name}.json") for name in names[:2])
    for name, content in zip(names, (costs, speed, {"variants": {}})):
        write_json(folder / f"{name}.json", content)
    assert run_steps(study, folder) == [] and not done
    CellFolder(folder, study.cells[1]).weights.touch()
    write_json(folder / "costs.json", {"fpn": costs["fpn"]})
    (folder / "speed.json").write_text("{")
    (folder / "features.json").write_text("{")
    assert run_steps(study, folder) == [] and done == list(names)
    assert _measured_before(folder / "features.json") == {}  # so that the step writes the file again
    write_json(folder / "features.json", {"set": "x", "images": 2, "fpn": {"p2": {}}})  # the form of older versions
    assert _measured_before(folder / "features.json")["variants"] == {"fpn": {"p2": {}}}


def test_one_seed_stands_for_all_variants_where_it_can(tmp_path: Path) -> None:
    """A study that goes on from an archive lacks the weights of the cells that were trained elsewhere."""
    study = Study.load(fabricate(tmp_path / "pair", {"fpn": 0.1, "sni": 0.1}, seeds=(1, 2, 3)) / "study.yaml")
    places = [CellFolder(tmp_path / "pair", cell) for cell in study.cells]

    def chosen(*trained: str) -> dict[str, int]:
        for place in places:
            place.weights.unlink(missing_ok=True)
            if place.cell.name in trained:
                place.weights.touch()
        return {name: place.cell.seed for name, place in trained_cells(study, tmp_path / "pair").items()}

    assert chosen() == {}
    assert chosen("sni/seed2") == {"sni": 2}
    assert chosen("fpn/seed3", "sni/seed2") == {"fpn": 3, "sni": 2}
    assert chosen("fpn/seed1", "fpn/seed3", "sni/seed2", "sni/seed3") == {"fpn": 3, "sni": 3}
    assert chosen(*(place.cell.name for place in places)) == {"fpn": 1, "sni": 1}
