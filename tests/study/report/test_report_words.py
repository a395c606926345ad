"""The sentences of a report: whole sentences, counts in place of long lists, and commands that work."""

from __future__ import annotations

import html
import json
import math
import re
import shlex
import zipfile
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import pytest
import yaml
from fabricated_study import fabricate

from sn2fpn.study.__main__ import main
from sn2fpn.study.archive.pack import pack
from sn2fpn.study.folder import CellFolder, State
from sn2fpn.study.measure.power import resamples_for
from sn2fpn.study.measure.results import load_results
from sn2fpn.study.measure.statistics import Bootstrap, Interval, distinguishable, holm
from sn2fpn.study.report import cost_notes, notes
from sn2fpn.study.report.answers import answer_questions
from sn2fpn.study.report.comparison import Comparison, compare
from sn2fpn.study.report.conclusion import summary
from sn2fpn.study.report.content import listed
from sn2fpn.study.report.curve_charts import tuning_plots
from sn2fpn.study.report.facts import fingerprint_lines, heading_facts, run_checks
from sn2fpn.study.report.samples import open_test_set
from sn2fpn.study.report.style import looks
from sn2fpn.study.report.tables import feature_table, tuning_table
from sn2fpn.study.report.writing import write_report
from sn2fpn.study.spec.questions import Question
from sn2fpn.study.spec.study import Study
from sn2fpn.study.spec.tuning import choose, tuning_study

pytestmark = pytest.mark.usefixtures("plain_charts")


def _paragraphs(page: str) -> list[str]:
    """Return the texts of the page that are sentences."""
    found = re.findall(r'<p class="(?:note|lead|warning)">(.*?)</p>|<li class="soft">(.*?)</li>', page, re.DOTALL)
    items = re.findall(r"<ul class=\"conclusions\">(.*?)</ul>", page, re.DOTALL)
    items = [item for block in items for item in re.findall(r"<li[^>]*>(.*?)</li>", block, re.DOTALL)]
    texts = [a or b for a, b in found] + items
    return [re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", text))).strip() for text in texts]


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_all_sentences_end(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    folder = fabricate(tmp_path / "few", {"fpn": 0.2, "sni": 0.1}, seeds=seeds)
    for picture in (folder / "images").glob("*.png"):
        picture.unlink()
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content["QUESTIONS"] = [{"ASK": "Does SNI help?", "COMPARE": ["sni"]}]
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    texts = _paragraphs(write_report(folder).read_text(encoding="utf-8"))
    assert len(texts) > 12
    assert [text for text in texts if not re.search(r"[^.]\.$", text)] == []
    assert any("There are no pictures: the images of the test set" in text for text in texts)


def _compared(variant: str, mean: float, clear: bool, n: int = 3) -> Comparison:
    p = 1e-6 if clear else 0.5
    seeds, images = Interval(mean, mean - 1, mean + 1, n, p if n > 1 else NormalDist().cdf(0)), Bootstrap(mean, 0, 1, p)
    return Comparison(variant, seeds, images, distinguishable({variant: (seeds, images)}, "fpn")[variant])


def test_the_headline_says_who_is_better(tmp_path: Path) -> None:
    study = load_results(fabricate(tmp_path / "some", {"fpn": 0.2, "sni": 0.1}, seeds=(1,)))
    found = [
        _compared("sni", 2.0, True),
        _compared("ihp", 1.0, True),
        _compared("pafpn", -1.0, True),
        *[_compared(f"v{i}", 0.1, False) for i in range(9)],
    ]
    assert summary(study, found) == (
        "sni and ihp have a higher AP than the baseline fpn by more than noise. pafpn has a lower AP than the baseline "
        "fpn by more than noise. 9 variants do not differ from fpn by more than noise."
    )
    assert summary(study, found[3:]) == "No variant differs from the baseline fpn in AP by more than noise."
    untested = _compared("sni", 3.0, True)
    verdict = distinguishable({"sni": (untested.seeds, Bootstrap())}, "fpn")["sni"]
    untested = replace(untested, images=Bootstrap(), verdict=verdict)
    assert summary(study, [untested]) == "It is unknown whether sni differs from fpn by more than noise."
    single = replace(_compared("ihp", 5.0, True), seeds=Interval(5.0, math.nan, math.nan, 1, math.nan))
    single = replace(single, verdict=distinguishable({"ihp": (single.seeds, single.images)}, "fpn")["ihp"])
    assert summary(study, [found[0], found[3], single]) == (
        "sni has a higher AP than the baseline fpn by more than noise. v0 does not differ from fpn by more than noise. "
        "It is unknown whether ihp differs from fpn by more than noise."
    )
    assert summary(study, [_compared("sni", 3.0, True, n=1)]) == (
        "It is unknown which variants are better or worse than the baseline fpn. They were compared on one seed, and "
        "one seed does not show how much AP varies from training to training."
    )


def test_variants_without_a_common_seed_or_a_score_are_named(tmp_path: Path) -> None:
    without = ["fpn/seed2", "sni/seed1", "ihp/seed1", "ihp/seed2"]
    folder = fabricate(tmp_path / "apart", {"fpn": 0.2, "sni": 0.1, "ihp": 0.1}, seeds=(1, 2), without=without)
    results = load_results(folder)
    apart = "sni has no seed in common with fpn and cannot be compared with it."
    assert summary(results, compare(results, None)) == apart
    question = Question("Do both help?", ("sni", "ihp"), "fpn")
    (answer,) = answer_questions(replace(results, study=replace(results.study, questions=(question,))), None)
    assert answer.short == f"ihp has not been measured yet. {apart}"


def test_variants_with_other_limits_are_resampled_with_their_own(tmp_path: Path) -> None:
    """The detector of one variant may return a single object per image."""
    folder = fabricate(tmp_path / "limits", {"fpn": 0.01, "sni": 0.01}, seeds=(1, 2))
    for config in (folder / "cells/sni").glob("seed*/config.yaml"):
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"TEST": {"DETECTIONS_PER_IMAGE": 1}}))
    (found,) = compare(results := load_results(folder), open_test_set(results))
    assert found.images.difference < -20 < found.seeds.mean + 20  # the scores in the files are those of all detections


