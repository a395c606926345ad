"""Tests of the analysis of a detector: hits, confusions, extremes, and the files that it leaves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_error_split import AWAY, BOOK, CUP, A, B, found, record

from sn2fpn.data import DatasetCatalog, MetadataCatalog
from sn2fpn.evaluation import COCOEvaluator
from sn2fpn.evaluation.analysis import PREDICTIONS, Analysis, analyse, write_analysis
from sn2fpn.evaluation.analysis.__main__ import main
from sn2fpn.evaluation.error_split import judge_image
from sn2fpn.evaluation.hits import HIT, MISSED, best_threshold, confusion_matrix, count_hits, draw_hits

NAMES = ["cup", "book"]


def _analyse(records: list[dict[str, Any]], detections: list[Any]) -> Analysis:
    DatasetCatalog.register("analysed", lambda: records)
    MetadataCatalog.get("analysed").set(thing_classes=NAMES)
    try:
        return analyse(COCOEvaluator("analysed"), detections)
    finally:
        DatasetCatalog.remove("analysed")


def test_hits_of_an_image_by_hand() -> None:
    image, detections = record((A, CUP), (B, CUP)), found((A, CUP, 0.9), (AWAY, CUP, 0.8), (B, CUP, 0.3))
    judged = judge_image(image, detections)
    assert count_hits(judged, 0.5) == (1, 1, 1) and count_hits(judged, 0.5).f1 == pytest.approx(0.5)
    assert count_hits(judged, 0.1) == (2, 1, 0) and count_hits(judged, 0.1).f1 == pytest.approx(0.8)
    assert best_threshold([judged]) == pytest.approx(0.3)
    nothing = judge_image(record(), found())
    assert count_hits(nothing, 0.5).f1 == 1 and best_threshold([nothing]) == 0


def test_the_best_threshold_takes_all_detections_of_a_score() -> None:
    wrong = [(AWAY, CUP, 0.5)] * 10
    judged = judge_image(record((A, CUP), (B, CUP)), found((A, CUP, 0.9), (B, CUP, 0.5), *wrong))
    assert best_threshold([judged]) == pytest.approx(0.9)
    assert count_hits(judged, 0.85).f1 == pytest.approx(2 / 3) and count_hits(judged, 0.5).f1 < 0.3


def test_right_detections_of_two_classes_at_one_place_are_no_confusions() -> None:
    image, detections = record((A, CUP), (A, BOOK)), found((A, BOOK, 0.9), (A, CUP, 0.8))
    matrix = confusion_matrix([image], [detections], [judge_image(image, detections)], 2, 0.5)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_confusions_by_hand() -> None:
    """A cup is taken for a book, and a cup is found. A book is found and a further one seen where nothing is, if low
    scores count."""
    records = [record((A, CUP), (B, BOOK)), record((A, CUP), crowd=B)]
    detections = [
        found((A, BOOK, 0.9), (AWAY, BOOK, 0.2), (B, BOOK, 0.1)),
        found((A, CUP, 0.9), (B, CUP, 0.7)),  # the second one is on a crowd and does not count
    ]
    judged = [judge_image(r, d) for r, d in zip(records, detections)]
    matrices = [confusion_matrix(records, detections, judged, 2, threshold).tolist() for threshold in (0.5, 0.05)]
    assert matrices == [[[1, 1, 0], [0, 0, 1], [0, 0, 0]], [[1, 1, 0], [0, 1, 0], [0, 1, 0]]]


def test_the_worst_and_the_best_images() -> None:
    records = [record((A, CUP)), record((A, CUP), (B, CUP)), record((A, CUP), (B, CUP)), record((A, CUP)), record()]
    right = found((A, CUP, 0.9), (B, CUP, 0.9))
    detections = [found(), found(), right, found((A, CUP, 0.9), (AWAY, CUP, 0.9)), found()]
    analysis = _analyse(records, detections)
    assert analysis.extremes(3) == ([1, 0], [2, 3])  # more missed objects are worse; nothing to find is no extreme
    assert [row["f1"] for row in analysis.summary(records)["images"]] == pytest.approx([0, 0, 2 / 3, 1, 1])


def test_hits_are_green_and_missed_objects_are_red() -> None:
    image = record((A, CUP), (B, CUP))
    detections = found((A, CUP, 0.9), (AWAY, CUP, 0.1))
    drawn = draw_hits(
        np.full((200, 300, 3), 255, np.uint8), 300, image, detections, judge_image(image, detections), 0.5
    )
    colors = {tuple(color) for color in drawn.reshape(-1, 3).tolist()}
    assert {HIT, MISSED} <= colors
    green = np.argwhere((drawn == HIT).all(axis=2))
    assert green.max() <= A[2] + 2 and (AWAY[0] > green[:, 1]).all()


@pytest.fixture
def cups(tmp_path: Path) -> Any:
    """Register two images, one of which lacks its file, and store predictions for both."""
    Image.new("RGB", (300, 200), "gray").save(tmp_path / "0.jpg")
    records = [record((A, CUP), image_id=1), record((B, BOOK), image_id=2)]
    for i, entry in enumerate(records):
        entry["file_name"] = str(tmp_path / f"{i}.jpg")
    DatasetCatalog.register("cups", lambda: records)
    MetadataCatalog.get("cups").set(thing_classes=NAMES)
    folder = tmp_path / "run/inference/cups"
    folder.mkdir(parents=True)
    results = [{"image_id": 1, "category_id": CUP, "bbox": [10, 10, 40, 40], "score": 0.75}]
    (folder / PREDICTIONS).write_text(json.dumps(results))
    yield folder
    DatasetCatalog.remove("cups")


def test_the_files_of_an_analysis(cups: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_analysis(COCOEvaluator("cups"), cups / PREDICTIONS, cups)
    summary = json.loads((cups / "analysis.json").read_text())
    assert (summary["threshold"], summary["AP50"]) == (0.75, 50.0)
    assert summary["confusion"]["matrix"] == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert summary["images"][0] | {"file_name": ""} == {"file_name": "", "f1": 0, "right": 0, "wrong": 0, "missed": 1}
    for name in ("analysis.png", "best_and_worst.png"):
        with Image.open(cups / name) as picture:
            assert picture.width > 300
    assert "no picture of image 2" in caplog.text


def test_the_command(cups: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(cups.parents[1])]) == 0
    said = capsys.readouterr().out
    assert "cups: AP50 is 50.0, with 1 detection and 2 objects. Points of AP50 that each kind of error costs" in said
    assert "background 0.0 (0), missed 50.0 (1). The F1 score is best" in said and (cups / "analysis.png").is_file()
    out = tmp_path / "elsewhere"
    given = ["--data-set", "cups", "--predictions", str(cups / PREDICTIONS), "--output", str(out)]
    assert main(given) == 0 and (out / "cups/analysis.json").is_file()


def test_the_command_on_a_data_set_that_a_file_of_ones_own_registers(
    cups: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "my_cups.py").write_text(
        "from sn2fpn.data import DatasetCatalog, MetadataCatalog\n"
        "DatasetCatalog.register('my_cups', lambda: DatasetCatalog.get('cups'))\n"
        "MetadataCatalog.get('my_cups').set(thing_classes=['cup', 'book'])\n"
    )
    given = ["--data-set", "my_cups", "--predictions", str(cups / PREDICTIONS), "--output", str(tmp_path / "out")]
    try:
        assert main(given) == 2 and "my_cups" in capsys.readouterr().err
        assert main([*given, "--import", str(tmp_path / "my_cups.py")]) == 0
        assert "my_cups: AP50 is 50.0" in capsys.readouterr().out
    finally:
        DatasetCatalog.remove("my_cups")


@pytest.mark.parametrize(("metric", "objects", "missed"), [("auto", 2, 1), ("coco", 2, 1), ("voc", 1, 0)])
def test_difficult_objects_count_as_in_the_metric_of_the_run(
    cups: Path, capsys: pytest.CaptureFixture, metric: str, objects: int, missed: int
) -> None:
    DatasetCatalog.get("cups")[1]["annotations"][0]["difficult"] = 1
    (cups.parents[1] / "config.yaml").write_text(json.dumps({"TEST": {"EVALUATOR": metric}}))
    assert main([str(cups.parents[1])]) == 0
    summary = json.loads((cups / "analysis.json").read_text())
    assert (summary["objects"], summary["errors"]["missed"]) == (objects, missed)
    assert [row["missed"] for row in summary["images"]] == ([1, 0] if missed else [0, 0])
    assert summary["confusion"]["matrix"][1] == [0, 0, missed]
    MetadataCatalog.get("cups").set(evaluator_type="pascal_voc")
    (cups.parents[1] / "config.yaml").unlink()
    assert main([str(cups.parents[1])]) == 0  # the data set's own metric
    assert json.loads((cups / "analysis.json").read_text())["objects"] == 1


@pytest.mark.parametrize(
    ("target", "objects"), [("sn2fpn.evaluation.PascalVOCEvaluator", 1), ("sn2fpn.evaluation.COCOEvaluator", 2)]
)
def test_the_metric_of_a_python_configuration_counts(
    target: str, objects: int, cups: Path, capsys: pytest.CaptureFixture
) -> None:
    DatasetCatalog.get("cups")[1]["annotations"][0]["difficult"] = 1
    of_the_other = "coco" if objects == 1 else "pascal_voc"
    MetadataCatalog.get("cups").set(evaluator_type=of_the_other)
    (cups.parents[1] / "config.yaml").write_text(json.dumps({"dataloader": {"evaluator": {"_target_": target}}}))
    assert main([str(cups.parents[1])]) == 0
    assert json.loads((cups / "analysis.json").read_text())["objects"] == objects
    assert ("differs from that of Pascal VOC" in capsys.readouterr().out) == (objects == 1)


def test_an_evaluation_in_the_folder_of_a_training_has_its_own_data_sets_and_metric(
    cups: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The evaluation was given one more data set, and VOC's metric for it."""
    run = cups.parents[1]
    shutil.copytree(cups, cups.with_name("more_cups"))
    box = {"id": 1, "image_id": 1, "category_id": CUP, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 80, "width": 120}],
        "annotations": [box, box | {"id": 2, "bbox": [60, 10, 30, 30], "ignore": 1}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
    }
    (tmp_path / "more.json").write_text(json.dumps(content))
    Image.new("RGB", (120, 80)).save(tmp_path / "1.png")
    entry = {"NAME": "more_cups", "FORMAT": "coco", "JSON": str(tmp_path / "more.json"), "IMAGES": str(tmp_path)}
    of_evaluation = {"DATASETS": {"CUSTOM": [entry], "TEST": ["more_cups"]}, "TEST": {"EVALUATOR": "voc"}}
    (run / "inference/config.yaml").write_text(json.dumps(of_evaluation))
    of_training = {"DATASETS": {"CUSTOM": [entry | {"JSON": "gone.json"}], "TEST": ["cups"]}}
    (run / "config.yaml").write_text(json.dumps(of_training))
    try:
        assert main([str(run)]) == 0
    finally:
        DatasetCatalog.remove("more_cups")
    said = capsys.readouterr().out
    assert "cups: AP50 is 50.0" in said and "more_cups: AP50 is 100.0" in said
    assert json.loads((cups.with_name("more_cups") / "analysis.json").read_text())["objects"] == 1


