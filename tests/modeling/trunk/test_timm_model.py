"""Test models of timm as trunks: strides, names, freezing, sizes, gradients, weights and mistakes."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from golden_detectron2 import NOTHING, pairs
from sn2fpn.checkpoint import Checkpointer
from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.modeling import build_backbone, build_model
from sn2fpn.modeling.trunk import TimmTrunk
from sn2fpn.study.measure.workload import make_images, model_inputs

timm = pytest.importorskip("timm", reason="timm is not installed (pip install 'sn2fpn[timm]')")

QUICK = Path(__file__).parents[3] / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"
CONVS, WINDOWS, PLAIN = "convnext_atto", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"


def make_cfg(trunk: str, changes: dict[str, Any] | Any = NOTHING) -> Any:
    cfg = get_cfg()
    cfg.merge_from_file(str(QUICK))
    small = {"MODEL.FPN.OUT_CHANNELS": 8, "MODEL.ROI_BOX_HEAD.FC_DIM": 8, "MODEL.BACKBONE.TRUNK": trunk}
    cfg.merge_from_list(pairs(small | dict(changes)))
    return cfg


def test_parts_before_the_first_block_of_a_plain_transformer_can_be_frozen(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        trunk = TimmTrunk(PLAIN, freeze_at=1)
        frozen = {name for name, p in trunk.net.named_parameters() if not p.requires_grad}
        assert frozen == {name for name, _ in trunk.net.named_parameters() if not name.startswith(("blocks", "norm"))}
        assert not caplog.text
        TimmTrunk(PLAIN, freeze_at=2)
    assert "freeze_at 2 freezes all of" in caplog.text


@pytest.mark.parametrize("name", ["vgg11", "hrnet_w18_small", "twins_svt_small"])
def test_models_that_do_not_name_their_stages_can_only_be_trained_whole(name: str) -> None:
    with torch.device("meta"), pytest.raises(ArgumentError, match=r"^freeze_at: timm's .* stages; expected 0, found 2"):
        TimmTrunk(name, freeze_at=2)


@pytest.mark.parametrize("name", [CONVS, WINDOWS, "mobilenetv3_small_050", PLAIN])
def test_four_maps_of_any_image_and_gradients_everywhere(name: str) -> None:
    torch.manual_seed(0)
    trunk = TimmTrunk(name)
    for size in ((64, 96), (96, 160)):
        maps = trunk(torch.randn(1, 3, *size))
        assert list(maps) == list(trunk.output_shape()) == ["res2", "res3", "res4", "res5"]
        for x, shape, stride in zip(maps.values(), trunk.output_shape().values(), (4, 8, 16, 32)):
            assert shape.stride == stride and x.shape == (1, shape.channels, size[0] // stride, size[1] // stride)
    sum((x**2).mean() for x in maps.values()).backward()
    without = [n for n, p in trunk.named_parameters() if p.grad is None]
    assert not without, "training in several processes stops at parameters without a gradient"


def test_a_detector_on_it_trains_and_predicts_under_a_pyramid() -> None:
    model = build_model(make_cfg(f"timm/{CONVS}"))
    inputs = model_inputs(make_images(2, 70, 96), 6)
    sum(model(inputs).values()).backward()
    assert all(p.grad is not None for p in model.backbone.bottom_up.parameters())
    assert len(model.eval()(inputs)) == 2


@pytest.mark.parametrize("freeze_at", range(6))
def test_frozen_stages_follow_the_order_of_the_network(freeze_at: int) -> None:
    trunk = TimmTrunk("resnet18", freeze_at=freeze_at)
    parts = ("conv1", "layer1", "layer2", "layer3", "layer4")
    frozen = {n.split(".")[1].replace("bn1", "conv1") for n, p in trunk.named_parameters() if not p.requires_grad}
    assert frozen == set(parts[:freeze_at])
    trunk.train()
    norms = {n.split(".")[1] for n, m in trunk.named_modules() if isinstance(m, nn.BatchNorm2d) and not m.training}
    assert norms == {p.replace("conv1", "bn1") for p in parts[:freeze_at]}


def test_all_of_a_plain_transformer_can_be_frozen_but_not_the_new_pyramid() -> None:
    trunk = TimmTrunk(PLAIN, freeze_at=5)
    assert not any(p.requires_grad for p in trunk.net.parameters())
    assert all(p.requires_grad for p in trunk.pyramid.parameters())


@pytest.mark.parametrize("name", [CONVS, PLAIN, "resnet18"])  # the names of the last one are also torchvision's
def test_weights_of_timm_fit_by_name(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    full = timm.create_model(name, pretrained=False)
    torch.save(full.state_dict(), tmp_path / "full.pth")
    model = build_backbone(make_cfg(f"timm/{name}"))
    checkpointer = Checkpointer(model)
    checkpointer.load(tmp_path / "full.pth")
    assert checkpointer.report is not None and not checkpointer.report.mismatched
    assert not [n for n in checkpointer.report.missing if n.startswith("bottom_up.net.")]
    for key, value in model.bottom_up.net.state_dict().items():
        assert torch.equal(value, full.state_dict()[key])


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("timm/convnext_tinny", {}, "MODEL.BACKBONE.TRUNK: timm .* has no model 'convnext_tinny'; did you mean 'convnext"),
    ("convnext_tiny", {}, "MODEL.BACKBONE.TRUNK: expected 'resnet' or 'timm/NAME'"),
    (
        "timm/vit_base_patch32_224",
        {},
        r"MODEL.BACKBONE.TRUNK: expected a model with maps of the strides \[4, 8, 16, 32\], but .* has \[32\]",
    ),
    (f"timm/{CONVS}", {"MODEL.ESD.ENABLED": True}, "MODEL.ESD.ENABLED: ESD changes how a ResNet downsamples"),
    (f"timm/{CONVS}", {"MODEL.BACKBONE.FREEZE_AT": 6}, "MODEL.BACKBONE.FREEZE_AT"),
    (f"timm/{CONVS}", {"MODEL.RESNETS.OUT_FEATURES": ["stem"]}, "MODEL.RESNETS.OUT_FEATURES"),
]


@pytest.mark.parametrize(("trunk", "changes", "words"), MISTAKES)
def test_a_key_that_is_wrong_is_named(trunk: str, changes: dict[str, Any], words: str) -> None:
    with torch.device("meta"), pytest.raises(ArgumentError, match=f"^{words}"):
        build_backbone(make_cfg(trunk, changes))


def test_a_model_with_a_fixed_input_size_says_so() -> None:
    with torch.device("meta"):
        trunk = TimmTrunk("mixer_s16_224")
        words = r"images of its own size \(224, 224\), but none of \(height, width\) \(64, 96\): Input height"
        with pytest.raises(UserError, match=words):
            trunk(torch.zeros(1, 3, 64, 96))


def test_another_error_is_not_taken_for_a_wrong_size() -> None:
    with pytest.raises(RuntimeError, match="type"):
        TimmTrunk(CONVS)(torch.zeros(1, 3, 64, 96, dtype=torch.float64))


def test_without_timm_one_sentence_has_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "timm":
            raise ImportError("No module named 'timm'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(UserError, match=r"pip install 'sn2fpn\[timm\]'"):
        build_backbone(make_cfg(f"timm/{CONVS}"))
