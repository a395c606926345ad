"""Contributions of coarser levels: they are exact in affine pyramids and complete in every registered pyramid."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sn2fpn.config import get_cfg
from sn2fpn.pyramids import FPN, IHP, PYRAMIDS, SNIFPN, Pyramid
from sn2fpn.structures import ShapeSpec
from sn2fpn.study.features.maps import respond

WIDTH = 8
TRUNK = {f"res{i}": ShapeSpec(channels=c, stride=2**i) for i, c in enumerate((8, 12, 16, 24), start=2)}


def maps(channels: list[int], height: int = 64, width: int = 96) -> dict[str, Tensor]:
    torch.manual_seed(1)
    sizes = {i: (math.ceil(height / 2**i), math.ceil(width / 2**i)) for i in (2, 3, 4, 5)}
    return {f"res{i}": torch.randn(1, c, *sizes[i]) for i, c in enumerate(channels, 2)}


def identity(pyramid: Pyramid) -> Pyramid:
    """Make all convolutions identities plus a bias, which must not count."""
    for module in pyramid.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
            nn.init.constant_(module.bias, 3.0)
    return pyramid.eval()


def nearest(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(
    ("pyramid", "alpha"),
    [(FPN([WIDTH] * 4, WIDTH), 1.0), (SNIFPN([WIDTH] * 4, WIDTH), 0.25), (SNIFPN([WIDTH] * 4, WIDTH, alpha=0.5), 0.5)],
    ids=["fpn", "sni-area", "sni-0.5"],
)
def test_affine_pyramids_are_taken_apart_exactly(pyramid: Pyramid, alpha: float) -> None:
    """The own part is the lateral map, the coarse part alpha times the upsampled sum of all coarser maps."""
    features = maps([WIDTH] * 4)
    responses = respond(identity(pyramid), features)
    c = list(features.values())
    above = alpha * nearest(c[3])
    for level in (2, 1, 0):
        response = responses[level]
        assert torch.allclose(response.own, c[level], atol=1e-5)
        assert torch.allclose(response.coarse, above, atol=1e-5)
        above = alpha * nearest(c[level] + above)
    assert responses[3].coarse is None
    assert torch.allclose(responses[3].own, c[3], atol=1e-5)


def test_without_fusion_nothing_comes_from_above() -> None:
    torch.manual_seed(0)
    for response in respond(IHP([8, 12, 16, 24], WIDTH, depths=(1, 1, 1, 1)).eval(), maps([8, 12, 16, 24]))[:3]:
        assert not response.coarse.any() and response.own.any()


def test_a_nonlinear_pyramid_by_hand() -> None:
    """With p2 = relu(C2 + up(C3)), C2 = 2 and C3 = -1 give 1 together, 2 and 0 alone, hence the shares 3/2 and -1/2."""

    class Rectified(Pyramid):
        def fuse(self, features: list[Tensor]) -> list[Tensor]:
            fine, coarse = features
            return [(fine + nearest(coarse)).relu(), coarse.clone()]

    features = {"res2": torch.full((1, 1, 4, 4), 2.0), "res3": torch.full((1, 1, 2, 2), -1.0)}
    response = respond(Rectified([1, 1], 1), features)[0]
    assert response.own.unique().tolist() == [1.5]
    assert response.coarse.unique().tolist() == [-0.5]


@pytest.mark.parametrize("name", PYRAMIDS)
def test_every_pyramid_is_fully_explained(name: str) -> None:
    """The two parts add up to the output with all maps minus that with none, also for odd sizes; inputs are kept."""
    torch.manual_seed(0)
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.FPN.IN_FEATURES", list(TRUNK)])
    pyramid = PYRAMIDS.get(name)(cfg, TRUNK).eval()
    features = maps([s.channels for s in TRUNK.values()], 67, 93)
    kept = {name: x.clone() for name, x in features.items()}
    with torch.no_grad():
        outputs = pyramid(features)
        rest = pyramid({name: torch.zeros_like(x) for name, x in features.items()})
    trunk = pyramid.bottom_up = nn.Identity()
    responses = respond(pyramid, features)
    assert pyramid.bottom_up is trunk
    assert len(responses) == len(features)
    for response, key in zip(responses, outputs):
        assert torch.equal(response.output, outputs[key])
        total = response.own if response.coarse is None else response.own + response.coarse
        assert torch.allclose(total, outputs[key] - rest[key], atol=1e-5 * float(outputs[key].abs().max()))
    assert all(torch.equal(x, kept[name]) for name, x in features.items())