def test_variants_with_other_work_per_image_are_said_to_differ(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "work", {"fpn": 0.1, "sni": 0.1}, seeds=(1,))
    results = load_results(folder)
    (same, *_) = cost_notes._speed(results)
    assert (
        "and did the same work (cpu, 2 threads, images of 192×320 pixels, 200 proposals, 100 detections, 4 im" in same
    )
    for name, height in (("fpn", 192), ("sni", 384)):
        results.speed["variants"][name] |= {"image_size": [height, 320], "proposals": 50, "detections": 100}
    first, *others = cost_notes._speed(results)
    assert "same work" not in first
    assert (
        "The variants differ in the work per image: fpn images of 192×320 pixels, 50 proposals, 100 detections; "
        "sni images of 384×320 pixels, 50 proposals, 100 detections."
    ) in others


def test_a_question_about_other_variants_has_a_correction_of_its_own(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "asked", {"fpn": 0.1, "sni": 0.1, "ihp": 0.1}, seeds=(1, 2))
    results = load_results(folder)
    found = compare(results, None)
    assert "question" not in " ".join(notes.comparisons(results, found))
    asked = replace(results, study=replace(results.study, questions=(Question("Why?", ("ihp",), "sni"),)))
    assert any("is corrected for the variants that the question names" in s for s in notes.comparisons(asked, found))


