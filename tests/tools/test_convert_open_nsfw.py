"""The conversion of open_nsfw's trunk: it fits a ResNet-50 of half width and computes what its source does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from convert_open_nsfw import ConvNorm, main, state_dict
from sn2fpn.checkpoint import load_trained
from sn2fpn.config import get_cfg
from sn2fpn.errors import UserError
from sn2fpn.modeling import build_model

ROOT = Path(__file__).parents[2]


def _conv(out: int, into: int, kernel: int, rng: np.random.Generator) -> ConvNorm:
    weight = rng.normal(0, (into * kernel**2) ** -0.5, (out, into, kernel, kernel)).astype(np.float32)
    bias, mean, gain, shift = (rng.normal(1, 0.1, out).astype(np.float32) for _ in range(4))
    return ConvNorm(weight, bias, mean, gain, shift)


@pytest.fixture(scope="module")
def convs() -> list[ConvNorm]:
    """The convolutions of a ResNet-50 of half width; each stage lists the parts of its first block in another order."""
    rng = np.random.default_rng(0)
    found, into = [_conv(64, 3, 7, rng)], 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 32 * 2**stage
        for block in range(blocks):
            parts = [_conv(width, into, 1, rng), _conv(width, width, 3, rng), _conv(4 * width, width, 1, rng)]
            if block == 0:
                parts.insert(stage, _conv(4 * width, into, 1, rng))  # the projection
            found += parts
            into = 4 * width
    return found


def test_the_trunk_is_complete_and_computes_the_same(convs: list[ConvNorm], tmp_path: Path) -> None:
    torch.save(state_dict(convs), tmp_path / "trunk.pth")
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs/photos/Base-Photos.yaml"))
    cfg.MODEL.BACKBONE.NAME = "build_sn2_fpn_backbone"
    model = build_model(cfg)
    report = load_trained(model, str(tmp_path / "trunk.pth"))
    assert report is not None and not report.unused and not report.mismatched
    trunk = model.backbone.bottom_up
    assert report.loaded == {f"backbone.bottom_up.{name}" for name in trunk.state_dict()}
    x = torch.randn(1, 3, 32, 32)
    c = convs[0]
    expected = F.conv2d(x, torch.from_numpy(c.weight), torch.from_numpy(c.bias), 2, 3)
    mean, gain, shift = (torch.from_numpy(v).view(1, -1, 1, 1) for v in (c.mean, c.gain, c.shift))
    torch.testing.assert_close(trunk.stem.conv1(x), (expected - mean) * gain + shift, rtol=1e-4, atol=1e-4)


def test_mistakes(convs: list[ConvNorm], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="expected the 53 convolutions of a ResNet-50, found 52"):
        state_dict(convs[:-1])
    with pytest.raises(UserError, match="expected a bottleneck block"):
        state_dict([convs[0], convs[2], *convs[2:]])
    with pytest.raises(UserError, match="expected a bottleneck block"):
        state_dict([convs[0], *([convs[1]] * 52)])  # none has a 3x3 kernel
    assert main([str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx does not exist" in capsys.readouterr().err
