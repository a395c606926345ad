"""Tests of detection in tiles, with a detector that finds drawn rectangles unless they are too small or cut off."""

from __future__ import annotations

import doctest
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops import box_iou

from sn2fpn.config import CfgNode
from sn2fpn.data.augmentation import ResizeShortestEdge
from sn2fpn.errors import ArgumentError
from sn2fpn.predict import Predictor, TiledPredictor, tiling
from sn2fpn.predict.tiling import tile_windows
from sn2fpn.structures import Boxes, Instances, masks_to_rle

_SMALLEST = 8
"""The shorter side of what the detector finds, in pixels of the picture that it sees."""


class DrawnDetector(nn.Module):
    """Finds bright rectangles; a rectangle's colour is its class, and its score falls with its visible size."""

    input_format = "BGR"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
        self.roi_heads = SimpleNamespace(nms_thresh=0.5, num_classes=2, max_detections=100)
        self.seen = 0

    def inference(self, inputs: list[dict[str, Any]], do_postprocess: bool) -> list[Instances]:
        assert not do_postprocess
        self.seen += 1
        return [self._find(x["image"].permute(1, 2, 0).numpy()) for x in inputs]

    def _find(self, image: np.ndarray) -> Instances:
        boxes, classes = [], []
        for cls in (0, 1):
            _, _, stats, _ = cv2.connectedComponentsWithStats((image[:, :, cls] > 127).astype(np.uint8))
            for x, y, w, h, _ in stats[1:]:
                if min(w, h) >= _SMALLEST:
                    boxes.append([x, y, x + w, y + h])
                    classes.append(cls)
        tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        area = (tensor[:, 2:] - tensor[:, :2]).prod(1)
        return Instances(
            image.shape[:2],
            pred_boxes=Boxes(tensor),
            scores=0.5 + 0.4 * area / (area + 400),
            pred_classes=torch.tensor(classes, dtype=torch.int64),
            pred_masks=torch.ones(len(tensor), 1, 28, 28),
        )


def predictor() -> Predictor:
    return Predictor(DrawnDetector(), ResizeShortestEdge(300, 400))


def scene(seed: int, size: tuple[int, int] = (900, 1200), cell: int = 75) -> tuple[np.ndarray, torch.Tensor, list[int]]:
    """Draw rectangles of all sizes that keep apart, most of them small, and one that is larger than a tile."""
    rng = np.random.default_rng(seed)
    image = np.zeros((*size, 3), dtype=np.uint8)
    boxes, classes = [[450, 300, 850, 600]], [seed % 2]
    for y, x in itertools.product(range(0, size[0], cell), range(0, size[1], cell)):
        if x + cell > 400 and x < 900 and y + cell > 250 and y < 650:
            continue
        w, h = rng.choice([10, 14, 18, 45], 2, p=[0.3, 0.3, 0.3, 0.1])
        left, top = x + rng.integers(0, cell - w - 14), y + rng.integers(0, cell - h - 14)
        boxes.append([left, top, left + w, top + h])
        classes.append(int(rng.integers(2)))
    for (x1, y1, x2, y2), cls in zip(boxes, classes):
        image[y1:y2, x1:x2, cls] = 255
    return image, torch.tensor(boxes, dtype=torch.float32), classes


def matches(found: Instances, boxes: torch.Tensor, classes: list[int]) -> list[int]:
    """Return for each object how many detections of its class lie on it."""
    same = found.pred_classes[:, None] == torch.tensor(classes)
    return ((box_iou(found.pred_boxes.tensor, boxes) > 0.3) & same).sum(0).tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("tile", "overlap"), [(300, 0.2), (250, 0.3), (333, 0.25)])
def test_small_objects_are_found_and_none_is_doubled(seed: int, tile: int, overlap: float) -> None:
    image, boxes, classes = scene(seed)
    whole = TiledPredictor(predictor(), tile=2000)(image)["instances"]
    tiled = TiledPredictor(predictor(), tile, overlap)(image)["instances"]
    assert sum(map(bool, matches(whole, boxes, classes))) < 0.4 * len(boxes)
    assert matches(tiled, boxes, classes) == [1] * len(boxes)
    assert len(tiled) == len(boxes)  # There are no pieces of objects either.
    assert tiled.scores.tolist() == sorted(tiled.scores.tolist(), reverse=True)
    for i in range(len(tiled)):
        (rows, columns), _ = tiled.pred_masks.window(i)
        edges = torch.tensor([columns.start, rows.start, columns.stop, rows.stop])
        assert (edges - tiled.pred_boxes.tensor[i]).abs().max() <= 1


def test_without_the_whole_picture_large_objects_stay_in_pieces() -> None:
    image, boxes, classes = scene(0)
    tiled = TiledPredictor(predictor(), 300, whole=False)(image)["instances"]
    assert matches(tiled, boxes[1:], classes[1:]) == [1] * (len(boxes) - 1)
    assert len(tiled) > len(boxes)


