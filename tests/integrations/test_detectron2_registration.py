"""Tests of this package in a Detectron2 project: backbones, keys, data sets and training inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sn2fpn.config import get_cfg as our_get_cfg
from sn2fpn.data import DatasetCatalog as OurCatalog
from sn2fpn.data import build_mapper
from sn2fpn.data.augmentation import Crop, Resize, plan_transforms
from sn2fpn.data.shapes import write_shapes
from sn2fpn.errors import UserError
from sn2fpn.pyramids import PYRAMIDS

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2

from detectron2 import model_zoo  # noqa: E402
from detectron2.config import CfgNode, get_cfg  # noqa: E402
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog  # noqa: E402
from detectron2.data import transforms as T  # noqa: E402
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, build_backbone, build_model  # noqa: E402
from detectron2.modeling.backbone.fpn import LastLevelMaxPool  # noqa: E402

from sn2fpn.integrations.detectron2 import add_sn2fpn_config, register_custom, share_dataset  # noqa: E402

SMALL = [
    "MODEL.DEVICE",
    "cpu",
    "MODEL.WEIGHTS",
    "",
    "MODEL.RESNETS.DEPTH",
    18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS",
    64,
    "MODEL.FPN.OUT_CHANNELS",
    32,
    "MODEL.IHP.DEPTHS",
    (1, 1, 1, 1),
]


def zoo_cfg(yaml: str, *overrides: Any) -> CfgNode:
    cfg = get_cfg()
    add_sn2fpn_config(cfg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg.merge_from_file(model_zoo.get_config_file(yaml))
    cfg.merge_from_list([*SMALL, *overrides])
    return cfg


# ---------------------------------------------------------------- backbones and keys


@pytest.mark.parametrize("name", PYRAMIDS)
def test_two_lines_give_a_project_our_pyramids(name: str) -> None:
    cfg = zoo_cfg("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "MODEL.BACKBONE.NAME", f"build_sn2_{name}_backbone")
    backbone = build_backbone(cfg)
    assert isinstance(backbone, Backbone)
    assert list(backbone.output_shape()) == ["p2", "p3", "p4", "p5", "p6"]
    assert {s.channels for s in backbone.output_shape().values()} == {32}
    assert backbone(torch.rand(1, 3, 128, 64))["p2"].shape == (1, 32, 32, 16)
    model = build_model(cfg).eval()
    with torch.no_grad():
        assert "instances" in model([{"image": torch.rand(3, 70, 90)}])[0]


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "area"), ("area", "area"), ("learned", "learned"), (0.5, 0.5), ("0.25", 0.25)]
)
def test_alpha_may_be_a_word_or_a_number(given: Any, expected: Any, tmp_path: Path) -> None:
    """Both types are accepted, from YAML and from the command line, although yacs knows one type per key."""
    yaml = tmp_path / "c.yaml"
    yaml.write_text("VERSION: 2\n" + ("" if given is None else f"MODEL: {{SNI: {{ALPHA: {given}}}}}\n"))
    for from_file in (True, False):
        cfg = get_cfg()
        add_sn2fpn_config(cfg)
        if from_file:
            cfg.merge_from_file(str(yaml))
        elif given is not None:
            cfg.merge_from_list(["MODEL.SNI.ALPHA", given])
        cfg.merge_from_list(
            [
                *SMALL,
                "MODEL.BACKBONE.NAME",
                "build_sn2_sni_backbone",
                "MODEL.FPN.IN_FEATURES",
                ["res4", "res5"],
                "MODEL.RESNETS.OUT_FEATURES",
                ["res4", "res5"],
            ]
        )
        assert build_backbone(cfg).alpha == expected
        assert CfgNode.load_cfg(cfg.dump()).MODEL.SNI.ALPHA == cfg.MODEL.SNI.ALPHA


def test_forgotten_keys_are_named() -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_sn2_sni_backbone"
    with pytest.raises(UserError, match=r"add_sn2fpn_config\(cfg\)"):
        build_backbone(cfg)


def test_the_esd_trunk_under_detectron2s_own_fpn() -> None:
    cfg = zoo_cfg(
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        "MODEL.BACKBONE.NAME",
        "build_sn2_resnet_backbone",
        "MODEL.ESD.ENABLED",
        True,
    )
    trunk = build_backbone(cfg)
    assert isinstance(trunk, Backbone)
    assert any("esd" in name for name, _ in trunk.named_parameters())
    fpn = FPN(trunk, ["res2", "res3", "res4", "res5"], 16, top_block=LastLevelMaxPool())
    assert fpn(torch.rand(1, 3, 64, 96))["p6"].shape == (1, 16, 1, 2)


def test_detectron2s_own_backbones_stay_its_own() -> None:
    assert BACKBONE_REGISTRY.get("build_resnet_fpn_backbone").__module__.startswith("detectron2")


def test_retinanets_maps_are_detectron2s() -> None:
    """The maps p3 to p7 have the same names in the same order, and the same values."""
    theirs, ours = (
        build_model(
            zoo_cfg(
                "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
                "MODEL.BACKBONE.NAME",
                name,
                "MODEL.RESNETS.NORM",
                "BN",
                "MODEL.BACKBONE.FREEZE_AT",
                0,
            )
        ).eval()
        for name in ("build_retinanet_resnet_fpn_backbone", "build_sn2_fpn_retinanet_backbone")
    )
    assert list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(1, 3, 96, 160)
    their_maps, our_maps = theirs.backbone(images), ours.backbone(images)
    assert list(their_maps) == list(our_maps) == ["p3", "p4", "p5", "p6", "p7"]
    for name, value in their_maps.items():
        torch.testing.assert_close(our_maps[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))
    assert ours.backbone.size_divisibility == theirs.backbone.size_divisibility


# ---------------------------------------------------------------- data


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a data set of 6 images that is in both catalogs."""
    write_shapes(tmp_path / "few", {"train": (6, 1)})
    entry = {
        "NAME": "few",
        "FORMAT": "coco",
        "JSON": str(tmp_path / "few/annotations/instances_train.json"),
        "IMAGES": str(tmp_path / "few/train"),
    }
    register_custom([entry])
    yield "few"
    OurCatalog.remove("few")
    for name in [n for n in DatasetCatalog if n.startswith("few")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_custom_sets_and_slices_are_in_detectron2s_catalogs(shapes: str) -> None:
    share_dataset("few[2:4]")
    whole, part = DatasetCatalog.get("few"), DatasetCatalog.get("few[2:4]")
    assert part == whole[2:4]
    meta = MetadataCatalog.get("few")
    assert meta.thing_classes[0] == "circle" and meta.evaluator_type == "coco"
    for name in ("few", "few[2:4]"):  # Detectron2 would evaluate what the file holds, and not what was read
        assert MetadataCatalog.get(name).get("json_file") is None
    assert MetadataCatalog.get("few[2:4]").thing_classes == meta.thing_classes


def test_shapes_are_registered() -> None:
    assert {"shapes_train", "shapes_val"} <= set(DatasetCatalog)
    assert MetadataCatalog.get("shapes_train").thing_classes[-1] == "cross"


@pytest.mark.parametrize("masks", [None, "polygon", "bitmask"])
def test_same_training_inputs_for_the_same_random_choices(shapes: str, masks: str | None) -> None:
    """For the sizes, flips and crops that our mapper draws, Detectron2's mapper makes the same inputs."""
    cfg = our_get_cfg()
    cfg.merge_from_list(
        [
            "INPUT.MIN_SIZE_TRAIN",
            (120, 150, 260),
            "INPUT.MAX_SIZE_TRAIN",
            300,
            "MODEL.MASK_ON",
            masks is not None,
            "INPUT.MASK_FORMAT",
            masks or "polygon",
            "INPUT.CROP.ENABLED",
            masks is None,
        ]
    )
    mapper = build_mapper(cfg, is_train=True)
    kinds = set()
    for seed, record in enumerate(DatasetCatalog.get(shapes)):
        size = (record["height"], record["width"])
        plan = list(plan_transforms(mapper.augmentations, size, np.random.default_rng(seed)))
        kinds |= {type(t).__name__ for t in plan}
        theirs = DatasetMapper(
            is_train=True,
            augmentations=[_theirs(t) for t in plan],
            image_format="BGR",
            use_instance_mask=masks is not None,
            instance_mask_format=masks or "polygon",
            recompute_boxes=False,
        )
        found, expected = mapper(record, np.random.default_rng(seed)), theirs(record)
        assert torch.equal(found["image"], expected["image"])
        ours, goal = found["instances"], expected["instances"]
        torch.testing.assert_close(ours.gt_boxes.tensor, goal.gt_boxes.tensor, rtol=0, atol=2e-5)
        assert torch.equal(ours.gt_classes, goal.gt_classes)
        if masks == "bitmask":
            assert torch.equal(ours.gt_masks.tensor, goal.gt_masks.tensor)
        if masks == "polygon":
            for a, b in zip(ours.gt_masks.polygons, goal.gt_masks.polygons, strict=True):
                for p, q in zip(a, b, strict=True):
                    np.testing.assert_allclose(p, q, rtol=0, atol=1e-9)
        assert {k: found[k] for k in ("file_name", "height", "width", "image_id")} == {
            k: expected[k] for k in ("file_name", "height", "width", "image_id")
        }
    assert kinds >= {"Resize", "Flip"} | ({"Crop"} if masks is None else set())


def _theirs(transform: Any) -> Any:
    if isinstance(transform, Crop):
        return T.CropTransform(transform.x0, transform.y0, *transform.size[::-1])
    if isinstance(transform, Resize):
        return T.ResizeTransform(*transform.old, *transform.new)
    return T.HFlipTransform(transform.size[1])


def test_the_whole_configuration_of_detectron2_is_read(tmp_path: Path) -> None:
    theirs = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    (tmp_path / "config.yaml").write_text(theirs.dump())
    cfg = our_get_cfg()
    cfg.merge_from_file(str(tmp_path / "config.yaml"))
    assert cfg.SOLVER.MAX_ITER == theirs.SOLVER.MAX_ITER and cfg.MODEL.MASK_ON
    theirs.MODEL.META_ARCHITECTURE = "RetinaNet"
    (tmp_path / "config.yaml").write_text(theirs.dump())
    with pytest.raises(UserError, match="--engine detectron2"):
        our_get_cfg().merge_from_file(str(tmp_path / "config.yaml"))
