"""Tests of augmentation by functions of the user's own: what they receive, what they return, and how they are named."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sn2fpn.config import get_cfg
from sn2fpn.data.mapper import DatasetMapper, build_mapper
from sn2fpn.engine.recipe import CfgRecipe
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.imports import import_files
from sn2fpn.structures import BoxMode

BOXES = [[3, 4, 30, 35], [40, 10, 58, 20], [0, 0, 60, 40]]


@pytest.fixture
def record(tmp_path: Path) -> dict:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    objects = [
        {
            "bbox": [x1, y1, x2, y2],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": i,
            "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
        }
        for i, (x1, y1, x2, y2) in enumerate(BOXES)
    ]
    objects.append({**objects[0], "iscrowd": 1})
    return {"file_name": str(tmp_path / "1.png"), "height": 40, "width": 60, "annotations": objects}


def mirror(image: np.ndarray, bboxes: np.ndarray, indices: np.ndarray, masks: Any = ()) -> dict[str, Any]:
    """Flip an image, and leave out its second object."""
    boxes = bboxes.copy()
    boxes[:, [0, 2]] = image.shape[1] - bboxes[:, [2, 0]]
    kept = indices != 1
    return {
        "image": image[:, ::-1],
        "bboxes": boxes[kept].tolist(),
        "indices": indices[kept].tolist(),
        "masks": [m[:, ::-1] for m in masks],
    }


def _apply(record: dict, function: Any, mask_format: str | None = None, form: str = "RGB", seed: int = 0) -> dict:
    mapper = DatasetMapper([], form, mask_format=mask_format, function=function)
    return mapper(record, np.random.default_rng(seed))


@pytest.mark.parametrize("mask_format", [None, "bitmask"])
@pytest.mark.parametrize("form", ["RGB", "BGR"])
def test_a_function_changes_images_with_their_objects(record: dict, mask_format: str | None, form: str) -> None:
    plain, found = _apply(record, None, mask_format, form), _apply(record, mirror, mask_format, form)
    assert torch.equal(found["image"], plain["image"].flip(2)) and found["image"].is_contiguous()
    instances = found["instances"]
    assert instances.gt_classes.tolist() == [0, 2]
    assert instances.gt_boxes.tensor.tolist() == [[30, 4, 57, 35], [0, 0, 60, 40]]
    assert instances.has("gt_masks") == (mask_format is not None)
    if mask_format:
        assert torch.equal(instances.gt_masks.tensor, plain["instances"].gt_masks.tensor[[0, 2]].flip(2))


def test_functions_get_the_channels_in_rgb_order(record: dict) -> None:
    seen = []

    def look(**given: Any) -> dict[str, Any]:
        seen.append(given["image"])
        return given

    for form in ("RGB", "BGR", "L"):
        assert torch.equal(_apply(record, look, form=form)["image"], _apply(record, None, form=form)["image"])
    pixels = np.asarray(Image.open(record["file_name"]))
    assert np.array_equal(seen[0], pixels) and np.array_equal(seen[1], pixels) and seen[2].shape == (40, 60, 1)


def test_objects_outside_of_the_new_image_are_dropped(record: dict) -> None:
    def crop(image: np.ndarray, bboxes: np.ndarray, indices: np.ndarray, masks: Any = ()) -> dict[str, Any]:
        return {"image": image[:, 40:], "bboxes": bboxes - [40, 0, 40, 0], "indices": indices, "masks": masks}

    found = _apply(record, crop)["instances"]
    assert found.image_size == (40, 20) and found.gt_classes.tolist() == [1, 2]
    assert found.gt_boxes.tensor.tolist() == [[0, 10, 18, 20], [0, 0, 20, 40]]
    with pytest.raises(UserError, match=r"^crop: expected 3 masks of the new image's size \(40, 20\) in return"):
        _apply(record, crop, "bitmask")
    assert len(_apply({**record, "annotations": []}, crop)["instances"]) == 0


def test_random_functions_depend_on_the_sample_only(record: dict) -> None:
    def noise(image: np.ndarray, **others: Any) -> dict[str, Any]:
        value = (random.random() + np.random.random() + float(torch.rand(()))) * 85
        return {"image": np.full_like(image, int(value)), **others}

    first, again, other = (_apply(record, noise, seed=s)["image"] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


class _Seeded:
    """A pipeline with a generator of its own, as those of Albumentations."""

    def set_random_seed(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, image: np.ndarray, **others: Any) -> dict[str, Any]:
        return {"image": np.full_like(image, self.rng.integers(256)), **others}


def test_pipelines_with_a_generator_of_their_own_are_seeded(record: dict) -> None:
    first, again, other = (_apply(record, _Seeded(), seed=s)["image"] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"image": np.zeros((5, 5, 3))}, r"expected an image uint8 \(height, width, 3\) in return, found float64"),
        ({"image": np.zeros((5, 5), np.uint8)}, r"expected an image uint8 .* found uint8 \(5, 5\)"),
        ({"bboxes": [[1, 2, 3]], "indices": [0]}, r"expected \(N, 4\) bboxes and N indices .* \(1, 3\) and \(1,\)"),
        ({"indices": [0]}, r"expected \(N, 4\) bboxes and N indices in return, found the shapes \(3, 4\) and \(1,\)"),
        ({"indices": [0, 1, 3]}, r"expected indices below 3 in return, found \[0, 1, 3\]"),
        ({"bboxes": [[0, 0, np.nan, 1]] * 3}, "expected finite bboxes"),
        ({"bboxes": [[1, 2, 3, 4], [1, 2]], "indices": [0, 1]}, r"expected an array as bboxes in return, found \[\["),
        ({"bboxes": [["a", "b", "c", "d"]], "indices": [0]}, r"expected an array as bboxes in return, found \[\['a'"),
        ({"bboxes": None}, r"expected \(N, 4\) bboxes and N indices in return, found the shapes \(\) and \(3,\)"),
        ({"bboxes": [[]] * 3}, r"expected \(N, 4\) bboxes .* found the shapes \(3, 0\) and \(3,\)"),
        ({"indices": [[0], [1], [2]]}, r"expected \(N, 4\) .* found the shapes \(3, 4\) and \(3, 1\)"),
        ({"image": [[[1, 2, 3]], [[1]]]}, r"expected an array as image in return, found \[\[\[1"),
        ({"masks": 3}, r"expected 3 masks of the new image's size \(40, 60\) in return, found int \("),
        ({"masks": None}, r"expected 3 masks .* in return, found \[\]"),
        ({"masks": [[[1], [1, 2]]] * 3}, r"expected 3 masks .* in return, found list \("),
        ({"masks": np.zeros((3, 5, 5))}, r"expected 3 masks .* in return, found \[\(5, 5\), \(5, 5\), \(5, 5\)\]"),
        ({"masks": np.full((3, 40, 60), "a")}, "expected masks uint8 in return, found <U1"),
        (None, r"expected a dict with image, bboxes and indices in return, found \['image'\]"),
    ],
)
def test_what_a_function_returns_is_checked(record: dict, changes: dict | None, pattern: str) -> None:
    def broken(**given: Any) -> dict[str, Any]:
        return {"image": given["image"]} if changes is None else given | changes

    with pytest.raises(UserError, match=f"^broken: {pattern}"):
        _apply(record, broken, "bitmask")


def test_a_function_that_fails_is_named_with_its_line(record: dict) -> None:
    def fails(**given: Any) -> dict[str, Any]:
        raise KeyError("no")

    with pytest.raises(UserError, match=r"^fails: .*test_user_functions\.py, line \d+: KeyError: 'no'"):
        _apply(record, fails)


@pytest.fixture
def own_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "own_augmentation.py"
    path.write_text("ran = True\n\n\ndef augment(**given):\n    return given | {'image': given['image'] * 0}\n")
    yield path
    sys.modules.pop(path.stem, None)
    sys.path[:] = [p for p in sys.path if p != str(tmp_path)]


def _cfg(name: str) -> Any:
    cfg = get_cfg()
    cfg.merge_from_list(["INPUT.FUNCTION", name])
    return cfg


def test_functions_are_named_by_module_or_file(record: dict, own_file: Path) -> None:
    import_files([own_file])
    for name in ("own_augmentation:augment", f"{own_file}:augment"):
        mapper = build_mapper(_cfg(name), is_train=True)
        assert not mapper(record, np.random.default_rng(0))["image"].any()
    with pytest.raises(
        UserError, match=r"^INPUT\.FUNCTION: own_augmentation has no function 'augmet'; did you mean 'aug"
    ):
        build_mapper(_cfg("own_augmentation:augmet"), is_train=True)
    with pytest.raises(UserError, match=r"^INPUT\.FUNCTION: own_augmentation has no function 'ran'"):
        build_mapper(_cfg("own_augmentation:ran"), is_train=True)


def test_a_configuration_runs_no_code_by_itself(own_file: Path) -> None:
    for name, flag in ((f"{own_file}:augment", str(own_file)), ("own_augmentation:augment", "own_augmentation.py")):
        with pytest.raises(UserError, match=rf"^INPUT\.FUNCTION: .* does not run code; add --import {flag}$"):
            build_mapper(_cfg(name), is_train=True)
    assert "own_augmentation" not in sys.modules
    with pytest.raises(UserError, match=r"^INPUT\.FUNCTION: there is no file .*own_augmentatio\.py; did you mean"):
        build_mapper(_cfg(f"{own_file.parent}/own_augmentatio.py:augment"), is_train=True)
    CfgRecipe(_cfg(f"{own_file}:augment")).check_settings(eval_only=True)  # evaluation does not need the function


@pytest.mark.parametrize("name", ["augment", "a.py:", ":f", "a.py:f()", "a.py:f g"])
def test_names_of_another_form(name: str) -> None:
    with pytest.raises(UserError, match=r"^INPUT\.FUNCTION: expected 'module:function' or 'file\.py:function', found"):
        build_mapper(_cfg(name), is_train=True)


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: DatasetMapper([], mask_format="polygon", function=mirror), "^mask_format: expected 'bitmask' with"),
        (lambda: DatasetMapper([], with_targets=False, function=mirror), "^with_targets: expected True"),
        (lambda: DatasetMapper([], function=3), "^function: expected a function, found 3"),
    ],
)
def test_mappers_that_cannot_work(make: Callable[[], object], pattern: str) -> None:
    with pytest.raises(ArgumentError, match=pattern):
        make()


@pytest.mark.parametrize("mask_format", [None, "bitmask"])
def test_a_pipeline_of_albumentations(record: dict, mask_format: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a server for a newer version
    A = pytest.importorskip("albumentations", reason="Albumentations is not installed")
    params = A.BboxParams(format="pascal_voc", label_fields=["indices"], min_visibility=0.5)
    flip = A.Compose([A.HorizontalFlip(p=1.0)], bbox_params=params)
    found, plain = (_apply(record, f, mask_format) for f in (flip, None))
    assert torch.equal(found["image"], plain["image"].flip(2))
    assert found["instances"].gt_boxes.tensor.round(decimals=3).tolist() == [
        [60 - c, b, 60 - a, d] for a, b, c, d in BOXES
    ]
    crop = A.Compose([A.Crop(25, 0, 60, 40), A.RandomBrightnessContrast(p=1.0)], bbox_params=params)
    instances = _apply(record, crop, mask_format)["instances"]
    assert instances.gt_classes.tolist() == [1, 2] and instances.image_size == (40, 35)  # little is left of the first
    first, again, other = (_apply(record, crop, mask_format, seed=s)["image"] for s in (1, 1, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len(_apply({**record, "annotations": []}, crop, mask_format)["instances"]) == 0
