"""Test the counting of operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from golden_detectron2 import pairs
from sn2fpn.config import get_cfg
from sn2fpn.layers import get_upsample
from sn2fpn.modeling import build_model
from sn2fpn.modeling.analysis import analyze, multiply_adds

CONFIG = Path(__file__).parents[2] / "configs/quick/faster_rcnn_R18_fpn_shapes.yaml"


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")  # fvcore still traces in this way
@pytest.mark.parametrize(
    ("pyramid", "keys"),
    [
        ("sni", {"MODEL.FPN.NORM": "GN", "MODEL.RESNETS.NORM": "BN"}),
        ("bifpn", {}),
        ("gfpn", {"MODEL.FPN.NORM": "BN"}),
        ("pconv", {}),
        ("fpn", {"MODEL.FPN.UPSAMPLE": "carafe"}),
        ("fpn", {"MODEL.FPN.UPSAMPLE": "dysample"}),
        ("fpn", {"MODEL.FPN.UPSAMPLE": "deconv", "MODEL.ESD.ENABLED": True}),
    ],
)
def test_backbones_have_the_counts_of_fvcore(pyramid: str, keys: dict[str, Any]) -> None:
    fvcore = pytest.importorskip("fvcore.nn", reason="compares with fvcore, which is not installed")
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    about = {"MODEL.BACKBONE.NAME": f"build_sn2_{pyramid}_backbone", "MODEL.FPN.OUT_CHANNELS": 32}
    cfg.merge_from_list(pairs(about | keys))
    model = build_model(cfg).eval()
    found, image = analyze(model, (100, 150)), torch.zeros(1, 3, *analyze(model, (100, 150)).size)
    for counter, mine in (
        (fvcore.FlopCountAnalysis(model.backbone, image), found.flops),
        (fvcore.ActivationCountAnalysis(model.backbone, image), found.activations),
    ):
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert mine["trunk"] == counter.total("bottom_up") > 0
        assert mine["pyramid"] == counter.total() - counter.total("bottom_up") > 0


class _Step(nn.Module):
    """The sum of a fine map and an upsampled coarse map."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.upsample = get_upsample(kind, 8)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.upsample.add(fine, coarse)


_MAPS = torch.zeros(1, 8, 10, 12), torch.zeros(1, 8, 5, 6)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")
@pytest.mark.parametrize("kind", ["nearest", "sni:learned", "bilinear", "deconv", "carafe", "dysample"])
def test_the_multiply_adds_of_any_module_are_those_of_fvcore(kind: str) -> None:
    fvcore = pytest.importorskip("fvcore.nn", reason="compares with fvcore, which is not installed")
    counter = fvcore.FlopCountAnalysis(_Step(kind), _MAPS).unsupported_ops_warnings(False)
    assert multiply_adds(_Step(kind), *_MAPS) == counter.total() > 0


def test_multiply_adds_by_hand() -> None:
    """A transposed convolution of 4 x 4 and of stride 2, and an interpolation, which counts one for each value."""
    step = _Step("deconv")
    assert multiply_adds(step, *_MAPS) == 16 * 8**2 * 30
    assert not any(p.is_meta for p in step.parameters())
    assert multiply_adds(_Step("nearest"), *_MAPS) == 8 * 120


class _Deformable(nn.Module):
    def __init__(self, conv: nn.Conv2d, groups: int, with_mask: bool) -> None:
        super().__init__()
        self.groups, self.with_mask = groups, with_mask
        self.weight = nn.Parameter(conv.weight.detach()[:, : conv.in_channels // groups])

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        mask = x.new_ones(n, 9, h, w) if self.with_mask else None
        return deform_conv2d(x, x.new_zeros(n, 18, h, w), self.weight, padding=1, mask=mask)


def test_a_detector_of_four_channels_is_counted() -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    three = analyze(build_model(cfg), (64, 96))
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [100.0] * 4, [1.0] * 4
    four = analyze(build_model(cfg), (64, 96))
    assert four.flops["trunk"] - three.flops["trunk"] == 64 * 49 * 32 * 48  # the first convolution: 7x7, stride 2


def test_a_deformable_convolution_counts_as_a_plain_one() -> None:
    """It takes the place of a pyramid's 3x3 convolution; its flops are output elements times inputs of each."""
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list(pairs({"MODEL.FPN.NORM": "", "MODEL.FPN.OUT_CHANNELS": 16, "MODEL.ROI_BOX_HEAD.FC_DIM": 16}))
    model = build_model(cfg)
    plain = analyze(model, (64, 96))
    model.backbone.fpn_output2 = _Deformable(model.backbone.fpn_output2, 1, with_mask=True)
    deformable = analyze(model, (64, 96))
    assert deformable.flops == plain.flops and deformable.activations == plain.activations
    assert not any("deform" in name for name in deformable.uncounted)
    model.backbone.fpn_output2 = _Deformable(nn.Conv2d(16, 16, 3), 4, with_mask=False)
    grouped = analyze(model, (64, 96))
    of_p2 = 16 * 24 * 16 * 16 * 9
    assert plain.flops["pyramid"] - grouped.flops["pyramid"] == of_p2 * 3 // 4
    assert torch.is_grad_enabled()
