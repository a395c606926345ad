"""Tests of the loaders: reproducible streams, resuming, and unchanged errors from workers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sn2fpn.data import DatasetMapper, build_test_loader, build_train_loader, get_dataset_dicts, make_train_loader
from sn2fpn.errors import ArgumentError, UserError


def same(a: list[list[dict]], b: list[list[dict]]) -> bool:
    return len(a) == len(b) and all(
        x["file_name"] == y["file_name"]
        and torch.equal(x["image"], y["image"])
        and torch.equal(x["instances"].gt_boxes.tensor, y["instances"].gt_boxes.tensor)
        for batch_a, batch_b in zip(a, b, strict=True)
        for x, y in zip(batch_a, batch_b, strict=True)
    )


def take(loader: Any, count: int) -> list[list[dict]]:
    return list(itertools.islice(loader, count))


def test_model_inputs(shapes_cfg: Callable, caplog: Any) -> None:
    caplog.set_level("INFO")
    (batch,) = take(build_train_loader(shapes_cfg()), 1)
    assert len(batch) == 4 and "12 images" in caplog.text and "circle" in caplog.text
    for item in batch:
        image, instances = item["image"], item["instances"]
        assert set(item) == {"image", "height", "width", "file_name", "image_id", "instances"}
        assert image.dtype == torch.uint8 and image.shape[0] == 3 and image.is_contiguous()
        assert min(image.shape[1:]) in (64, 96) and instances.image_size == tuple(image.shape[1:])
        assert instances.gt_classes.dtype == torch.int64 and instances.gt_boxes.tensor.dtype == torch.float32
        assert len(instances) and instances.gt_boxes.nonempty().all()


def test_stream_does_not_depend_on_workers_and_resumes(shapes_cfg: Callable) -> None:
    cfg = shapes_cfg("INPUT.CROP.ENABLED", True)
    state = torch.random.get_rng_state()
    alone = take(build_train_loader(cfg), 7)
    assert torch.equal(torch.random.get_rng_state(), state)  # loading does not use the global generator
    workers = shapes_cfg("INPUT.CROP.ENABLED", True, "DATALOADER.NUM_WORKERS", 2)
    assert same(take(build_train_loader(workers), 7), alone)
    assert same(take(build_train_loader(workers, start_iter=4), 3), alone[4:])
    assert not same(take(build_train_loader(cfg, seed=6), 7), alone)
    wide = [[x["width"] > x["height"] for x in batch] for batch in alone]
    assert all(len(set(batch)) == 1 for batch in wide)


EVERYTHING = {
    "INPUT.PHOTOMETRIC.ENABLED": True,
    "INPUT.SCALE_JITTER.ENABLED": True,
    "INPUT.SCALE_JITTER.SIZE": (64, 64),
    "INPUT.CROP.ENABLED": True,
    "INPUT.MOSAIC.PROB": 0.5,
    "INPUT.MOSAIC.SIZE": (90, 90),
    "INPUT.COPY_PASTE.PROB": 0.5,
    "INPUT.MIN_VISIBLE": 0.1,
    "INPUT.FUNCTION": f"{__name__}:darken",
}


def darken(**given: Any) -> dict[str, Any]:
    """Darken an image by a factor from a global generator, as a user's function may do."""
    return given | {"image": (given["image"] * random.random()).astype(np.uint8)}


@pytest.mark.parametrize("masks", [False, True])
def test_all_augmentations_are_the_same_with_workers_and_after_a_resume(shapes_cfg: Callable, masks: bool) -> None:
    """Mosaic and copy-paste draw the same partners, whichever process prepares an image."""
    keys = EVERYTHING | {"MODEL.MASK_ON": masks, "INPUT.MASK_FORMAT": "bitmask"}

    def loader(workers: int, **more: Any) -> Any:
        pairs = [x for pair in keys.items() for x in pair]
        return build_train_loader(shapes_cfg(*pairs, "DATALOADER.NUM_WORKERS", workers), **more)

    state = random.getstate(), torch.random.get_rng_state()
    alone = take(loader(0), 6)
    assert random.getstate() == state[0] and torch.equal(torch.random.get_rng_state(), state[1])
    assert same(take(loader(2), 6), alone)
    assert same(take(loader(2, start_iter=4), 2), alone[4:])
    items = [item for batch in alone for item in batch]
    assert all(item["image"].shape == (3, 64, 64) and item["instances"].has("gt_masks") == masks for item in items)
    assert len({len(item["instances"]) for item in items}) > 3 and not same(take(loader(0, seed=6), 6), alone)


