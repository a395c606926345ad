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
from sn2fpn.modeling import build_model
from sn2fpn.modeling.analysis import analyze

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
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    about = {"MODEL.BACKBONE.NAME": f"build_sn2_{pyramid}_backbone", "MODEL.FPN.OUT_CHANNELS": 32}
    cfg.merge_from_list(pairs(about | keys))
    model = build_model(cfg).eval()
    found, image = analyze(model, (100, 150)), torch.zeros(1, 3, *analyze(model, (100, 150)).size)
    for counter, mine in (
        (FlopCountAnalysis(model.backbone, image), found.flops),
        (ActivationCountAnalysis(model.backbone, image), found.activations),
    ):
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert mine["trunk"] == counter.total("bottom_up") > 0
        assert mine["pyramid"] == counter.total() - counter.total("bottom_up") > 0


class _Deformable(nn.Module):
    def __init__(self, conv: nn.Conv2d, groups: int, with_mask: bool) -> None:
        super().__init__()
        self.groups, self.with_mask = groups, with_mask
        self.weight = nn.Parameter(conv.weight.detach()[:, : conv.in_channels // groups])

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        mask = x.new_ones(n, 9, h, w) if self.with_mask else None
        return deform_conv2d(x, x.new_zeros(n, 18, h, w), self.weight, padding=1, mask=mask)


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
