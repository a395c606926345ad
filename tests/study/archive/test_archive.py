"""Tests of archives: what they hold, that reports and merges work from them alone, and what a merge refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from fabricated_study import fabricate, write_images
from pycocotools import mask as mask_utils

from sn2fpn.data import DatasetCatalog, register_custom
from sn2fpn.errors import UserError
from sn2fpn.imports import import_files
from sn2fpn.study.__main__ import main
from sn2fpn.study.archive.merge import _join_measures, merge
from sn2fpn.study.archive.merged_study import _imports
from sn2fpn.study.archive.pack import opened, pack
from sn2fpn.study.archive.test_sets import annotations_file, save_test_set, use_stored_test_set
from sn2fpn.study.folder import CellFolder
from sn2fpn.study.measure.results import load_results
from sn2fpn.study.measure.tidy_table import tidy_rows
from sn2fpn.study.report.samples import open_test_set
from sn2fpn.study.spec.check import check_folders
from sn2fpn.study.spec.fingerprint import records_fingerprint
from sn2fpn.study.spec.study import Study
from sn2fpn.study.spec.tuning import tuning_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of fpn and sni with two seeds, and its base configuration."""
    (tmp_path / "base.yaml").write_text("MODEL: {MASK_ON: False}\nSOLVER: {MAX_ITER: 77}\n")
    return _fabricate(tmp_path / "one", {"fpn": 0.2, "sni": 0.1})


def _fabricate(folder: Path, variants: dict[str, float], test_set: str | None = None, **options: Any) -> Path:
    """Fabricate a study whose cells store their whole configuration, weights and the fingerprints of their data."""
    fabricate(folder, variants, **{"seeds": (1, 2)} | options, test_set=test_set)
    cell = load_results(folder).finished[0]
    settings = {"DATASETS.TEST": cell.test_sets, "DATASETS.CUSTOM": cell.folder.configuration()["DATASETS"]["CUSTOM"]}
    _rewrite(folder / "study.yaml", SET=settings)
    results = load_results(folder)
    same = records_fingerprint([DatasetCatalog.get(cell.test_sets[0])])
    for place in (cell.folder for cell in results.cells):
        cfg = results.study.config(place.cell.variant, place.cell.seed)
        cfg.OUTPUT_DIR = str(place.path.resolve())
        place.config.write_text(cfg.dump())
        place.weights.write_bytes(b"weights")
        command = ["python", "train_net.py", "--config-file", str(results.study.base)]
        place.save_identity(place.identity() | {"fingerprint": {"test data": same}, "command": command})
    return folder


def test_archive_holds_results_alone(study: Path, tmp_path: Path) -> None:
    archive = pack(study, tmp_path / "one.study.zip")
    with zipfile.ZipFile(archive) as opened_zip:
        names = set(opened_zip.namelist())
        content = b"".join(opened_zip.read(name) for name in names)
    assert {"study.yaml", "base.yaml", "costs.json", "speed.json", "cells/sni/seed2/result.json"} <= names
    assert not [name for name in names if name.endswith((".pth", ".png", ".jpg"))]
    assert str(tmp_path).encode() not in content and b'"base.yaml"' in content  # the commands of the cells name it
    assert pack(study, tmp_path / "again.study.zip").read_bytes() == archive.read_bytes()


def test_cells_that_were_trained_with_files_elsewhere(study: Path, tmp_path: Path) -> None:
    place = load_results(study).cells[0].folder
    files = ["--import", "/elsewhere/clone/pyramid.py", "--config-file", "/elsewhere/clone/other.yaml", "SEED", "1"]
    place.save_identity(place.identity() | {"command": ["python", "train_net.py", *files]})
    with opened(pack(study, tmp_path / "one.study.zip")) as folder:
        command = CellFolder(folder, place.cell).identity()["command"]
    assert command[2:] == ["--import", "pyramid.py", "--config-file", "base.yaml", "SEED", "1"]


