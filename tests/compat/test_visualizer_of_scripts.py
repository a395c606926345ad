"""Tests of the drawing of scripts: what is drawn, in which colours and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sn2fpn.compat.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from sn2fpn.compat.utils.visualizer import ColorMode, Visualizer
from sn2fpn.data.catalog import Metadata
from sn2fpn.visualization import class_color

PLAIN = np.full((60, 80, 3), (40, 90, 140), np.uint8)
NAMES = Metadata("drawn").set(thing_classes=["cat", "dog"])


@pytest.mark.parametrize("mode", list(ColorMode))
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5])
def test_predictions_are_drawn_in_the_colours_of_their_classes(mode: ColorMode, scale: float) -> None:
    image = np.full((240, 320, 3), PLAIN[0, 0], np.uint8)
    masks = torch.zeros(2, 240, 320, dtype=torch.bool)
    masks[0, 40:120, 40:160] = True
    masks[1, 140:220, 80:280] = True
    found = Instances(
        (240, 320),
        pred_boxes=Boxes([[40, 40, 160, 120], [80, 140, 280, 220]]),
        pred_masks=masks,
        pred_classes=torch.tensor([1, 0]),
        scores=torch.tensor([0.9, 0.8]),
    )
    drawn = Visualizer(image, NAMES, scale, mode).draw_instance_predictions(found).get_image()
    assert drawn.shape == (round(240 * scale), round(320 * scale), 3) and drawn.dtype == np.uint8
    half = drawn[: round(130 * scale)], drawn[round(140 * scale) :]
    for part, color in zip(half, (class_color(1), class_color(0))):
        assert (part == color).all(axis=2).any()
    gray = np.full(3, round(float(PLAIN[0, 0] @ [0.299, 0.587, 0.114])))
    expected = gray if mode == ColorMode.IMAGE_BW else PLAIN[0, 0]
    assert np.abs(drawn[-3, 3].astype(int) - expected).max() <= 1  # outside of all masks
    tint = np.rint(0.5 * PLAIN[0, 0] + 0.5 * np.array(class_color(1)))
    assert np.abs(drawn[round(100 * scale), round(100 * scale)] - tint).max() <= 1  # inside, coloured in all modes


def test_colours_of_the_metadata_are_used() -> None:
    own = Metadata("own").set(thing_classes=["cat"], thing_colors=[(1, 2, 250)])
    drawn = Visualizer(PLAIN, own).draw_instance_predictions(
        Instances((60, 80), pred_boxes=Boxes([[20, 30, 60, 50]]), pred_classes=torch.tensor([0]))
    )
    assert tuple(drawn.get_image()[50, 40]) == (1, 2, 250)


def test_an_image_without_objects_stays_as_it_is() -> None:
    empty = Instances((60, 80), pred_boxes=Boxes(torch.empty(0, 4)), scores=torch.empty(0))
    visualizer = Visualizer(PLAIN.astype(np.float64))
    assert np.array_equal(visualizer.draw_instance_predictions(empty).get_image(), PLAIN)
    assert np.array_equal(visualizer.draw_dataset_dict({"annotations": []}).get_image(), PLAIN)
    assert np.array_equal(visualizer.get_output().get_image(), PLAIN)


def test_annotations_are_drawn_with_boxes_of_any_mode_and_their_masks(tmp_path: Path) -> None:
    square = [30.0, 20.0, 50.0, 20.0, 50.0, 40.0, 30.0, 40.0]
    record = {
        "annotations": [
            {"bbox": [30, 20, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "segmentation": [square]}
        ]
    }
    masked = Visualizer(PLAIN, NAMES).draw_dataset_dict(record)
    assert not np.array_equal(masked.get_image()[30, 40], PLAIN[0, 0])  # the tint of the mask
    masked.save(tmp_path / "drawn.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn.png")), masked.get_image())
    del record["annotations"][0]["segmentation"]
    boxed = Visualizer(PLAIN, NAMES).draw_dataset_dict(record).get_image()
    assert np.array_equal(boxed[30, 40], PLAIN[0, 0]) and tuple(boxed[40, 45]) == class_color(1)


def test_masks_of_all_kinds_are_drawn_alike() -> None:
    square = np.array([30.0, 20.0, 50.0, 20.0, 50.0, 40.0, 30.0, 40.0])
    bitmap = np.zeros((60, 80), dtype=bool)
    bitmap[20:40, 30:50] = True
    pictures = [
        Visualizer(PLAIN).overlay_instances(masks=masks, assigned_colors=[(1.0, 0, 0)], alpha=1.0).get_image()
        for masks in ([bitmap], np.array([bitmap]), BitMasks(bitmap[None]), [[square]], PolygonMasks([[square]]))
    ]
    assert tuple(pictures[0][30, 40]) == (255, 0, 0) and np.array_equal(pictures[0][5, 5], PLAIN[0, 0])
    assert all(np.array_equal(pictures[0], picture) for picture in pictures[1:])
    named = Visualizer(PLAIN).draw_binary_mask(bitmap, color="blue", text="here", alpha=1.0).get_image()
    assert tuple(named[30, 40]) == (0, 0, 255)
    assert tuple(Visualizer(PLAIN).draw_box((30, 20, 50, 40), edge_color="r").get_image()[40, 45]) == (255, 0, 0)
