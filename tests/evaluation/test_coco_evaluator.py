"""Tests of COCO's metric: Detectron2's numbers, small examples and unusual cases."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden_detectron2 import filler
from sn2fpn.config import get_cfg
from sn2fpn.data import register_coco_instances
from sn2fpn.data.catalog import DatasetCatalog
from sn2fpn.errors import UserError
from sn2fpn.evaluation import COCOEvaluator, build_evaluator, results_table
from sn2fpn.structures import BitMasks, Boxes, Instances, masks_to_rle

ONE_BOX = [100.0, 100.0, 150.0, 150.0]  # 50 x 50 pixels, a medium object


@pytest.fixture
def coco_set(evaluation_golden: dict[str, Any]) -> Any:
    register_coco_instances("golden_coco", {}, evaluation_golden["folder"] / "coco" / "instances.json", "nowhere")
    yield "golden_coco"
    DatasetCatalog.remove("golden_coco")


def precisions(scores: dict[str, float]) -> dict[str, float]:
    """Return the scores that Detectron2 gives, too."""
    return {name: score for name, score in scores.items() if not name.startswith("AR")}


def test_golden_scores_and_results_file(coco_set, evaluation_golden, run, tmp_path: Path, capsys) -> None:
    scores = run(COCOEvaluator(coco_set, output_dir=tmp_path), evaluation_golden["coco"])
    for implementation in ("official", "fast"):
        expected = evaluation_golden["expected"]["coco"][implementation]["bbox"]
        assert precisions(scores) == pytest.approx(expected, abs=1e-10)
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    expected = json.loads((evaluation_golden["folder"] / "coco" / "results.json").read_text())
    assert written == [{k: v for k, v in e.items() if k != "segmentation"} for e in expected]
    assert [p.name for p in tmp_path.iterdir()] == ["coco_instances_results.json"]
    assert capsys.readouterr().out == ""


def ellipses(predictions: list, size: tuple[int, int]) -> Instances:
    """Return the detections of the golden numbers: boxes, and for each box the mask of its ellipse."""
    classes, scores, boxes = zip(*predictions) if predictions else ((), (), ())
    masks = [filler.ellipse_bitmask(np.asarray(box, np.float32).tolist(), *size) for box in boxes]
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        scores=torch.tensor(scores, dtype=torch.float32),
        pred_classes=torch.tensor(classes).long(),
        pred_masks=torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), bool)),
    )


def evaluate_ellipses(evaluator: COCOEvaluator, name: str, predictions: dict[int, list]) -> dict[str, Any]:
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        found = ellipses(predictions[record["image_id"]], (record["height"], record["width"]))
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()


def test_golden_mask_scores_and_results_file(coco_set, evaluation_golden, tmp_path: Path) -> None:
    results = evaluate_ellipses(COCOEvaluator(coco_set, output_dir=tmp_path), coco_set, evaluation_golden["coco"])
    for implementation in ("official", "fast"):
        expected = evaluation_golden["expected"]["coco"][implementation]
        assert list(results) == ["bbox", "segm"]
        for task, scores in results.items():
            assert precisions(scores) == pytest.approx(expected[task], abs=1e-10)
    expected = json.loads((evaluation_golden["folder"] / "coco" / "results.json").read_text())
    assert json.loads((tmp_path / "coco_instances_results.json").read_text()) == expected


@pytest.fixture
def mask_set(register) -> Callable[..., str]:
    """Register squares of 40 pixels with the given masks, which are None, polygons or RLE, and with extra keys."""

    def make(*segmentations: Any, **extra: Any) -> str:
        objects = []
        for n, segmentation in enumerate(segmentations):
            keys = extra if segmentation is None else {**extra, "segmentation": segmentation}
            objects.append((0, [100.0 * n, 0.0, 100.0 * n + 40, 40.0], keys))
        return register({1: objects, 2: []}, ["thing"])

    return make


def square(n: int, width: int = 40) -> list[float]:
    x = 100.0 * n
    return [x, 0.0, x + width, 0.0, x + width, 40.0, x, 40.0]


def predict(name: str, *masks: list[float], tasks: Any = None, copies: int = 1) -> dict[str, Any]:
    """Score predictions whose masks are the given polygons and whose boxes are the squares of `mask_set`."""
    bits = BitMasks.from_polygon_masks([[np.array(m)] for m in masks * copies], 1000, 1000).tensor
    boxes = [[100.0 * n, 0.0, 100.0 * n + 40, 40.0] for n in range(len(masks))] * copies
    found = Instances(
        (1000, 1000),
        pred_boxes=Boxes(boxes),
        scores=torch.linspace(0.9, 0.1, len(boxes)),
        pred_classes=torch.zeros(len(boxes)).long(),
        pred_masks=bits,
    )
    evaluator = COCOEvaluator(name, tasks=tasks)
    evaluator.reset()
    evaluator.process([{"image_id": 1}, {"image_id": 2}], [{"instances": found}, {"instances": found[:0]}])
    return evaluator.evaluate()


def test_masks_are_scored_by_their_own_overlap_and_size(mask_set) -> None:
    """The boxes are right. One mask has an IoU of 29/40 = 0.725, which counts at five of ten thresholds."""
    rle = masks_to_rle(BitMasks.from_polygon_masks([[np.array(square(1))]], 1000, 1000).tensor)[0]
    scores = predict(mask_set([square(0)], rle), square(0), square(1, width=29))
    assert scores["bbox"]["AP"] == pytest.approx(100.0)
    assert scores["segm"]["AP50"] == pytest.approx(100.0)
    assert scores["segm"]["AP75"] == pytest.approx(100 * 51 / 101)
    assert scores["segm"]["AP-thing"] == scores["segm"]["AP"] == scores["segm"]["APm"]
    assert math.isnan(scores["segm"]["APs"])


def test_many_masks(mask_set) -> None:
    """The area of more than 255 masks at once overflows in pycocotools."""
    assert predict(mask_set([square(0)]), square(0), copies=300)["segm"]["AP"] == pytest.approx(100.0)


def test_masks_on_a_crowd_do_not_count(register) -> None:
    crowd = masks_to_rle(torch.ones(1, 1000, 1000, dtype=torch.bool))[0]
    name = register(
        {
            1: [
                (0, [0.0, 0.0, 40.0, 40.0], {"segmentation": [square(0)]}),
                (0, [0.0, 0.0, 1000.0, 1000.0], {"segmentation": crowd, "iscrowd": 1}),
            ],
            2: [],
        },
        ["thing"],
    )
    scores = predict(name, square(0), square(1), square(2))
    assert scores["segm"]["AP"] == pytest.approx(100.0)


def test_sets_and_models_without_masks(mask_set, run, instances, caplog) -> None:
    nothing = mask_set(None)
    assert list(predict(nothing, square(0))) == ["bbox"]
    assert "has no masks, so only boxes are evaluated" in caplog.text
    with pytest.raises(UserError, match=r"^tasks: 'segm' needs masks, but data set .* has none"):
        predict(nothing, square(0), tasks=("segm",))
    name = mask_set([square(0)], None)
    scores = predict(name, square(0))
    assert scores["segm"]["AP"] == pytest.approx(100.0) and scores["bbox"]["AP"] == pytest.approx(100 * 51 / 101)
    assert f"1 objects of '{name}' have no mask and do not count for segm" in caplog.text
    assert list(predict(name, square(0), tasks=("segm",))) == ["segm"]
    with pytest.raises(UserError, match=r"^tasks: 'segm' needs masks, but the model predicts none"):
        run(COCOEvaluator(name, tasks=("bbox", "segm")), {1: [(0, 0.5, ONE_BOX)]})
    found_nothing = predict(name)
    assert math.isnan(found_nothing["segm"]["AP"]) and found_nothing["segm"].keys() == found_nothing["bbox"].keys()


def test_without_predictions_nothing_is_a_number_as_in_detectron2(coco_set, evaluation_golden, run, caplog) -> None:
    scores = run(COCOEvaluator(coco_set), {image_id: [] for image_id in evaluation_golden["coco"]})
    expected = evaluation_golden["expected"]["coco"]["no_predictions"]["bbox"]
    assert precisions(scores).keys() == expected.keys()
    assert all(math.isnan(score) for score in scores.values())
    assert "detected nothing in the 8 processed images" in caplog.text
    assert "no gt" not in results_table({"bbox": scores})


def test_ap_by_hand_and_sizes_without_ground_truth(register, run) -> None:
    """The detections are right, wrong and right: precision 1 up to recall 0.5, then 2/3, at 101 recall points."""
    name = register({1: [(0, ONE_BOX), (0, [300.0, 300.0, 340.0, 340.0])]}, ["thing", "absent"])
    scores = run(
        COCOEvaluator(name),
        {1: [(0, 0.9, ONE_BOX), (0, 0.8, [600.0, 600.0, 650.0, 650.0]), (0, 0.7, [300.0, 300.0, 340.0, 340.0])]},
    )
    assert scores["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert scores["AP"] == scores["AP-thing"] == scores["APm"]
    assert all(math.isnan(scores[key]) for key in ("APs", "APl", "AP-absent", "ARs", "ARl"))
    table = results_table({"bbox": scores})
    assert table.count("no gt") == 5
    assert "-1" not in table
    assert "| AP (%)" in table


def test_recall_by_number_of_detections_and_by_size(register, run) -> None:
    """Two of three small objects and the large one are found; the best detection is wrong, the next one is right."""
    small = [[20.0 * i, 0.0, 20.0 * i + 15, 15.0] for i in range(3)]
    large = [100.0, 100.0, 300.0, 300.0]
    name = register({1: [*((0, box) for box in small), (0, large)]}, ["thing"])
    found = [(0, 0.9, [600.0, 600.0, 615.0, 615.0]), (0, 0.8, large), (0, 0.7, small[0]), (0, 0.6, small[1])]
    scores = run(COCOEvaluator(name), {1: found})
    assert {name: scores[name] for name in ("AR1", "AR10", "AR", "ARs", "ARl")} == pytest.approx(
        {"AR1": 0, "AR10": 75, "AR": 75, "ARs": 200 / 3, "ARl": 100}
    )
    assert math.isnan(scores["ARm"])
    scores = run(COCOEvaluator(name, max_dets_per_image=3), {1: found})
    assert (scores["AR1"], scores["AR10"], scores["AR"]) == pytest.approx((0, 50, 50))


def test_iou_thresholds(register, run) -> None:
    """An IoU of 0.72 counts at five of the ten thresholds."""
    name = register({1: [(0, [0.0, 0.0, 100.0, 100.0])]}, ["thing"])
    scores = run(COCOEvaluator(name), {1: [(0, 0.9, [0.0, 0.0, 72.0, 100.0])]})
    assert (scores["AP"], scores["AP50"], scores["AP75"]) == pytest.approx((50.0, 100.0, 0.0))


def test_a_detection_on_a_crowd_does_not_count(register, run) -> None:
    crowd = [500.0, 500.0, 900.0, 900.0]
    name = register({1: [(0, ONE_BOX), (0, crowd, {"iscrowd": 1})]}, ["thing"])
    on_crowd = (0, 0.95, [600.0, 600.0, 700.0, 700.0])
    assert run(COCOEvaluator(name), {1: [on_crowd, (0, 0.9, ONE_BOX)]})["AP"] == pytest.approx(100.0)


def test_max_dets_reaches_the_summary(register, run) -> None:
    """The right box is the 121st by score: it is beyond the limit of 100, and with a limit of 150 AP is 1/121."""
    name = register({1: [(0, ONE_BOX)]}, ["thing"])
    found = [(0, 0.9 - i / 1000, [600.0, 600.0, 650.0, 650.0]) for i in range(120)] + [(0, 0.1, ONE_BOX)]
    scores = {limit: run(COCOEvaluator(name, max_dets_per_image=limit), {1: found}) for limit in (1, 100, 150)}
    assert scores[1]["AP50"] == scores[100]["AP50"] == 0.0
    assert (scores[150]["AP50"], scores[150]["APm"]) == pytest.approx((100 / 121, 100 / 121))


def test_areas_come_from_annotation_then_mask_then_box(register, run) -> None:
    triangle = {"segmentation": [[100.0, 100.0, 140.0, 100.0, 100.0, 140.0]]}  # its area is 800 square pixels
    for extra, size in (({}, "APm"), (triangle, "APs"), ({**triangle, "area": 99.0 * 99.0}, "APl")):
        box = [100.0, 100.0, 140.0, 140.0]
        scores = run(COCOEvaluator(register({1: [(0, box, extra)]}, ["thing"])), {1: [(0, 0.9, box)]})
        assert {key for key in ("APs", "APm", "APl") if not math.isnan(scores[key])} == {size}


def test_voc_tree_with_text_ids_and_difficult_objects(register, run) -> None:
    """Difficult objects count in COCO's metric, so that missing one of two halves the recall."""
    name = register(
        {"000001": [(0, ONE_BOX), (0, [300.0, 300.0, 350.0, 350.0], {"difficult": 1})], "000002": []},
        ["thing"],
        evaluator_type="pascal_voc",
        year=2007,
    )
    scores = run(COCOEvaluator(name), {"000002": [], "000001": [(0, 0.9, ONE_BOX)]})
    assert scores["AP"] == pytest.approx(100 * 51 / 101)