def test_archive_gives_the_same_results(study: Path, tmp_path: Path) -> None:
    with opened(pack(study, tmp_path / "one.study.zip")) as folder:
        there, here = load_results(folder), load_results(study)
        assert tidy_rows(there) == tidy_rows(here)
        config = there.study.config(there.study.variants[1], 1)
        assert config.SOLVER.MAX_ITER == 77 and config.MODEL.BACKBONE.NAME == "build_sn2_sni_backbone"
        name = use_stored_test_set(here.finished[0].test_sets[0], folder)
        assert name != here.finished[0].test_sets[0] and len(DatasetCatalog.get(name)) == 6


def test_detections_are_rounded_unless_exact(study: Path, tmp_path: Path) -> None:
    def detections(folder: Path) -> list[dict[str, Any]]:
        return json.loads(next(folder.glob("cells/fpn/seed1/inference/*/coco_instances_results.json")).read_text())

    whole = detections(study)
    with opened(pack(study, tmp_path / "exact.study.zip", exact=True)) as folder:
        assert detections(folder) == whole
    with opened(pack(study, tmp_path / "small.study.zip")) as folder:
        rounded = detections(folder)
    assert rounded != whole
    np.testing.assert_allclose([d["bbox"] for d in rounded], [d["bbox"] for d in whole], atol=0.00051)
    np.testing.assert_allclose([d["score"] for d in rounded], [d["score"] for d in whole], atol=0.00000051)


def test_stored_annotations_serve_without_the_data_set(study: Path, tmp_path: Path) -> None:
    name = load_results(study).finished[0].test_sets[0]
    save_test_set(name, tmp_path)
    records = DatasetCatalog.get(name)
    DatasetCatalog.remove(name)
    registered = use_stored_test_set(name, tmp_path)
    stored = DatasetCatalog.get(registered)
    assert [r["annotations"] for r in stored] == [r["annotations"] for r in records]
    assert stored[0]["file_name"] == Path(records[0]["file_name"]).name


def test_run_lengths_and_arrays_are_stored(study: Path, tmp_path: Path) -> None:
    """A crowd's uncompressed run lengths are read as compressed ones, which are bytes."""
    entry = write_images(tmp_path / "crowds")
    content = json.loads(Path(entry["JSON"]).read_text())
    crowd = {"iscrowd": 1, "segmentation": {"size": [60, 80], "counts": [130, 20, 40, 20, 4590]}}
    content["annotations"][0] |= crowd | {"bbox": [2, 10, 2, 20], "area": 40}
    Path(entry["JSON"]).write_text(json.dumps(content))
    register_custom([entry])
    records = DatasetCatalog.get(entry["NAME"])
    mask = records[0]["annotations"][0]["segmentation"]
    assert isinstance(mask["counts"], bytes)
    arrays = [{**r, "annotations": [{**a, "bbox": np.array(a["bbox"])} for a in r["annotations"]]} for r in records]
    DatasetCatalog.register("with arrays", lambda: arrays)
    for name in (entry["NAME"], "with arrays"):
        save_test_set(name, tmp_path / "stored")
        stored = DatasetCatalog.get(use_stored_test_set(name, tmp_path / "stored"))
        found = stored[0]["annotations"][0]["segmentation"]
        assert (mask_utils.decode(found) == mask_utils.decode(mask)).all() and found["size"] == mask["size"]
        assert [a["bbox"] for r in stored for a in r["annotations"]] == [
            list(a["bbox"]) for r in records for a in r["annotations"]
        ]
    arrays[0]["photographer"] = object()
    with pytest.raises(UserError, match=r"data set 'with arrays': expected values .* as JSON: found object"):
        save_test_set("with arrays", tmp_path / "stored")