def test_two_processes_see_what_one_sees(shapes_cfg: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = shapes_cfg("DATALOADER.ASPECT_RATIO_GROUPING", False)
    whole = take(build_train_loader(cfg), 5)
    monkeypatch.setattr("sn2fpn.distributed.get_world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("sn2fpn.distributed.get_rank", lambda rank=rank: rank)
        parts.append(take(build_train_loader(cfg), 5))
        assert len(build_test_loader(cfg, "shapes_val")) == (3, 2)[rank]
    assert same([[a, c, b, d] for (a, b), (c, d) in zip(*parts)], whole)
    with pytest.raises(UserError, match=r"IMS_PER_BATCH: expected a multiple of .*\(2\), found 3"):
        build_train_loader(shapes_cfg("SOLVER.IMS_PER_BATCH", 3))


def test_random_seed_is_drawn_and_told(shapes_cfg: Callable) -> None:
    cfg = shapes_cfg("SEED", -1)
    first, second = build_train_loader(cfg), build_train_loader(cfg)
    assert first.seed != second.seed
    assert same(take(build_train_loader(cfg, seed=first.seed), 2), take(first, 2))


def test_test_loader_gives_every_image_once(shapes_cfg: Callable) -> None:
    cfg = shapes_cfg("DATALOADER.NUM_WORKERS", 2)
    loader = build_test_loader(cfg, "shapes_val")
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == 5
        assert [b[0]["image_id"] for b in batches] == [d["image_id"] for d in get_dataset_dicts("shapes_val")]
    assert "instances" not in batches[0][0] and min(batches[0][0]["image"].shape[1:]) == 96
    assert "instances" in next(iter(build_test_loader(cfg, "shapes_val", with_targets=True)))[0]


@pytest.mark.parametrize("key", ["INPUT.CROP.ENABLED", "INPUT.SCALE_JITTER.ENABLED"])
def test_targets_of_an_evaluation_do_not_depend_on_the_augmentation(key: str, shapes_cfg: Callable) -> None:
    """Boxes are computed from cut masks in a training only, or validation losses of two runs could not be compared."""
    with_masks = ("MODEL.MASK_ON", True)
    plain, cut = (
        next(iter(build_test_loader(shapes_cfg(*with_masks, *keys), "shapes_val", with_targets=True)))[0]["instances"]
        for keys in ((), (key, True))
    )
    assert len(plain) and torch.equal(plain.gt_boxes.tensor, cut.gt_boxes.tensor)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_picture_arrives_as_a_plain_user_error(shapes_cfg: Callable, tmp_path: Path, workers: int) -> None:
    dicts = get_dataset_dicts("shapes_train") if shapes_cfg() else []
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(dicts[0]["file_name"]).read_bytes()[:900])
    loader = build_train_loader(
        shapes_cfg("DATALOADER.NUM_WORKERS", workers), dataset_dicts=[{**d, "file_name": str(broken)} for d in dicts]
    )
    with pytest.raises(UserError) as caught:
        next(iter(loader))
    assert str(caught.value).startswith(str(broken)) and "Traceback" not in str(caught.value)


def test_crowds_are_no_targets(coco_set: Any, coco_name: str, shapes_cfg: Callable) -> None:
    coco_set.content["annotations"][0]["iscrowd"] = 1
    coco_set.write()
    cfg = shapes_cfg("DATASETS.TRAIN", (coco_name,), "MODEL.ROI_HEADS.NUM_CLASSES", 2, "SOLVER.IMS_PER_BATCH", 1)
    found = {b[0]["image_id"]: len(b[0]["instances"]) for b in take(build_train_loader(cfg), 6)}
    assert found == {1: 1, 2: 2, 3: 2}


def test_wrong_names_and_class_counts(shapes_cfg: Callable) -> None:
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN: unknown .*'shapes_trian'; did you mean 'shapes_train'"):
        build_train_loader(shapes_cfg("DATASETS.TRAIN", ("shapes_trian",)))
    with pytest.raises(UserError, match=r"NUM_CLASSES: expected 6, .*'shapes_train' .*, found 80"):
        build_train_loader(shapes_cfg("MODEL.ROI_HEADS.NUM_CLASSES", 80))
    with pytest.raises(UserError, match=r"^DATALOADER\.SAMPLER_TRAIN: .*did you mean 'RepeatFactorTrainingSampler'"):
        build_train_loader(shapes_cfg("DATALOADER.SAMPLER_TRAIN", "RepeatFactorSampler"))
    dataset, mapper = get_dataset_dicts("shapes_train"), DatasetMapper([])
    with pytest.raises(ArgumentError, match=r"^sampler: .*did you mean 'RepeatFactorTrainingSampler'"):
        make_train_loader(dataset, mapper, total_batch_size=2, sampler="RepeatFactorSampler")
    with pytest.raises(ArgumentError, match=r"^total_batch_size: expected a multiple .*\(1\), found 0"):
        make_train_loader(dataset, mapper, total_batch_size=0)
    with pytest.raises(ArgumentError, match=r"^names: expected the name of a data set"):
        get_dataset_dicts(())
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN: expected the name of a data set"):
        build_train_loader(shapes_cfg("DATASETS.TRAIN", ()))


def test_repeat_factor_sampler_runs(shapes_cfg: Callable) -> None:
    cfg = shapes_cfg("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 1.0)
    assert len(take(build_train_loader(cfg), 3)) == 3


def test_memory_is_pinned_only_where_there_is_a_gpu(shapes_cfg: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (False, True):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert build_train_loader(shapes_cfg())._loader.pin_memory is there
