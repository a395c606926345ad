"""Tests of the model zoo, of configurations with keys of one's own and of `configurable`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sn2fpn.compat import model_zoo
from sn2fpn.compat.config import CfgNode, configurable, get_cfg
from sn2fpn.compat.modeling import FPN, GeneralizedRCNN
from sn2fpn.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "faster_rcnn_R50_fpn.yaml"),
        ("COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", "faster_rcnn_R50_fpn_3x.yaml"),
        ("COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml", "faster_rcnn_R101_fpn_3x.yaml"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "mask_rcnn_R50_fpn.yaml"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml", "mask_rcnn_R50_fpn_3x.yaml"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml", "mask_rcnn_R101_fpn_3x.yaml"),
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", "cascade_mask_rcnn_R50_fpn.yaml"),
        ("Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml", "cascade_mask_rcnn_R50_fpn_3x.yaml"),
        ("PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml", "voc/faster_rcnn_R50_fpn.yaml"),
        ("quick/faster_rcnn_R18_sni_shapes.yaml", "quick/faster_rcnn_R18_sni_shapes.yaml"),
    ],
)
def test_names_of_detectron2_lead_to_files_of_this_package(theirs: str, ours: str) -> None:
    assert Path(model_zoo.get_config_file(theirs)).samefile(CONFIGS / ours)


@pytest.mark.detectron2
def test_the_files_have_the_values_of_detectron2s() -> None:
    zoo = pytest.importorskip("detectron2.model_zoo", reason="Detectron2 is not installed")
    for name in model_zoo._NAMES:
        theirs, ours = zoo.get_config(f"{name}.yaml"), model_zoo.get_config(f"{name}.yaml")
        theirs.MODEL.BACKBONE.NAME = ours.MODEL.BACKBONE.NAME  # which builds the same model
        theirs.TEST.EVAL_PERIOD = ours.TEST.EVAL_PERIOD  # ours are also evaluated on the way
        for group in ("MODEL", "INPUT", "DATASETS", "SOLVER", "TEST"):
            for key, value in theirs[group].items():
                if key in ours[group] and not isinstance(value, dict):
                    assert ours[group][key] == value, f"{name}: {group}.{key}"
        for part in ("BACKBONE", "RESNETS", "RPN", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "ANCHOR_GENERATOR"):
            both = theirs.MODEL[part].keys() & ours.MODEL[part].keys()
            assert {k: ours.MODEL[part][k] for k in both} == {k: theirs.MODEL[part][k] for k in both}, name
        if name in model_zoo._PUBLISHED:
            assert model_zoo.get_checkpoint_url(f"{name}.yaml") == zoo.get_checkpoint_url(f"{name}.yaml")


@pytest.mark.parametrize(
    ("function", "name", "words"),
    [
        (
            "get_config_file",
            "COCO-Detection/faster_rcnn_R_50_C4_3x.yaml",
            "'COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml'",
        ),
        ("get_config_file", "mask_rcnn_R50_snip.yaml", "did you mean 'mask_rcnn_R50_sni.yaml'"),
        ("get_checkpoint_url", "COCO-Detection/faster_rcnn_R_101_FPN_1x.yaml", "faster_rcnn_R_101_FPN_3x'"),
        ("get_checkpoint_url", "mask_rcnn_R50_sni.yaml", "no trained weights for 'mask_rcnn_R50_sni.yaml'"),
    ],
)
def test_other_names_are_answered_with_the_nearest(function: str, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        getattr(model_zoo, function)(name)


def test_a_model_comes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # then the CPU stands in for a GPU
    model = model_zoo.get("faster_rcnn_R50_fpn.yaml")
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert isinstance(model, GeneralizedRCNN) and isinstance(model.backbone, FPN)


def test_assignments_make_keys_and_files_do_not(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.SOLVER.MINE = 0.5
    cfg.MODEL.MINE = CfgNode()
    cfg.MODEL.MINE.WIDTH = 3
    cfg.merge_from_list(["SOLVER.MINE", 0.25])
    assert (cfg.SOLVER.MINE, cfg.clone().MODEL.MINE.WIDTH) == (0.25, 3)
    file = tmp_path / "wrong.yaml"
    file.write_text("SOLVER: {BASE_LRR: 0.1}\n")
    with pytest.raises(UserError, match=r"SOLVER\.BASE_LRR'; did you mean 'SOLVER\.BASE_LR'"):
        cfg.merge_from_file(str(file))


class _Head:
    @configurable
    def __init__(self, classes: int, *, width: int = 8, name: str = "") -> None:
        self.given = classes, width, name

    @classmethod
    def from_config(cls, cfg: CfgNode, name: str = "") -> dict[str, object]:
        return {"classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES, "name": f"from {name}"}


@configurable(from_config=lambda cfg: {"classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES})
def _function(classes: int, width: int = 8) -> tuple[int, int]:
    return classes, width


def test_configurable_takes_a_configuration_or_arguments() -> None:
    cfg = get_cfg()
    assert _Head(3, width=4).given == (3, 4, "")
    assert _Head(cfg, name="x").given == (80, 8, "from x")  # a keyword that from_config has goes to it
    assert _Head(cfg=cfg, width=2, classes=5).given == (5, 2, "from ")  # others replace what it returns
    assert _function(3) == (3, 8) and _function(cfg, width=2) == (80, 2) and callable(_function.from_config)
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        _Head(cfg, depth=1)


def test_configurable_says_what_its_class_lacks() -> None:
    class Without:
        @configurable
        def __init__(self, a: int = 1) -> None: ...

    class OtherName(Without):
        @classmethod
        def from_config(cls, config: CfgNode) -> dict[str, int]:
            return {}

    class NoClassMethod(Without):
        def from_config(self, cfg: CfgNode) -> None: ...

    with pytest.raises(AttributeError, match="Without: @configurable needs the classmethod from_config"):
        Without()
    with pytest.raises(
        TypeError, match=r"from_config: expected the first argument to be called cfg, found \['config'\]"
    ):
        OtherName(get_cfg())
    with pytest.raises(TypeError, match=r"NoClassMethod\.from_config: expected a classmethod"):
        NoClassMethod()
