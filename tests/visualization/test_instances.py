"""Tests of the drawing of boxes, labels, masks and grids: content, place and size."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sn2fpn.structures import BitMasks, Boxes, Instances, PolygonMasks
from sn2fpn.visualization import (
    MAX_LABELS,
    Sample,
    class_color,
    draw_boxes,
    draw_instances,
    draw_masks,
    draw_shown,
    image_grid,
    predictions_beside_ground_truth,
    scale_instances,
    shown_detections,
)

GREY = 127


def _picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def _changed(image: np.ndarray) -> tuple[int, int, int, int]:
    """Return the corners (x1, y1, x2, y2), both included, of the pixels that are not grey."""
    rows, columns = np.nonzero((image != GREY).any(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_box_lies_on_its_corners_and_the_input_stays() -> None:
    image = _picture(100, 200)
    drawn = draw_boxes(image, [[20.0, 30.0, 120.0, 80.0]], colors=[(255, 0, 0)])
    assert (image == GREY).all()
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert _changed(drawn) == (20, 30, 120, 80)
    assert (drawn[30, 20:121] == (255, 0, 0)).all() and (drawn[30:81, 120] == (255, 0, 0)).all()
    assert (drawn[50, 60] == GREY).all()


@pytest.mark.parametrize("size", [(20, 30), (120, 160), (480, 640), (2000, 3000)])
def test_labels_stay_inside_and_grow_with_the_picture(size: tuple[int, int]) -> None:
    """Boxes touch the corners and cross the border. The background of a label has the colour of its box."""
    height, width = size
    boxes = [
        [-50.0, -50.0, width * 0.3, height * 0.3],
        [width * 0.8, height * 0.9, width + 40.0, height + 40.0],
        [width * 0.9, 0.0, width * 1.0, height * 0.1],
        [0.0, height * 0.95, width * 0.1, height * 1.0],
    ]
    drawn = draw_boxes(_picture(*size), boxes, ["a long class name 0.99"] * 4)
    assert drawn.shape == (height, width, 3)
    blue, box = (0, 0, 255), [width * 0.4, height * 0.5, width * 0.6, height * 0.9]
    labelled = draw_boxes(_picture(*size), [box], ["thing"], [blue])
    if height >= 120:  # the background above the box is high enough to read the label, and not too high
        bar = (labelled[: int(height * 0.5), int(width * 0.41)] == blue).all(axis=1).sum()
        assert max(10, 0.02 * (height * width) ** 0.5) <= bar < 0.2 * height


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    """Four boxes are nearly in the same place, and most of each label is visible."""
    boxes = [[200.0 + 4 * i, 200.0 + 4 * i, 300.0 + 4 * i, 300.0 + 4 * i] for i in range(4)]
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    image = _picture(480, 640)
    alone = [(draw_boxes(image, [b], ["label"], [c]) == c).all(axis=2).sum() for b, c in zip(boxes, colors)]
    drawn = draw_boxes(image, boxes, ["label"] * 4, colors)
    for color, count in zip(colors, alone):
        assert (drawn == color).all(axis=2).sum() > 0.7 * count


def test_class_colors_are_fixed_and_differ() -> None:
    colors = [np.array(class_color(i), dtype=float) for i in range(80)]
    assert class_color(3) == class_color(3) and len({class_color(i) for i in range(80)}) == 80
    near = [np.abs(a - b).max() for a, b in itertools.combinations(colors[:8], 2)]
    assert min(near) > 60
    assert all(0 <= v <= 255 for color in colors for v in color)


def test_degenerate_boxes_and_wrong_input() -> None:
    image = _picture(50, 50)
    assert (draw_boxes(image, np.zeros((0, 4))) == image).all()
    assert (draw_boxes(image, [[np.nan, 1.0, 2.0, 3.0]], ["x"]) == image).all()
    assert _changed(draw_boxes(image, [[30.0, 40.0, 10.0, 20.0]])) == (10, 20, 30, 40)
    assert (draw_boxes(image, [[10.0, 10.0, 10.0, 10.0]]) != GREY).any()
    with pytest.raises(ValueError, match="1 boxes with 2 labels and 1 colours"):
        draw_boxes(image, [[0, 0, 1, 1]], ["a", "b"])
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        draw_boxes(image.astype(np.float32), [[0, 0, 1, 1]])


def test_instances_by_score_and_truth() -> None:
    boxes = Boxes(torch.tensor([[10.0, 10.0, 60.0, 60.0], [100.0, 10.0, 160.0, 60.0]]))
    classes, scores = torch.tensor([0, 1]), torch.tensor([0.9, 0.2])
    found = Instances((100, 200), pred_boxes=boxes, pred_classes=classes, scores=scores)
    truth = Instances((100, 200), gt_boxes=boxes, gt_classes=classes)
    first_only = draw_instances(_picture(100, 200), found, ["a", "b"], score_threshold=0.5)
    assert _changed(first_only)[2] < 100
    both = draw_instances(_picture(100, 200), truth, ["a", "b"])
    for c in (0, 1):
        assert (both == class_color(c)).all(axis=2).any()


def test_masks_are_tinted_within_their_outline() -> None:
    """The small mask is drawn over the large one, and the rest of the image and the input stay grey."""
    masks = torch.zeros(2, 60, 90, dtype=torch.bool)
    masks[0, 20:30, 30:45], masks[1, 10:50, 20:80] = True, True
    image, colors = _picture(60, 90), [(255, 0, 0), (0, 0, 255)]
    drawn = draw_masks(image, masks, colors, opacity=0.5)
    assert (image == GREY).all() and (drawn[~masks.any(0)] == GREY).all()
    assert drawn[40, 50].tolist() == [64, 64, 191] and (drawn[25, 37] == [160, 32, 96]).all()
    assert drawn[20, 35].tolist() == [255, 0, 0] and drawn[10, 60].tolist() == [0, 0, 255]  # outlines
    assert (draw_masks(image, masks[:0]) == image).all()
    assert (draw_masks(image, torch.zeros_like(masks)) == image).all()
    with pytest.raises(ValueError, match=r"masks of shape \(2, 60, 90\) do not fit an image of \(60, 80\)"):
        draw_masks(_picture(60, 80), masks)
    with pytest.raises(ValueError, match="2 masks with 1 colours"):
        draw_masks(image, masks, colors[:1])


def test_instances_of_every_kind_show_their_masks() -> None:
    box = Boxes(torch.tensor([[10.0, 10.0, 70.0, 50.0]]))
    corners = PolygonMasks([[[10.0, 10.0, 70.0, 10.0, 70.0, 50.0, 10.0, 50.0]]])
    bits = BitMasks.from_polygon_masks(corners, 60, 90)
    classes = torch.tensor([1])
    pictures = [
        draw_instances(_picture(60, 90), i, ["a", "b"])
        for i in (
            Instances((60, 90), gt_boxes=box, gt_classes=classes, gt_masks=corners),
            Instances((60, 90), gt_boxes=box, gt_classes=classes, gt_masks=bits),
            Instances((60, 90), pred_boxes=box, pred_classes=classes, pred_masks=bits.tensor, scores=torch.ones(1)),
        )
    ]
    assert all((p[45, 60] != GREY).any() and (p[55, 80] == GREY).all() for p in pictures)
    assert np.array_equal(pictures[0], pictures[1])
    unsure = Instances((60, 90), pred_boxes=box, pred_classes=classes, pred_masks=bits.tensor, scores=torch.zeros(1))
    assert (draw_instances(_picture(60, 90), unsure, ["a", "b"], score_threshold=0.5) == GREY).all()


@pytest.mark.parametrize("size", [(120, 180), (30, 45), (60, 45)])
def test_scaled_instances(size: tuple[int, int]) -> None:
    box = Boxes(torch.tensor([[12.0, 12.0, 72.0, 48.0]]))
    corners = PolygonMasks([[[12.0, 12.0, 72.0, 12.0, 72.0, 48.0, 12.0, 48.0]]])
    truth = Instances((60, 90), gt_boxes=box, gt_classes=torch.tensor([1]), gt_masks=corners)
    scaled = scale_instances(truth, size)
    assert scaled.image_size == scaled.gt_masks.shape[1:] == size
    assert BitMasks(scaled.gt_masks).get_bounding_boxes().tensor.tolist() == scaled.gt_boxes.tensor.tolist()
    assert box.tensor.tolist() == [[12, 12, 72, 48]]
    assert scale_instances(truth[:0], size).gt_masks.shape == (0, *size)


def _crowd(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` boxes (N, 4) of 6x6 pixels in an image of 240x320, and masks (N, 240, 320) that fill them."""
    corners = np.random.default_rng(0).integers(0, (314, 234), (count, 2))
    masks = np.zeros((count, 240, 320), bool)
    for mask, (x, y) in zip(masks, corners):
        mask[y : y + 6, x : x + 6] = True
    return np.concatenate([corners, corners + 6], axis=1).astype(float), masks