def test_the_note_on_features_names_the_seeds_of_their_weights(tmp_path: Path) -> None:
    results = load_results(fabricate(tmp_path / "seeds", {"fpn": 0.1, "sni": 0.1}, seeds=(1,)))
    assert "weights" not in notes.features(results)[0]
    for seeds, words in (
        ({"fpn": 3, "sni": 3}, "those of seed 3."),
        ({"fpn": 3, "sni": 2}, "seed 3 for fpn; seed 2 for"),
    ):
        (note,) = notes.features(replace(results, features={"images": 4, "set": "x", "seeds": seeds}))
        assert f"The weights are those of {words.removeprefix('those of ')}" in note


def test_an_object_on_a_limit_of_size_counts_on_both_sides(tmp_path: Path) -> None:
    test_set = open_test_set(load_results(fabricate(tmp_path / "sizes", {"fpn": 0.2}, seeds=(1,))))
    boxes = [{"bbox": [0, 0, side, side], "bbox_mode": 1, "category_id": 0} for side in (10, 32, 96)]
    test_set.records[:] = [test_set.records[0] | {"annotations": boxes}]
    assert notes.sizes(test_set)[0].endswith("The test set has 2 small, 2 medium and 1 large objects.")


@pytest.mark.parametrize(
    ("silent", "words"),
    [
        (["sni"], "The trainings sni/seed1, sni/seed2 detected nothing, which counts as 0."),
        (["sni/seed2"], "The training sni/seed2 detected nothing, which counts as 0."),
        (["fpn"], "The trainings fpn/seed1, fpn/seed2 detected nothing, which counts as 0."),
        (["fpn", "sni", "ihp"], "The evaluation of the baseline fpn gave no AP, so there is nothing to compare with."),
    ],
)
def test_trainings_that_detect_nothing_count_as_zero(tmp_path: Path, silent: list[str], words: str) -> None:
    folder = fabricate(tmp_path / "three", {"fpn": 0.2, "sni": 0.1, "ihp": 0.1}, seeds=(1, 2))
    for cell in (path.parent for name in silent for path in (folder / "cells").glob(f"{name}/**/result.json")):
        result = json.loads((cell / "result.json").read_text())
        for scores in result["results"].values():
            scores["bbox"] = dict.fromkeys(scores["bbox"])
        (cell / "result.json").write_text(json.dumps(result))
        for predictions in cell.glob("inference/*/coco_instances_results.json"):
            predictions.write_text("[]")
    page = write_report(folder).read_text(encoding="utf-8")
    assert words in page and "A dash beside finished seeds" not in page
    results = load_results(folder)
    for name in silent if len(silent) < 3 else ():
        variant, _, seed = name.partition("/seed")
        scores = results.values(variant, "bbox/AP")
        assert len(scores) == 2 and {scores[int(s)] for s in seed or (1, 2)} == {0.0}
        c = next(c for c in compare(results, open_test_set(results)) if variant in (c.variant, "fpn"))
        assert c.images.difference == pytest.approx(c.seeds.mean, abs=1e-6)  # both count the silent trainings
    if "/" not in silent[0]:
        row = rf"{silent[0]}</th>\s*<td[^>]*>0\.0</td>(?:(?!</tr>).)*>100\.0[^<]*</td>\s*</tr>"
        assert re.search(row, page, re.DOTALL)


def test_many_comparisons_have_resamples_enough_to_find_a_difference(tmp_path: Path) -> None:
    assert [resamples_for(n) for n in (1, 10, 11, 26)] == [1000, 1000, 1100, 2600]
    for n in (1, 10, 11, 26, 300):
        assert holm([2 / (resamples_for(n) + 1)] * n)[0] < 0.05
    variants = {"fpn": 0.2} | {f"v{i}": 0.1 for i in range(12)}
    results = load_results(fabricate(tmp_path / "many", variants, seeds=(1,)))
    test_set = open_test_set(results)
    found = compare(results, test_set)
    assert {len(scores) for scores in test_set.resampled.values()} == {1201}
    assert "with its 1,200 resamples, no p-value is below 0.002." in notes.comparisons(results, found)[0]


