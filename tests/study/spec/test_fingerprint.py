"""Fingerprints: they describe what the trainer really starts from, and their comparison says what differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_study import SmallStudy, SmallVariant

from sn2fpn.data.shapes import write_shapes
from sn2fpn.engine import Trainer
from sn2fpn.errors import UserError
from sn2fpn.study.spec import fingerprint as module
from sn2fpn.study.spec.fingerprint import differences, fingerprint


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("fingerprint") / "shapes"
    write_shapes(root, {"train": (8, 1)})
    custom = {
        "NAME": "fingerprint_train",
        "FORMAT": "coco",
        "JSON": str(root / "annotations/instances_train.json"),
        "IMAGES": str(root / "train"),
    }
    return {"DATASETS.CUSTOM": [custom], "DATASETS.TRAIN": ["fingerprint_train"], "DATASETS.TEST": []}


@pytest.fixture(autouse=True)
def _no_determinism() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_it_is_what_the_trainer_starts_from(data: dict[str, Any], tmp_path: Path) -> None:
    study = SmallStudy(
        keys=data | {"OUTPUT_DIR": str(tmp_path), "MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.CONV_DIM": 8}
    )
    cfg = study.config(study.variants[1], 3)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    found = fingerprint(cfg)
    assert torch.equal(torch.get_rng_state(), before)

    seen: list[dict[str, Any]] = []
    random_states = []

    class Watched(Trainer):
        def run_step(self, batches: Any) -> None:
            random_states.append(torch.get_rng_state())
            seen.extend(next(batches))

    trainer = Watched(cfg)
    trainer.recipe.check_data(False)
    trainer.resume_or_load()
    weights = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.hooks = []
    trainer.max_iter = 2
    trainer.train()
    assert found["random numbers"] == module._hash([random_states[0]])
    assert found["data order"] == module._hash(str(x["image_id"]) for x in seen)
    content = [
        a
        for x in seen
        for t in [x["instances"]]
        for a in (x["image"], t.gt_boxes.tensor, t.gt_classes, *(p for o in t.gt_masks.polygons for p in o))
    ]
    assert found["augmentation"] == module._hash(content)
    for part, prefix in (
        ("trunk", "backbone.bottom_up."),
        ("RPN", "proposal_generator."),
        ("mask head", "roi_heads.mask_head."),
    ):
        assert found[part] == module._hash(x for k, v in weights.items() if k.startswith(prefix) for x in (k, v))
    pyramid = ((k, v) for k, v in weights.items() if k.startswith("backbone.") and ".bottom_up." not in k)
    assert found["pyramid"] == module._hash(x for pair in pyramid for x in pair)


def test_loaded_weights_count(data: dict[str, Any], tmp_path: Path) -> None:
    study = SmallStudy(keys=data)
    cfg = study.config(study.variants[0], 3)
    fresh = fingerprint(cfg)
    weights = module.build_model(cfg).state_dict()
    torch.save({"model": {k: v + 1 for k, v in weights.items() if "bottom_up" in k}}, tmp_path / "trunk.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "trunk.pth")
    loaded = fingerprint(cfg)
    assert {k for k in loaded if loaded[k] != fresh.get(k)} == {"trunk", "MODEL.WEIGHTS"}


def test_variants_of_a_seed_differ_where_they_are_meant_to(data: dict[str, Any]) -> None:
    fpn, ihp = SmallStudy().variants
    odd = SmallVariant("long", {"SOLVER.MAX_ITER": 9, "INPUT.RANDOM_FLIP": "vertical"})
    study = SmallStudy(keys=data, variants=(fpn, ihp, odd))
    found = {v.name: fingerprint(study.config(v, 3)) for v in study.variants}
    fair = differences({name: found[name] for name in ("fpn", "ihp")})
    assert fair == [
        "equal in all 2 variants: trunk, RPN, box head, random numbers, training data, test data, data order, "
        "augmentation, configuration except for the pyramid",
        "pyramid differs: fpn | ihp",
    ]
    unfair = differences(found)
    equal = "trunk, RPN, box head, random numbers, training data, test data, data order"
    assert unfair[0] == f"equal in all 3 variants: {equal}"
    assert {
        "augmentation differs: fpn, ihp | long",
        "SOLVER.MAX_ITER differs: 4 in fpn, ihp | 9 in long",
        "INPUT.RANDOM_FLIP differs: default in fpn, ihp | vertical in long",
    } <= set(unfair)
    other_seed = fingerprint(study.config(fpn, 4))
    assert all(other_seed[k] != found["fpn"][k] for k in ("trunk", "RPN", "data order", "random numbers"))


def test_without_a_seed_there_is_none() -> None:
    study = SmallStudy()
    with pytest.raises(UserError, match="SEED is -1"):
        fingerprint(study.config(study.variants[0], -1))


def test_equal_bytes_of_another_type_or_shape_hash_differently() -> None:
    arrays = [np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros((2, 3), np.int32)]
    assert len({module._hash([a]) for a in arrays}) == 3
