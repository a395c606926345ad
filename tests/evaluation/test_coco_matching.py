"""Tests of the matching of detections with objects against pycocotools' COCOeval, which loops over them one by one."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sn2fpn.evaluation.matching import RECALL_POINTS, SIZES, Found, Objects, rank
from sn2fpn.evaluation.resampling import JudgedDetections

IMAGES, CLASSES, SIDE = 12, 3, 160


def _boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    """Draw boxes with whole numbers, so that many overlaps are equal and some lie on a threshold."""
    start = rng.integers(0, 5, (number, 2)) * 20
    return np.concatenate([start, rng.integers(1, 8, (number, 2)) * 16], axis=1).astype(float)


def _draw(seed: int, most: int, masks: bool) -> tuple[Objects, Found]:
    rng = np.random.default_rng(seed)

    def common(number: int) -> dict[str, Any]:
        boxes = _boxes(rng, number)
        values = {"image": rng.integers(0, IMAGES, number), "label": rng.integers(0, CLASSES - 1, number)}
        return values | {"boxes": boxes, "masks": _rectangles(boxes) if masks else None}

    objects, found = common(int(rng.integers(0, most))), common(int(rng.integers(0, 3 * most)))
    areas = objects["boxes"][:, 2:].prod(axis=1) * rng.choice([0.6, 1.0], len(objects["boxes"]))
    crowd, scores = rng.random(len(areas)) < 0.2, rng.integers(0, 20, len(found["boxes"])) / 20
    return Objects(area=areas, crowd=crowd, **objects), Found(
        area=found["boxes"][:, 2:].prod(axis=1), score=scores, **found
    )


def _rectangles(boxes: np.ndarray) -> np.ndarray:
    out = np.empty(len(boxes), object)
    for i, (x, y, w, h) in enumerate(boxes.astype(int)):
        mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
        mask[y : y + h, x : x + w] = 1
        out[i] = coco_mask.encode(mask)
    return out


def _by_pycocotools(objects: Objects, found: Found, max_dets: int) -> COCOeval:
    def annotations(items: Any, **more: list[Any]) -> list[dict[str, Any]]:
        return [
            {"id": i + 1, "image_id": int(items.image[i]), "category_id": int(items.label[i])}
            | {"bbox": items.boxes[i].tolist(), "area": float(items.area[i])}
            | ({} if items.masks is None else {"segmentation": items.masks[i]})
            | {key: values[i] for key, values in more.items()}
            for i in range(len(items.image))
        ]

    sides = []
    for items in (
        annotations(objects, iscrowd=objects.crowd.astype(int).tolist()),
        annotations(found, iscrowd=[0] * len(found.score), score=found.score.tolist()),
    ):
        coco = COCO()
        images = [{"id": i, "height": SIDE, "width": SIDE} for i in range(IMAGES)]
        coco.dataset = {"images": images, "categories": [{"id": c} for c in range(CLASSES)], "annotations": items}
        coco.createIndex()
        sides.append(coco)
    evaluation = COCOeval(*sides, "bbox" if objects.masks is None else "segm")
    evaluation.params.maxDets = [1, 2, max_dets]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("masks", [False, True])
def test_every_match_is_that_of_pycocotools(masks: bool) -> None:
    matches = 0
    for seed in range(60):
        objects, found = _draw(seed, most=(30, 150)[seed % 2], masks=masks)
        max_dets = (100, 4)[seed % 3 == 0]
        with contextlib.redirect_stdout(io.StringIO()):
            expected = _by_pycocotools(objects, found, max_dets)
        rankings = rank(objects, found, IMAGES, CLASSES, max_dets)
        images = iter(expected.evalImgs)  # by class, area and image
        for c in range(CLASSES):
            for size in SIZES:
                ours = rankings[size][c]
                for i, image in enumerate(next(images) for _ in range(IMAGES)):
                    mine = np.flatnonzero(ours.image == i)
                    if image is None:
                        assert not len(mine) and not ours.objects[i]
                        continue
                    mine = mine[np.argsort(ours.place[mine])]
                    matched, ignored = image["dtMatches"] > 0, image["dtIgnore"].astype(bool)
                    assert np.array_equal(ours.right[:, mine], matched & ~ignored), (seed, c, size, i)
                    assert np.array_equal(~ours.counted[:, mine], ignored), (seed, c, size, i)
                    assert ours.objects[i] == np.count_nonzero(np.asarray(image["gtIgnore"]) == 0)
                    matches += np.count_nonzero(matched)
        judged = JudgedDetections(
            [f"c{c}" for c in range(CLASSES)], rankings, RECALL_POINTS, {"AR1": 1, "AR": max_dets}
        )
        _compare_scores(judged.scores(), expected.eval)
    assert matches > 10_000


def _compare_scores(scores: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    precision, recall = expected["precision"][..., -1], expected["recall"]
    wanted = {f"AP{size}": precision[..., a] for a, size in enumerate(SIZES)}
    wanted |= {f"AR{size}": recall[..., a, -1] for a, size in enumerate(SIZES)}
    wanted |= {"AR1": recall[..., 0, 0], "AP50": precision[0, ..., 0], "AP-c1": precision[:, :, 1, 0]}
    for name, values in wanted.items():
        known = values[values > -1]
        mean = 100 * known.mean() if known.size else np.nan
        assert scores[name][0] == pytest.approx(mean, abs=1e-10, nan_ok=True), name


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, found = _draw(7, most=300, masks=False)
    whole = rank(objects, found, IMAGES, CLASSES, 100)
    monkeypatch.setattr("sn2fpn.evaluation.matching._CHUNK", 100)
    parts = rank(objects, found, IMAGES, CLASSES, 100)
    for size, rankings in whole.items():
        for a, b in zip(rankings, parts[size]):
            assert all(np.array_equal(x, y) for x, y in zip(a, b))