def test_the_section_on_tuning_tells_what_the_cells_use(tmp_path: Path) -> None:
    """The study file gives the value of fpn, which was not tuned, and for ihp another value than the best.

    It gives no value of pafpn, as that of merged studies does for a variant without tuning, and does not name esd.
    """
    variants = dict.fromkeys(("fpn", "sni", "ihp", "pafpn", "esd"), 0.1)
    results = load_results(fabricate(tmp_path / "tuned", variants, seeds=(1,)))
    rates = {name: {"SOLVER.BASE_LR": rate} for name, rate in (("fpn", 0.1), ("sni", 0.2), ("ihp", 0.1))}
    rates["pafpn"] = {}
    study = replace(results.study, tune={"SOLVER.BASE_LR": [0.1, 0.2]}, tune_sets=("other",), tuned=rates)
    scores = {f"{name}-BASE_LR={rate}": rate for name in ("sni", "ihp") for rate in (0.1, 0.2)}
    results = replace(results, study=study, tuning=tuple(choose(study, scores)))
    first, given, untuned, _ = notes.tuning(results)
    assert first.startswith("Each of sni and ihp was trained once") and "The value that its cells use is bold." in first
    assert given == "The study file gave the values of fpn, for which no other values were tried."
    assert untuned == "pafpn and esd were not tuned: no values were tried, and the study file gives none."
    bold = {row[0].text: [entry.bold for entry in row[1:]] for row in tuning_table(results).rows}
    assert bold == {"sni": [False, True], "ihp": [True, False]}
    (warning,) = notes.tuning_warnings(results)
    assert warning == (
        "The cells of ihp do not use its best value, BASE_LR=0.2, because TUNED in the study file has BASE_LR=0.1."
    )


def test_the_scores_of_the_tuning_have_the_name_of_its_metric(tmp_path: Path) -> None:
    """VOC's metric has no APs, so that the headline of the study is its second metric."""
    metrics = ["bbox/APs", "bbox/AP"]
    folder = fabricate(tmp_path / "voc", {"fpn": 0.1, "sni": 0.1}, seeds=(1,), voc=True, metrics=metrics)
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content |= {"TUNE": {"SOLVER.BASE_LR": [0.1, 0.2]}, "TUNE_SETS": ["other"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    tuning = tuning_study(Study.load(folder / "study.yaml"))
    tuning.save(folder / "tuning/study.yaml")
    for cell in tuning.cells:
        CellFolder(folder / "tuning", cell).save_result({"results": {"other": {"bbox": {"APs": 10.0, "AP": 50.0}}}})
    results = load_results(folder)
    assert results.headline == "bbox/AP" and {*results.tuning[0].scores.values()} == {10.0}
    assert tuning_table(results).title == "APs on the tuning data"
    (plot,) = tuning_plots(results, looks(results.variants, results.baseline))
    assert plot.title == "APs on the tuning data against SOLVER.BASE_LR"


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("d1", "of the same seed, which see the same images in the same order, so that most of the noise cancels."),
        ("other", "By their fingerprints, these did not all see the same images in the same order, so noise remains."),
        (None, "Not all of them have fingerprints, so it is not known whether they saw the same images in the same"),
    ],
)
def test_the_noise_of_losses_cancels_where_the_fingerprints_say_so(
    tmp_path: Path, order: str | None, words: str
) -> None:
    folder = fabricate(tmp_path / "orders", {"fpn": 0.2, "sni": 0.1}, seeds=(1,))
    path = folder / "cells/sni/seed1/cell.json"
    identity = json.loads(path.read_text())
    identity["fingerprint"] = {"data order": order} if order else {}
    path.write_text(json.dumps(identity))
    (note,) = notes.curves(load_results(folder))
    assert words in note and ("cancels" in note) == (order == "d1")