def test_the_command_on_a_model_that_detects_nothing(
    cups: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cups / PREDICTIONS).write_text("[]")
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    assert main([str(cups.parents[1])]) == 0
    assert "cups: nothing was detected. The data set has 2 objects, all of which are missed" in capsys.readouterr().out
    summary = json.loads((cups / "analysis.json").read_text())
    assert summary["lost_AP50"]["missed"] == 100 and (summary["detections"], summary["objects"]) == (0, 2)
    _, bars, matrix = drawn[0].axes
    assert matrix.get_title().endswith("(nothing is detected)") and bars.get_xlim() == pytest.approx((0, 105))


def test_the_command_on_data_without_objects(cups: Path, capsys: pytest.CaptureFixture) -> None:
    for entry in DatasetCatalog.get("cups"):
        entry["annotations"] = []
    assert main([str(cups.parents[1])]) == 0
    assert "so there is no AP50 and no detection is right (1 detection)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected either the folder of a run, or --data-set with --predictions"),
        (["RUN", "--data-set", "cupz"], "--data-set cupz: .* has predictions for cups only"),
        (["--predictions", "x.json"], "--predictions: expected --data-set with it"),
        (["nowhere"], "nowhere: there is no such folder"),
        (
            ["RUN/inference"],
            "inference: expected inference/<data set>/coco_instances_results.json.*did you mean .*run?",
        ),
        (["RUN/inference/cups/coco_instances_results.json"], "expected the folder of a run, found a file"),
        (["RUN", "--output", "RUN/export.json"], "--output: expected a folder, found the file .*/export.json"),
        (["--data-set", "cupz", "--predictions", "x.json"], "--data-set: unknown data set 'cupz'; did you mean 'cups'"),
        (
            ["--data-set", "cups", "--predictions", "RUN/export.json"],
            "list of COCO results: found dict; its key 'annot",
        ),
        (["--data-set", "cups", "--predictions", "x.json"], "x.json: file of predictions does not exist"),
    ],
)
def test_mistakes_are_named(arguments: list[str], words: str, cups: Path, capsys: Any) -> None:
    (cups.parents[1] / "export.json").write_text('{"annotations": []}')
    assert main([a.replace("RUN", str(cups.parents[1])) for a in arguments]) == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize("text", ["DATASETS: 3", "a: [", "DATASETS: {CUSTOM: 3}", "3", "DATASETS: {CUSTOM: [3]}"])
def test_a_broken_configuration_of_a_run_is_named(text: str, cups: Path, capsys: pytest.CaptureFixture) -> None:
    config = cups.parents[1] / "config.yaml"
    config.write_text(text)
    assert main([str(cups.parents[1])]) == 2
    assert str(config) in capsys.readouterr().err


def test_the_data_sets_of_a_python_configuration_are_known(cups: Path, capsys: pytest.CaptureFixture) -> None:
    broken = {"NAME": "cups_of_tea", "FORMAT": "coc", "JSON": "x", "IMAGES": "y"}
    (cups.parents[1] / "config.yaml").write_text(json.dumps({"dataloader": {"custom": [broken]}}))
    assert main([str(cups.parents[1])]) == 2
    assert "dataloader.custom (cups_of_tea): unknown FORMAT 'coc'" in capsys.readouterr().err


def test_data_without_annotations_are_not_analysed(cups: Path) -> None:
    for entry in DatasetCatalog.get("cups"):
        del entry["annotations"]
    assert write_analysis(COCOEvaluator("cups"), cups / PREDICTIONS, cups) is None
    assert not (cups / "analysis.json").exists()
    assert main(["--data-set", "cups", "--predictions", str(cups / PREDICTIONS)]) == 2