def test_images_count_once_and_the_missing_are_named(register, run, instances, caplog) -> None:
    name = register({i: [(0, ONE_BOX)] for i in (1, 2)}, ["thing"])
    evaluator = COCOEvaluator(name)
    evaluator.reset()
    for image_id in (2, 1, 2):  # the sampler has padded its share with image 2
        evaluator.process([{"image_id": image_id}], [{"instances": instances([(0, 0.5, ONE_BOX)])}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100.0)
    assert not caplog.records
    assert run(evaluator, {1: [(0, 0.5, ONE_BOX)]})["AP"] == pytest.approx(100 * 51 / 101)
    assert "1 of the 2 images" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_data_set_without_any_object_has_no_ap(register, run) -> None:
    scores = run(COCOEvaluator(register({1: [], 2: []}, ["thing"])), {1: [(0, 0.9, ONE_BOX)], 2: []})
    assert all(math.isnan(score) for score in scores.values())


def test_mistakes_are_named(register, run) -> None:
    name = register({1: [(0, ONE_BOX)]}, ["thing"])
    with pytest.raises(UserError, match=r"has class 80, but data set .* has 1 classes; check the model's"):
        run(COCOEvaluator(name), {1: [(80, 0.9, ONE_BOX)]})
    with pytest.raises(UserError, match="predictions for image '7'"):
        run(COCOEvaluator(name), {7: []})
    with pytest.raises(UserError, match=r"^tasks: unknown value 'box'; did you mean 'bbox'"):
        COCOEvaluator(name, tasks=("box",))
    with pytest.raises(
        UserError, match=r"^max_dets_per_image: expected a whole number of at least 1, or -1 .*, found 0"
    ):
        COCOEvaluator(name, max_dets_per_image=0)
    cfg = get_cfg()
    cfg.TEST.EVALUATOR, cfg.TEST.DETECTIONS_PER_IMAGE = "coco", 0
    with pytest.raises(UserError, match=r"^TEST\.DETECTIONS_PER_IMAGE: expected a whole number of at least 1, or -1"):
        build_evaluator(cfg, name)
    with pytest.raises(UserError, match="unknown data set 'evaluation_tset'"):
        COCOEvaluator("evaluation_tset")