def test_variants_that_the_study_file_no_longer_has_are_left_out(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "fewer", {"fpn": 0.2, "sni": 0.1, "ihp": 0.1}, seeds=(1,))
    levels = {name: {"p2": {"coarse_share": 0.5}} for name in ("fpn", "sni", "ihp")}
    (folder / "features.json").write_text(json.dumps({"variants": levels}))
    costs, speed = (json.loads((folder / f"{name}.json").read_text()) for name in ("costs", "speed"))
    costs["ihp"]["size"] = [7, 9]
    (folder / "costs.json").write_text(json.dumps(costs))
    speed["variants"]["ihp"]["weights"] = "made up"
    (folder / "speed.json").write_text(json.dumps(speed))
    content = yaml.safe_load((folder / "study.yaml").read_text())
    del content["AXES"]["pyramid"]["ihp"]
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    results = load_results(folder)
    assert [row[0].text for row in feature_table(results).rows] == ["fpn", "sni"]
    words = " ".join(cost_notes.costs(results))
    assert "for one image of 192×320 pixels" in words and "Made-up weights" not in words


@pytest.mark.parametrize("axis", ["seeds", "baseline", "engine", "iterations", "machine"])
def test_an_axis_may_have_the_name_of_another_fact(tmp_path: Path, axis: str) -> None:
    folder = fabricate(tmp_path / "axis", {"fpn": 0.2, "sni": 0.1}, seeds=(1,))
    usual = heading_facts(load_results(folder))
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content["AXES"] = {axis: content["AXES"]["pyramid"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    assert usual[0] == ("pyramid", "fpn, sni")
    assert heading_facts(load_results(folder)) == [(f"axis {axis}", "fpn, sni"), *usual[1:]]


def test_names_are_listed_or_counted() -> None:
    assert listed(["a"]) == "a" and listed(["a", "b"]) == "a and b" and listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdef")) == "6 variants" and listed(list("abcdefg"), "cell") == "7 cells"


def test_many_variants_are_counted_and_those_without_fingerprints_too(tmp_path: Path) -> None:
    variants = {f"variant_{i:02}": 0.1 for i in range(9)}
    folder = fabricate(tmp_path / "nine", variants, seeds=(1,), without=["variant_08/seed1"])
    page = write_report(folder, pictures=False).read_text(encoding="utf-8")
    assert "This study trains 9 variants in the same way with 1 seed each. They are listed under Results." in page
    assert "equal in 8 of 9 variants (the others have no fingerprints): trunk, data order" in page
    assert "pyramid differs: 8 different values in 8 variants" in page
    sentences = re.findall(r"<(?:p|li)[ >].*?</(?:p|li)>", page, re.DOTALL)
    assert all(sum(name in sentence for name in variants) <= 2 for sentence in sentences)


def test_the_report_names_code_that_was_not_the_same(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "mixed", {"fpn": 0.1, "sni": 0.1}, seeds=(1, 2))
    assert "code of IMPORTS" not in [check.what for check in run_checks(load_results(folder))]
    places = [cell.folder for cell in load_results(folder).cells]
    for place in places[1:]:  # the first one is that of an earlier version
        place.save_identity(place.identity() | {"imports": {"own.py": "1a", "mine/gate.py": "2b"}})
    assert run_checks(load_results(folder))[-1] == ("code of IMPORTS", True, "own.py and mine/gate.py")
    places[3].save_identity(places[3].identity() | {"imports": {"own.py": "1a", "mine/gate.py": "3c"}})
    differing = "mine/gate.py 2b: sni/seed1 and fpn/seed2; mine/gate.py 3c: sni/seed2"
    assert run_checks(load_results(folder))[-1] == ("code of IMPORTS", False, differing)
    assert "code of mine/gate.py differs: fpn | sni" in fingerprint_lines(load_results(folder))[1][1]


def _commands(page: Path) -> list[list[str]]:
    text = page.read_text(encoding="utf-8")
    section = text[text.index('id="rerun"') : text.index("<details>", text.index('id="rerun"'))]
    blocks = [html.unescape(block) for block in re.findall(r"<pre[^>]*>(.*?)</pre>", section, re.DOTALL)]
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_commands_of_a_reports_archive_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.yaml").write_text("SOLVER: {MAX_ITER: 77}\n")
    folder = fabricate(tmp_path / "my study", {"fpn": 0.2, "sni": 0.1}, seeds=(1,))
    pack(folder, tmp_path / "my study.study.zip")
    monkeypatch.chdir(tmp_path)
    report, unpack, run = _commands(write_report("my study.study.zip", "report"))
    assert report == ["python", "-m", "sn2fpn.study", "report", "my study.study.zip"]
    assert unpack[:4] == ["python", "-m", "zipfile", "-e"]
    zipfile.main(unpack[3:])
    assert run[:4] == ["python", "-m", "sn2fpn.study", "run"] and len(run) == 5
    study = Study.load(run[4])
    assert study.name == "my study" and study.config(study.variants[0], 1).SOLVER.MAX_ITER == 77


def test_the_commands_of_an_unfinished_archive_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.yaml").touch()
    folder = fabricate(tmp_path / "gap", {"fpn": 0.2, "sni": 0.1}, seeds=(1,), without=["sni/seed1"])
    pack(folder, tmp_path / "there.study.zip")
    monkeypatch.chdir(tmp_path)
    page = write_report("there.study.zip", "report")
    assert "Finished cells are kept" in page.read_text() and "can only be trained from" not in page.read_text()
    _, unpack, run = _commands(page)
    zipfile.main(unpack[3:])
    assert run[3:] == ["run", "output/studies/gap/study.yaml"]  # whose folder is that of `study run` without --output
    states = [cell.status.state for cell in load_results("output/studies/gap").cells]
    assert states == [State.FINISHED, State.WAITING]


def test_an_output_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fabricate(tmp_path / "one", {"fpn": 0.2}, seeds=(1,))
    (tmp_path / "file").touch()
    assert main(["report", str(folder), "--output", str(tmp_path / "file")]) == 2
    assert f"--output: expected a folder, found the file {tmp_path / 'file'}" in capsys.readouterr().err


def test_a_renamed_archive_has_a_folder_or_asks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base.yaml").touch()
    folder = fabricate(tmp_path / "one", {"fpn": 0.2}, seeds=(1,))
    pack(folder, tmp_path / "one.study (1).zip")
    monkeypatch.chdir(tmp_path)
    page = write_report("one.study (1).zip", pictures=False)
    assert page == Path("one.study (1)/report.html") and page.is_file()
    Path("one.study (1).zip").rename("renamed")
    assert main(["report", "renamed"]) == 2
    found = "--output: expected a folder, found the file renamed, whose name the report's folder would have by default"
    assert found in capsys.readouterr().err


def test_the_commands_of_a_folder_continue_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path / "output/studies/usual", {"fpn": 0.2}, seeds=(1,))
    run, _ = _commands(write_report("output/studies/usual"))
    assert run == ["python", "-m", "sn2fpn.study", "run", "output/studies/usual/study.yaml"]
    fabricate(tmp_path / "elsewhere/other", {"fpn": 0.2}, seeds=(1,))
    run, report = _commands(write_report("elsewhere/other"))
    assert run[4:] == ["elsewhere/other/study.yaml", "--output", "elsewhere"]
    assert report[3:] == ["report", "elsewhere/other"]
    run, _ = _commands(write_report(tmp_path / "elsewhere/other"))
    assert run[4:] == [f"{tmp_path}/elsewhere/other/study.yaml", "--output", f"{tmp_path}/elsewhere"]
    monkeypatch.chdir("elsewhere/other")
    run, report = _commands(write_report("."))
    assert run[4:] == ["study.yaml", "--output", ".."] and report[3:] == ["report", "."]
