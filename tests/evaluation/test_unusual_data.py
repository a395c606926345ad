"""Tests of evaluation on data without annotations, with unusual ids and names, and of broken files of results."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as coco_mask

from sn2fpn.data.catalog import DatasetCatalog
from sn2fpn.errors import UserError
from sn2fpn.evaluation import COCOEvaluator, PascalVOCEvaluator, copypaste_lines, results_table

EVALUATORS = [COCOEvaluator, PascalVOCEvaluator]
BOX = [10.0, 10.0, 60.0, 60.0]


@pytest.mark.parametrize("kind", EVALUATORS)
def test_without_annotations_the_predictions_are_the_result(
    kind: type, register: Callable, instances: Callable, tmp_path: Path, caplog: Any
) -> None:
    """Test sets such as coco_2017_test-dev are predicted on, and their evaluation happens elsewhere."""
    name = register({1: [], 2: []}, ["a", "b"])
    for record in DatasetCatalog.get(name):
        del record["annotations"]
    evaluator = kind(name, output_dir=tmp_path)
    evaluator.reset()
    evaluator.process([{"image_id": 2}], [{"instances": instances([(0, 0.9, BOX)])}])
    with caplog.at_level(logging.WARNING):
        results = evaluator.evaluate()
    assert results == {} and results_table(results) == "" and copypaste_lines(results) == []
    assert f"{name!r} has no annotations, so that no score can be computed; the detections are in" in caplog.text
    (written,) = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert written["image_id"] == 2 and written["bbox"] == [10, 10, 50, 50]
    with pytest.raises(UserError, match="2 of 2 images have no 'annotations'"):
        evaluator.judge(evaluator._detections)
    without_folder = kind(name)
    with pytest.raises(UserError, match=r"no annotations.*give output_dir"):
        without_folder.evaluate()


@pytest.mark.parametrize("kind", EVALUATORS)
def test_ids_of_text_and_numbers_together(kind: type, register: Callable, run: Callable) -> None:
    name = register({"b": [(0, BOX)], 7: [(1, BOX)], "7": [(0, BOX)]}, ["a", "b"])
    scores = run(kind(name), {7: [(1, 0.9, BOX)], "b": [(0, 0.8, BOX)], "7": [(0, 0.7, BOX)]})
    assert scores["AP"] == pytest.approx(100) and scores["AP-a"] == pytest.approx(100)


def test_names_with_line_breaks_do_not_break_tables(register: Callable, run: Callable) -> None:
    name = register({1: [(0, BOX)]}, ["one\n| two\x00", "b"])
    evaluator = COCOEvaluator(name)
    scores = run(evaluator, {1: [(0, 0.9, BOX)]})
    assert scores["AP-one | two"] == pytest.approx(100)
    assert "\x00" not in results_table({"bbox": scores})


def test_masks_of_a_function_are_clipped_or_refused(register: Callable, run: Callable) -> None:
    """No reader has checked the masks of a data set that a user's function returns."""
    far = [10.0, 10.0, 1e9, 10.0, 1e9, 1e9, 10.0, 1e9]
    truth = COCOEvaluator(register({1: [(0, BOX, {"segmentation": [far]})]}, ["a"]))._truth
    (annotation,) = truth["annotations"]
    assert max(annotation["segmentation"][0]) == 1000.0
    assert annotation["area"] == pytest.approx(990 * 990)
    broken = register({1: [(0, BOX, {"segmentation": {"size": [9, 9], "counts": "0"}})]}, ["a"])
    with pytest.raises(UserError, match=r"1\.jpg: annotations\[0\]\.segmentation: RLE has size \[9, 9\]"):
        run(COCOEvaluator(broken), {1: [(0, 0.9, BOX)]})


@pytest.fixture
def reader(register: Callable, tmp_path: Path) -> Callable[[Any], list[Any]]:
    """Write results to a file, and read them for a data set of two images."""
    evaluator = COCOEvaluator(register({1: [], 2: []}, ["a", "b"]))

    def read(content: Any) -> list[Any]:
        path = tmp_path / "results.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return evaluator.read_detections(path)

    return read


GOOD = {"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [1, 2, float("nan"), 4]}, r"image 1 has the bbox \[1, 2, nan, 4\], expected four finite numbers"),
        ({"bbox": [1, 2, 10**400, 4]}, "image 1 has the bbox .*, expected four finite numbers"),
        ({"bbox": "box"}, "image 1 has the bbox box"),
        ({"score": None}, "image 1 has the score None, expected a number"),
        ({"score": float("inf")}, "image 1 has the score inf"),
        ({"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}}, "image 1: RLE has size"),
        ({"segmentation": {"size": [1000, 1000], "counts": "~~~"}}, "image 1: RLE counts string is malformed"),
        ({"segmentation": [[1.0, 2.0]]}, "image 1: segmentation has no polygon"),
        ({"segmentation": 5}, "image 1: segmentation is int"),
        ({"image_id": [1]}, "expected a list of COCO results"),
        ({"category_id": 9}, "which has no category 9"),
    ],
)
def test_broken_results_are_one_message(reader: Callable, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        reader([GOOD | change])


@pytest.mark.parametrize("content", ["9" * 5000, "[" * 100_000, "{", "5", '"text"', "[1]", "\ufeff["])
def test_files_that_are_no_results_are_one_message(reader: Callable, content: str) -> None:
    with pytest.raises(UserError, match=r"results\.json: expected a list of COCO results"):
        reader(content)


def test_polygons_in_results_become_run_lengths(reader: Callable) -> None:
    far = [10.0, 10.0, 1e9, 10.0, 1e9, 1e9, 10.0, 1e9]
    found, _ = reader([GOOD | {"segmentation": [far]}])
    assert coco_mask.area(found.masks[0]) == 990 * 990
    assert found.boxes.tolist() == [[1, 2, 4, 6]]