def test_a_cut_box_stays_if_nothing_else_explains_it() -> None:
    """A weak detection in another tile, one of another class, or one beside it does not remove a cut box."""
    from sn2fpn.predict.tiling import _covered

    boxes = [[80.0, 10, 100, 30], [75, 5, 130, 35], [75, 5, 130, 35], [91, 10, 140, 30], [80, 10, 100, 29.9]]
    scores, classes = [0.8, 0.9, 0.3, 0.9, 0.9], [0, 1, 0, 0, 0]
    found = Instances(
        (200, 200), pred_boxes=Boxes(boxes), scores=torch.tensor(scores), pred_classes=torch.tensor(classes)
    )
    cut, which = torch.tensor([True, False, False, False, True]), torch.tensor([0, 1, 1, 1, 1])
    assert not _covered(found, cut, which).any()
    found.scores[2] = 0.4
    assert _covered(found, cut, which).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((100, 250), 100, 0.2), ((64, 64), 64, 0.5), ((50, 1000), 64, 0.0), ((777, 999), 100, 0.37), ((5, 3), 64, 0.99)],
)
def test_windows_cover_the_picture_and_overlap(size: tuple[int, int], tile: int, overlap: float) -> None:
    windows = tile_windows(size, tile, overlap)
    seen = np.zeros(size, dtype=int)
    for w in windows:
        assert (w.width, w.height) == (min(tile, size[1]), min(tile, size[0]))
        assert 0 <= w.x <= size[1] - w.width and 0 <= w.y <= size[0] - w.height
        seen[w.y : w.y + w.height, w.x : w.x + w.width] += 1
    assert seen.min() == 1 or overlap > 0.5
    assert len(windows) == len(set(windows))
    steps = np.diff(sorted({w.x for w in windows}))
    assert (steps <= round(tile * (1 - overlap))).all()


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0.2), (-5, 0.2), (64, 1.0), (64, -0.1)])
def test_numbers_out_of_range(tile: int, overlap: float) -> None:
    with pytest.raises(ArgumentError, match="^tile" if tile <= 0 else "^overlap"):
        TiledPredictor(predictor(), tile, overlap)


def test_memory_does_not_grow_with_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bitmaps of these masks would take 4.8 GB."""
    image = np.zeros((6000, 8000, 3), dtype=np.uint8)
    for y, x in itertools.product(range(50, 6000, 600), range(50, 8000, 800)):
        image[y : y + 40, x : x + 60, 0] = 255
    allocated = torch.zeros

    def small(*size: int, **kwargs: Any) -> torch.Tensor:
        out = allocated(*size, **kwargs)
        assert out.numel() < 10**6, "a bitmap of the picture"
        return out

    monkeypatch.setattr(torch, "zeros", small)
    found = TiledPredictor(predictor(), 1000, 0.2)(image)["instances"]
    assert len(found) == 100 and sum(r.nbytes for r in found.pred_masks.runs) < 2e5


@pytest.mark.parametrize("masks", [False, True])
def test_a_picture_in_one_tile_gives_what_the_predictor_gives(
    small_cfg: Callable[..., CfgNode], shapes: Path, masks: bool
) -> None:
    from sn2fpn.data import read_image

    image = read_image(shapes / "val/000002.jpg", "BGR")
    plain = Predictor(small_cfg({"MODEL.MASK_ON": masks}))
    expected = plain(image)["instances"]
    found = TiledPredictor(plain, 640)(image)["instances"]
    order = torch.argsort(expected.scores, descending=True, stable=True)
    assert len(found) == len(expected) > 0 and torch.equal(found.scores, expected.scores[order])
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor[order])
    if masks:
        assert masks_to_rle(found.pred_masks) == masks_to_rle(expected.pred_masks[order])


@pytest.mark.parametrize("masks", [False, True])
def test_the_command(
    predict: Callable[..., int], tmp_path: Path, shapes: Path, capsys: pytest.CaptureFixture[str], masks: bool
) -> None:
    large = np.tile(np.asarray(Image.open(shapes / "val/000001.jpg")), (2, 2, 1))
    Image.fromarray(large).save(tmp_path / "large.png")
    keys = {"MODEL.MASK_ON": masks}
    assert predict([tmp_path / "large.png"], keys, score_threshold=0, tile=100, overlap=0.3) == 0
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert len(content["annotations"]) > 20  # more than the model allows for one picture
    assert all(("segmentation" in a) == masks for a in content["annotations"])
    assert all(a["segmentation"]["size"] == list(large.shape[:2]) for a in content["annotations"] if masks)
    assert np.asarray(Image.open(tmp_path / "out/large.png")).shape == large.shape
    assert predict([tmp_path / "large.png"], tile=-1) == 2
    assert "--tile: expected" in capsys.readouterr().err
    assert predict([tmp_path / "large.png"], overlap=0.2, tile=64, soft_nms="linear", sigma=-1) == 2
    assert "--sigma: expected" in capsys.readouterr().err


def test_the_examples_in_the_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])  # They name a shipped configuration.
    result = doctest.testmod(tiling)
    assert result.attempted >= 6 and result.failed == 0