def _seconds(draw: Callable[[], np.ndarray]) -> float:
    """Return the time of the fastest of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        draw()
        times.append(time.perf_counter() - start)
    return min(times)


def test_drawing_takes_linear_time() -> None:
    """16 times as many objects take at most about 16 times as long; quadratic drawing would take 256 times."""
    image, labels = _picture(240, 320), ["circle 0.51"] * 6400
    boxes, _ = _crowd(400)
    many_boxes = np.tile(boxes, (16, 1))
    few = _seconds(lambda: draw_boxes(image, boxes, labels[:400]))
    assert _seconds(lambda: draw_boxes(image, many_boxes, labels)) < 60 * few
    _, masks = _crowd(1600)
    few = _seconds(lambda: draw_masks(image, masks[:100]))
    assert _seconds(lambda: draw_masks(image, masks)) < 60 * few


def test_a_crowd_has_no_labels_and_others_have_them_all() -> None:
    image, color = _picture(240, 320), (255, 0, 0)
    boxes, _ = _crowd(MAX_LABELS + 1)

    def painted(count: int, label: str) -> int:
        return int((draw_boxes(image, boxes[:count], [label] * count, [color] * count) == color).all(axis=2).sum())

    assert painted(MAX_LABELS, "thing") > 2 * painted(MAX_LABELS, "")
    assert painted(MAX_LABELS + 1, "thing") == painted(MAX_LABELS + 1, "")


@pytest.mark.parametrize("label", ["two\nlines", "\x1b[31mred\x00", "\udcff", "letters " * 1000, "\u202e"])
def test_labels_of_any_text_are_drawn(label: str) -> None:
    drawn = draw_boxes(_picture(60, 90), [[10.0, 30.0, 70.0, 50.0]], [label])
    assert drawn.shape == (60, 90, 3) and (drawn != GREY).any()


def test_boxes_that_no_picture_can_hold_change_nothing() -> None:
    image, box = _picture(60, 90), [10.0, 30.0, 70.0, 50.0]
    boxes = [[-np.inf, 0.0, np.inf, 5.0], box, [-1e308, -1e308, 1e308, 1e308]]
    drawn = draw_boxes(image, boxes, ["", "thing", ""], [(9, 9, 9)] * 3)
    assert (drawn != draw_boxes(image, [box], ["thing"], [(9, 9, 9)])).sum() <= 3 * 2 * (60 + 90) * 3  # its frame


def _found(scores: list[float]) -> Instances:
    corners = torch.arange(len(scores))[:, None] * 9.0 + torch.tensor([[5.0, 20.0, 12.0, 40.0]])
    classes = torch.arange(len(scores)) % 2
    return Instances((90, 320), pred_boxes=Boxes(corners), pred_classes=classes, scores=torch.tensor(scores))


def test_the_best_few_are_shown_in_gray_where_no_detection_reaches_the_threshold() -> None:
    image = np.full((90, 320, 3), (10, 60, 10), np.uint8)
    shown = shown_detections(_found([0.1, 0.4, 0.2, 0.3, 0.05, 0.35, 0.15, float("nan")]), 0.5)
    assert shown.note == "0 of 8 reach 0.5; best 5 in gray" and shown.reach == 0
    drawn = draw_shown(image, shown, ["a", "b"])
    changed = drawn[(drawn != image).any(axis=2)]
    assert len(changed) > 500 and (changed == changed[:, :1]).all()  # only gray, white and black
    assert (drawn[-4] != image[-4]).any()  # the note at the bottom
    assert shown.instances.scores.tolist() == pytest.approx([0.4, 0.35, 0.3, 0.2, 0.15])


def test_detections_that_reach_the_threshold_are_shown_as_ever() -> None:
    image, found = _picture(90, 320), _found([0.9, 0.5, 0.4])
    shown = shown_detections(found, 0.5)
    assert (len(shown.instances), shown.reach, shown.note) == (2, 2, "")
    assert np.array_equal(draw_shown(image, shown, ["a", "b"]), draw_instances(image, found, ["a", "b"], 0.5))
    nothing = shown_detections(found[:0], 0.5)
    assert (len(nothing.instances), nothing.note) == (0, "")
    assert np.array_equal(draw_shown(image, nothing, ["a", "b"]), image)
    assert shown.scaled((180, 640)).instances.image_size == (180, 640)


def test_classes_without_a_name_have_their_number() -> None:
    box, classes = Boxes(torch.tensor([[10.0, 30.0, 70.0, 50.0]])), torch.tensor([7])
    truth = Instances((60, 90), gt_boxes=box, gt_classes=classes)
    names = [str(i) for i in range(7)]
    assert np.array_equal(
        draw_instances(_picture(60, 90), truth, names), draw_instances(_picture(60, 90), truth, [*names, "class 7"])
    )


def test_grid_keeps_every_picture() -> None:
    sizes = [[(10, 20), (30, 10)], [(5, 40)]]
    pictures = [
        [np.full((h, w, 3), 10 * (r + 2 * c), np.uint8) for c, (h, w) in enumerate(row)] for r, row in enumerate(sizes)
    ]
    grid = image_grid(pictures)
    for r, row in enumerate(sizes):
        for c, (h, w) in enumerate(row):
            assert (grid == 10 * (r + 2 * c)).all(axis=2).sum() == h * w
    titled = image_grid(pictures, [["one", "a title far too long for a picture of ten pixels"], ["three"]])
    assert titled.shape[0] > grid.shape[0] and titled.shape[1] > grid.shape[1]  # columns make room for titles
    cut = [image_grid(pictures, [["one", letter * n], ["three"]]).shape[1] for letter, n in (("i", 900), ("w", 999))]
    assert cut[0] == cut[1] > titled.shape[1] - 60  # up to 320 pixels
    with pytest.raises(ValueError, match="at least one image"):
        image_grid([])


def test_predictions_beside_ground_truth(tmp_path: Path) -> None:
    """Three samples are in two rows of two pairs, and only the PNG file is written."""

    def sample(height: int, width: int, scores: list[float]) -> Sample:
        boxes = Boxes(torch.tensor([[0.0, 0.0, width / 2, height / 2]]))
        return Sample(
            _picture(height, width),
            Instances((height, width), gt_boxes=boxes, gt_classes=torch.tensor([1])),
            Instances(
                (height, width),
                pred_boxes=Boxes(boxes.tensor.repeat(len(scores), 1)),
                pred_classes=torch.zeros(len(scores), dtype=torch.int64),
                scores=torch.tensor(scores),
            ),
            "picture.jpg",
        )

    samples = [sample(40, 60, [0.9, 0.1]), sample(800, 400, []), sample(300, 300, [0.4])]
    path = predictions_beside_ground_truth(samples, tmp_path / "new" / "grid.png", ["a", "b"], size_px=200)
    grid = np.asarray(Image.open(path))
    assert grid.shape[1] >= 200 * 2 + 100 * 2
    assert (grid == class_color(1)).all(axis=2).sum() > 1000  # the ground truth of all samples
    assert (grid == class_color(0)).all(axis=2).any()  # the only prediction above 0.5
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]
