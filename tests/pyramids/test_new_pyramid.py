"""A new pyramid needs one file and one registration: proof by adding one to a copy of the package's folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sn2fpn import pyramids
from sn2fpn.config import get_cfg
from sn2fpn.errors import UserError
from sn2fpn.pyramids import FPN, PYRAMIDS, Pyramid, pyramid_from_backbone_name, register_pyramid

LINES = '''
"""Laterals only: P_l = conv1x1(C_l)."""

from sn2fpn.pyramids import Pyramid, register_pyramid


class LateralsOnly(Pyramid):
    def __init__(self, input_shape, out_channels=256):
        super().__init__(input_shape, out_channels)
        self.add_laterals()

    def fuse(self, features):
        return self.laterals(features)


@register_pyramid("laterals_only")
def build(cfg, input_shape):
    return LateralsOnly(input_shape, cfg.MODEL.FPN.OUT_CHANNELS)
'''


@pytest.fixture
def one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A file in the pyramids' folder (the folder is extended instead of written to), found as on start-up."""
    (tmp_path / "laterals_only.py").write_text(LINES)
    monkeypatch.setattr(pyramids, "__path__", [*pyramids.__path__, str(tmp_path)])
    pyramids.import_all()
    yield
    PYRAMIDS.remove("laterals_only")
    sys.modules.pop("sn2fpn.pyramids.laterals_only")


def test_one_file_and_one_registration(one_new_file: None) -> None:
    cfg = get_cfg()
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    pyramid = pyramid_from_backbone_name("build_sn2_laterals_only_backbone")(cfg, FPN([4, 4], 4).output_shape())
    assert isinstance(pyramid, Pyramid)
    shapes = {f"p{i}": torch.randn(1, 4, 64 >> i, 64 >> i) for i in (2, 3, 4)}
    assert [tuple(p.shape) for p in pyramid(shapes).values()] == [(1, 8, 64 >> i, 64 >> i) for i in (2, 3, 4, 5)]
    assert set(pyramid.state_dict()) == {f"fpn_lateral{i}.{p}" for i in (2, 3, 4) for p in ("weight", "bias")}


def test_a_name_is_registered_once_and_forgotten_after_removal() -> None:
    with pytest.raises(KeyError, match="'fpn' is registered already"):
        register_pyramid("fpn")(lambda cfg, shape: FPN(shape))
    with pytest.raises(UserError, match="unknown backbone"):
        pyramid_from_backbone_name("build_sn2_laterals_only_backbone")