@pytest.mark.usefixtures("plain_charts")
def test_the_report_of_an_archive_is_that_of_the_folder(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = pack(study, tmp_path / "one.study.zip", exact=True)
    for name, source, flags in (("a", study, []), ("b", archive, []), ("c", archive, ["--no-pictures"])):
        assert main(["report", str(source), "--output", str(tmp_path / name), *flags]) == 0
    texts = {name: (tmp_path / name / "report.md").read_text() for name in "abc"}
    for section in ("Conclusions", "Results"):
        parts = {text.partition(f"## {section}")[2].partition("##")[0] for text in texts.values()}
        assert len(parts) == 1 and "sni" in parts.pop()
    assert "resampled test images" in texts["c"]
    assert (tmp_path / "b/figures/samples.jpg").is_file()  # the data set is on this machine
    assert (
        not list((tmp_path / "c").rglob("*.jpg")) and "data:image/jpeg" not in (tmp_path / "c/report.html").read_text()
    )
    assert (tmp_path / "b/results.csv").read_text() == (tmp_path / "a/results.csv").read_text()


def test_a_test_set_of_the_imports_is_packed(study: Path, tmp_path: Path) -> None:
    entry = write_images(tmp_path / "images")
    (tmp_path / "sets.py").write_text(
        "from sn2fpn.data import register_coco_instances\n"
        f"register_coco_instances({entry['NAME']!r}, {{}}, {entry['JSON']!r}, {entry['IMAGES']!r})\n"
    )
    import_files([tmp_path / "sets.py"])
    folder = _fabricate(tmp_path / "own", {"fpn": 0.2}, test_set=entry["NAME"])
    _rewrite(folder / "study.yaml", IMPORTS=["../sets.py"])
    DatasetCatalog.remove(entry["NAME"])
    del sys.modules["sets"]  # as in another process
    (tmp_path / "sets.py").chmod(0o666)  # anybody may have written it
    with pytest.raises(UserError, match=r"IMPORTS would run .*sets\.py.*--trust"):
        pack(folder, tmp_path / "own.study.zip")
    assert main(["pack", str(folder), "--output", str(tmp_path / "own.study.zip"), "--trust"]) == 0
    with opened(tmp_path / "own.study.zip") as there:
        assert annotations_file(there, entry["NAME"]).is_file()


def test_merge_joins_seeds(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    other = _fabricate(tmp_path / "two", {"fpn": 0.2, "sni": 0.1}, seeds=(2, 3), test_set=test_set)
    for file in (other / "cells").glob("*/seed2/result.json"):
        file.write_text((study / file.relative_to(other)).read_text())  # the same cell, trained twice
    packed = pack(other, tmp_path / "two.study.zip", exact=True)
    assert main(["merge", str(study), str(packed), "--output", str(tmp_path / "both")]) == 0
    results = load_results(tmp_path / "both")
    assert results.study.all_seeds == [1, 2, 3] and len(results.finished) == 6
    assert results.values("sni", "bbox/AP") == load_results(study).values("sni", "bbox/AP") | load_results(
        other
    ).values("sni", "bbox/AP")
    weights = {path.parent.name for path in (tmp_path / "both").rglob("*.pth")}
    assert weights == {"seed1", "seed2"}  # an archive, which brings seed 3, has none
    assert {name for name in zipfile.ZipFile(packed).namelist() if name.endswith(".pth")} == set()


def test_merge_prefers_the_copy_with_weights(study: Path, tmp_path: Path) -> None:
    archive = pack(study, tmp_path / "one.study.zip", exact=True)
    for i, sources in enumerate(([archive, study], [study, archive])):
        merged = load_results(merge(sources, tmp_path / f"merged{i}"))
        assert all(cell.folder.weights.read_bytes() == b"weights" for cell in merged.finished)


def test_merge_joins_variants(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    other = _fabricate(tmp_path / "two", {"fpn": 0.2, "ihp": 0.3}, test_set=test_set, seeds=(1,))
    question = {"ASK": "Is IHP better than SNI?", "COMPARE": ["ihp"], "AGAINST": "sni", "MERGED_WITH": "one"}
    axes = yaml.safe_load((other / "study.yaml").read_text())["AXES"]
    axes["pyramid"]["ihp"]["MODEL.WEIGHTS"] = "trunk.pth"
    _rewrite(other / "study.yaml", QUESTIONS=[question], AXES=axes)
    config = other / "cells/ihp/seed1/config.yaml"
    config.write_text(config.read_text().replace("WEIGHTS: ''", "WEIGHTS: trunk.pth"))
    for file in (other / "cells/fpn").glob("*/result.json"):
        file.write_text((study / file.relative_to(other)).read_text())
    both = merge([study, other], tmp_path / "both.study.zip")
    with opened(both) as folder:
        results = load_results(folder)
        assert results.variants == ["fpn", "sni", "ihp"] and results.baseline == "fpn"
        assert results.study.seeds == {"fpn": (1, 2), "sni": (1, 2), "ihp": (1,)}
        assert not results.absent and [q.merged_with for q in results.study.questions] == [""]
        cfg = results.study.config(results.study.variants[2])
        assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.WEIGHTS) == ("build_sn2_ihp_backbone", "trunk.pth")
        assert not list(folder.rglob("*.pth"))
        assert set(results.costs) == {"fpn", "sni", "ihp"} and not results.speed


def test_merge_keeps_the_weights_that_variants_began_with(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    other = _fabricate(tmp_path / "two", {"ihp": 0.3}, test_set=test_set, seeds=(1,))
    axes = yaml.safe_load((other / "study.yaml").read_text())["AXES"]
    axes["pyramid"]["ihp"]["MODEL.WEIGHTS"] = "there.pth"
    _rewrite(other / "study.yaml", AXES=axes)
    _set(study, "MODEL.WEIGHTS", "here.pth")
    merged = Study.load(merge([other, study], tmp_path / "both") / "study.yaml")
    weights = {variant.name: merged.config(variant).MODEL.WEIGHTS for variant in merged.variants}
    assert weights == {"ihp": "there.pth", "fpn": "here.pth", "sni": "here.pth"}


def test_cells_of_several_devices_are_merged(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    other = _fabricate(tmp_path / "two", {"fpn": 0.2, "sni": 0.1}, seeds=(3,), test_set=test_set)
    _set(study, "MODEL.DEVICE", "cpu")
    _set(other, "MODEL.DEVICE", "cuda")
    both = merge([study, other], tmp_path / "both")
    assert len(load_results(merge([both, study], tmp_path / "again")).finished) == 6
    (both / "cells/sni/seed3/result.json").unlink()
    with pytest.raises(UserError, match=r"sni/seed3: .*MODEL\.DEVICE was 'cuda', now 'cpu'"):
        check_folders(Study.load(both / "study.yaml"), both)


@pytest.mark.usefixtures("plain_charts")
def test_questions_with_the_same_text_stay_unless_they_are_equal(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    other = _fabricate(tmp_path / "two", {"ihp": 0.3, "bifpn": 0.4}, test_set=test_set, seeds=(1,))
    shared = {"ASK": "Is IHP better?", "COMPARE": ["ihp"], "AGAINST": "fpn"}
    for folder, name, against in ((study, "sni", "fpn"), (other, "bifpn", "ihp")):
        own = {"ASK": "Does it help?", "COMPARE": [name], "AGAINST": against}
        waiting = shared | {"MERGED_WITH": "two" if folder == study else "one"}
        _rewrite(folder / "study.yaml", QUESTIONS=[own, waiting])
    both = merge([study, other], tmp_path / "both")
    asked = [(q.text, q.compare, q.merged_with) for q in load_results(both).study.questions]
    expected = [("Does it help?", ("sni",), ""), ("Is IHP better?", ("ihp",), ""), ("Does it help?", ("bifpn",), "")]
    assert asked == expected
    assert main(["report", str(both), "--no-pictures"]) == 0
    assert (both / "report/report.md").read_text().count("Does it help?") == 2


def test_a_merged_folder_imports_the_files_of_its_studies(study: Path, tmp_path: Path) -> None:
    entry, file = write_images(tmp_path / "images"), tmp_path / "registers.py"
    file.write_text(
        "from sn2fpn.data import register_coco_instances\n"
        f"register_coco_instances({entry['NAME']!r}, {{}}, {entry['JSON']!r}, {entry['IMAGES']!r})\n"
    )
    import_files([file])
    folders = [_fabricate(tmp_path / name, {name: 0.2}, test_set=entry["NAME"], seeds=(1,)) for name in ("fpn", "ihp")]
    for folder in folders:
        _rewrite(folder / "study.yaml", IMPORTS=["../registers.py"])
    DatasetCatalog.remove(entry["NAME"])
    del sys.modules["registers"]  # as in another process
    (tmp_path / "merged").mkdir()
    both = merge(folders, tmp_path / "merged/both")
    assert Study.load(both / "study.yaml").imports == (file,)
    archive = merge(folders, tmp_path / "merged/both.study.zip")  # imports the file to find the test set
    with opened(archive) as there:
        assert annotations_file(there, entry["NAME"]).is_file()
        assert Study.load(there / "study.yaml").imports == (there / "registers.py",) and not list(there.rglob("*.py"))
    assert Study.load(merge([archive, folders[0]], tmp_path / "again") / "study.yaml").imports == (file,)
    absent = merge([archive, archive], tmp_path / "twice")
    assert Study.load(absent / "study.yaml").imports == (absent / "registers.py",)


def test_a_merged_folder_imports_the_packages_of_its_studies(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    source = SimpleNamespace(name=tmp_path, study=SimpleNamespace(imports=(package,)))
    assert _imports([source, source], tmp_path / "merged") == ["../pack"]


def test_a_question_that_waited_for_a_merge_must_fit(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    other = _fabricate(tmp_path / "two", {"ihp": 0.3}, test_set=test_set)
    question = {"ASK": "Is IHP better?", "COMPARE": ["ihp"], "AGAINST": "snii", "MERGED_WITH": "one"}
    _rewrite(other / "study.yaml", QUESTIONS=[question])
    with pytest.raises(UserError, match=r"QUESTIONS\[0\]: AGAINST: unknown name 'snii'; did you mean 'sni'"):
        merge([study, other], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_tuning_is_packed_and_merged(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    tried = {f"{name}-BASE_LR={rate}": 10 * rate for name in ("fpn", "sni") for rate in (0.01, 0.02)}
    fabricate(study / "tuning", tried, seeds=(0,), test_set=test_set)
    backbone = {"MODEL.BACKBONE.NAME": "build_sn2_fpn_backbone"}
    _rewrite(study / "tuning/study.yaml", BASE="../../base.yaml", AXES={"pyramid": dict.fromkeys(tried, backbone)})
    _rewrite(study / "study.yaml", TUNE={"SOLVER.BASE_LR": [0.01, 0.02]}, TUNE_SETS=["photos1_tune"])
    archive = pack(study, tmp_path / "one.study.zip", exact=True)
    with opened(archive) as folder:
        assert [choice.variant for choice in load_results(folder).tuning] == ["fpn", "sni"]
        assert not list((folder / "tuning").rglob("coco_instances_results.json"))
    untuned = _fabricate(tmp_path / "two", {"fpn": 0.2, "ihp": 0.3}, test_set=test_set)
    for file in (untuned / "cells/fpn").glob("*/result.json"):
        file.write_text((study / file.relative_to(untuned)).read_text())
    results = load_results(merge([untuned, archive], tmp_path / "both"))
    assert {choice.variant: choice.best for choice in results.tuning} == {"fpn": "BASE_LR=0.01", "sni": "BASE_LR=0.01"}
    assert results.study.tune_sets == ("photos1_tune",)
    assert results.study.tuned == {"fpn": {}, "ihp": {}}  # these were not tuned, and never will be


def _tune(folder: Path, scores: dict[float, float], **changes: Any) -> None:
    """Let a study have tried learning rates, each of which has the same score for every variant."""
    _rewrite(folder / "study.yaml", TUNE={"SOLVER.BASE_LR": list(scores)}, TUNE_SETS=["photos1_tune"], **changes)
    tuning = tuning_study(Study.load(folder / "study.yaml"))
    (folder / "tuning").mkdir()
    tuning.save(folder / "tuning/study.yaml")
    for cell in tuning.cells:
        score = scores[tuning.config(cell.variant).SOLVER.BASE_LR]
        CellFolder(folder / "tuning", cell).save_result({"results": {"photos1_tune": {"bbox": {"AP": score}}}})


def test_the_tuning_of_studies_with_one_variant_is_merged(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    others = [_fabricate(tmp_path / name, {name: 0.3}, test_set=test_set, seeds=(1,)) for name in ("ihp", "bifpn")]
    for folder in (study, *others):
        _tune(folder, {0.01: 1.0, 0.02: 3.0, 0.04: 2.0})
    for sources, variants in ((others, ["ihp", "bifpn"]), ([study, others[0]], ["fpn", "sni", "ihp"])):
        results = load_results(merge(sources, tmp_path / "-".join(variants)))
        assert [choice.variant for choice in results.tuning] == variants
        assert {(choice.best, len(choice.scores)) for choice in results.tuning} == {("BASE_LR=0.02", 3)}


def test_studies_that_were_tuned_with_other_seeds_or_settings_are_not_merged(study: Path, tmp_path: Path) -> None:
    test_set = load_results(study).finished[0].test_sets[0]
    other = _fabricate(tmp_path / "two", {"ihp": 0.3}, test_set=test_set, seeds=(1,))
    _rewrite(study / "study.yaml", TUNE={"SOLVER.BASE_LR": [0.01, 0.02]}, TUNE_SETS=["photos1_tune"])
    _rewrite(other / "study.yaml", TUNE={"SOLVER.BASE_LR": [0.01, 0.02]}, TUNE_SETS=["photos1_tune"], TUNE_SEED=7)
    with pytest.raises(UserError, match=r"two: TUNE_SEED is 7, and 0 in .*one"):
        merge([study, other], tmp_path / "both")
    _rewrite(other / "study.yaml", TUNE_SEED=0, TUNE_SET={"SOLVER.MAX_ITER": 5})
    with pytest.raises(UserError, match=r"two: TUNE_SET is \{'SOLVER.MAX_ITER': 5\}, and \{\} in .*one"):
        merge([study, other], tmp_path / "both")


def test_a_report_does_not_resample_annotations_that_have_changed(study: Path) -> None:
    open_test_set(results := load_results(study))
    cell = results.finished[0]
    cell.folder.save_identity(cell.identity | {"fingerprint": {"test data": "of other boxes"}})
    with pytest.raises(UserError, match=r"the annotations of .* have changed since fpn/seed1 was started"):
        open_test_set(load_results(study))


def test_annotations_of_any_test_set_may_have_changed(study: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "more", images=2)
    register_custom([other])
    for cell in load_results(study).finished:
        (first,) = cell.test_sets
        both = [DatasetCatalog.get(name) for name in (first, other["NAME"])]
        _rewrite(
            cell.folder.result_file, results=cell.result["results"] | {other["NAME"]: cell.result["results"][first]}
        )
        cell.folder.save_identity(cell.identity | {"fingerprint": {"test data": records_fingerprint(both)}})
    open_test_set(load_results(study))
    first = load_results(study).finished[0]
    first.folder.save_identity(first.identity | {"fingerprint": {"test data": "of other boxes"}})
    with pytest.raises(UserError, match=r"the annotations of .* and .* have changed since fpn/seed1 was started"):
        open_test_set(load_results(study))


def test_studies_over_data_sets_are_merged(study: Path, tmp_path: Path) -> None:
    """The data of two variants may differ, but not those of one data set."""
    axes = {"data": {"full": {"DATASETS.TRAIN": ["a"]}, "half": {"DATASETS.TRAIN": ["a[:5]"]}}}
    for folder, seed in ((study, 1), (tmp_path / "other", 2)):
        if folder != study:
            shutil.copytree(study, folder)
        shutil.rmtree(folder / "cells")
        _rewrite(folder / "study.yaml", AXES=axes, SEEDS=[seed], BASELINE={"data": "full"})
        for name in ("full", "half"):
            place = folder / f"cells/{name}/seed{seed}"
            place.mkdir(parents=True)
            (place / "cell.json").write_text(json.dumps({"fingerprint": {"training data": f"hash of {name}"}}))
    merged = merge([study, tmp_path / "other"], tmp_path / "both")
    assert [cell.name for cell in Study.load(merged / "study.yaml").cells] == [
        "full/seed1",
        "half/seed1",
        "full/seed2",
        "half/seed2",
    ]
    _rewrite(tmp_path / "other/cells/half/seed2/cell.json", fingerprint={"training data": "another"})
    with pytest.raises(
        UserError, match=r"the training data differ by their fingerprints: hash of half in .*another in"
    ):
        merge([study, tmp_path / "other"], tmp_path / "refused")


def test_an_archive_of_a_folder_with_any_name_has_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "jü rgen").mkdir()
    (tmp_path / "jü rgen/base.yaml").write_text("MODEL: {MASK_ON: False}")
    folder = _fabricate(tmp_path / "jü rgen/one", {"fpn": 0.2, "sni": 0.02})
    for cell in folder.glob("cells/*/*/cell.json"):
        _rewrite(cell, overrides={"SOLVER.BASE_LR": 1e-05})
    with opened(pack(folder, tmp_path / "one.study.zip", exact=True)) as copy:
        for path in copy.rglob("*"):
            if path.name in ("cell.json", "config.yaml", "study.yaml"):
                text = path.read_text()
                assert "rgen" not in text.replace("jü rgen/one/images", "").replace("j\\xFC rgen/one/images", ""), path
                assert path.suffix == ".yaml" or json.loads(text)["overrides"] == {"SOLVER.BASE_LR": 1e-05}


def test_feature_maps_of_other_images_are_not_joined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first file has the layout of earlier versions."""
    files = [tmp_path / str(i) / "features.json" for i in range(3)]
    levels = {name: {"p2": {"coarse_share": share}} for name, share in (("fpn", 0.5), ("sni", 0.2), ("ihp", 0.1))}
    for file, content in zip(
        files,
        (
            {"images": 64, "set": "val", "fpn": levels["fpn"]},
            {"images": 8, "set": "other", "variants": {"sni": levels["sni"]}},
            {"images": 64, "set": "val", "variants": {"ihp": levels["ihp"], "fpn": levels["sni"]}},
        ),
    ):
        file.parent.mkdir()
        file.write_text(json.dumps(content))
    (tmp_path / "both").mkdir()
    _join_measures(files, tmp_path / "both/features.json")
    expected = {"images": 64, "set": "val", "variants": {"fpn": levels["fpn"], "ihp": levels["ihp"]}}
    assert json.loads((tmp_path / "both/features.json").read_text()) == expected
    assert f"{files[1]} was measured on other images than the first study and is left out" in caplog.text


def _rewrite(path: Path, **changes: Any) -> None:
    read, write = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    path.write_text(write(read(path.read_text()) | changes))


def _set(folder: Path, key: str, value: Any) -> None:
    """Give all cells of a study, also those that have finished, another value of a configuration key."""
    content = yaml.safe_load((folder / "study.yaml").read_text())
    _rewrite(folder / "study.yaml", SET=content["SET"] | {key: value})
    section, name = key.split(".")
    for config in folder.glob("cells/*/*/config.yaml"):
        content = yaml.safe_load(config.read_text())
        content[section][name] = value
        config.write_text(yaml.safe_dump(content))


def _other_metrics(folder: Path) -> None:
    _rewrite(folder / "study.yaml", METRICS=["bbox/AP50"])


def _other_engine(folder: Path) -> None:
    _rewrite(folder / "study.yaml", ENGINE="auto")


def _other_schedule(folder: Path) -> None:
    _set(folder, "SOLVER.MAX_ITER", 5)


def _other_weights(folder: Path) -> None:
    _set(folder, "MODEL.WEIGHTS", "trunk.pth")


def _other_weights_of_a_variant(folder: Path) -> None:
    axes = yaml.safe_load((folder / "study.yaml").read_text())["AXES"]
    axes["pyramid"]["sni"]["MODEL.WEIGHTS"] = "trunk.pth"
    _rewrite(folder / "study.yaml", AXES=axes)


def _other_engine_of_a_cell(folder: Path) -> None:
    _rewrite(folder / "cells/sni/seed2/result.json", engine="detectron2")


def _other_data(folder: Path) -> None:
    for path in folder.glob("cells/*/*/cell.json"):
        _rewrite(path, fingerprint={"test data": "another"})


def _other_scores(folder: Path) -> None:
    path = folder / "cells/sni/seed1/result.json"
    result = json.loads(path.read_text())
    next(iter(result["results"].values()))["bbox"]["AP"] += 1
    path.write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_metrics, "METRICS is"),
        (_other_engine, "ENGINE is 'native' in the one and 'auto' in the other"),
        (_other_schedule, "SOLVER.MAX_ITER is 77 in the one and 5 in the other"),
        (_other_weights, "MODEL.WEIGHTS is '' in the one and 'trunk.pth' in the other"),
        (_other_weights_of_a_variant, "the variant 'sni' has other settings in .* than in .*: MODEL.WEIGHTS"),
        (_other_data, r"the test data differ by their fingerprints: \w+ in .* another in"),
        (_other_engine_of_a_cell, r"engines of finished cells differ: native in .*fpn/seed1 \| detectron2 in .*seed2"),
        (_other_scores, "results of the same cell sni/seed1 and differ"),
    ],
)
def test_merge_refuses_what_does_not_belong_together(study: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    with opened(pack(study, tmp_path / "copy.study.zip", exact=True)) as copy:
        spoil(copy)
        with pytest.raises(UserError, match=message):
            merge([study, copy], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_merge_refuses_other_code_of_shared_cells_and_names_that_of_others(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = _fabricate(tmp_path / "other", {"fpn": 0.2, "ihp": 0.1}, load_results(study).finished[0].test_sets[0])
    for version, folder in (("1a", study), ("2b", other)):
        for path in folder.glob("cells/*/*/cell.json"):
            _rewrite(path, imports={"own.py": version})
    found = r"the code of own.py, a file that IMPORTS loads, differs: 1a in .*fpn/seed1 \| 2b in .*"
    with opened(pack(study, tmp_path / "copy.study.zip", exact=True)) as copy:
        _rewrite(copy / "cells/sni/seed2/cell.json", imports={"own.py": "2b"})
        with pytest.raises(UserError, match=rf"the studies do not belong together: {found}sni/seed2"):
            merge([study, copy], tmp_path / "both")
    shutil.rmtree(other / "cells/fpn")
    merge([study, other], tmp_path / "both")
    assert re.search(rf"{found}ihp/seed1", caplog.text)


def load_archive(path: Path) -> None:
    with opened(path):
        pass


def test_broken_archives(study: Path, tmp_path: Path) -> None:
    archive = pack(study, tmp_path / "one.study.zip")
    with (
        pytest.raises(UserError, match=r"on\.study\.zip: expected a study's folder .* mean '.*one\.study\.zip'\?"),
        opened(tmp_path / "on.study.zip"),
    ):
        pass
    with pytest.raises(UserError, match=r"study\.yaml: expected a study's folder .*; found a file that is no zip"):
        load_archive(study / "study.yaml")
    (tmp_path / "cut.study.zip").write_bytes(archive.read_bytes()[:-200])
    with (
        pytest.raises(UserError, match=r"cut\.study\.zip: the archive cannot be read"),
        opened(tmp_path / "cut.study.zip"),
    ):
        pass
    with zipfile.ZipFile(tmp_path / "evil.study.zip", "w") as evil:
        evil.writestr("../outside", "x")
    with pytest.raises(UserError, match="names a file outside its folder"), opened(tmp_path / "evil.study.zip"):
        pass
    with zipfile.ZipFile(tmp_path / "code.study.zip", "w") as code:
        code.writestr("mine.py", "x")
    with pytest.raises(UserError, match=r"holds .yaml, .json, .txt files only, found 'mine.py'"):
        load_archive(tmp_path / "code.study.zip")
    with pytest.raises(UserError, match="exists already"):
        merge([archive, archive], archive)
