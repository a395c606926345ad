"""Localisation, coarse share and agreement in cases whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from sn2fpn.study.features.examine import mean_measures
from sn2fpn.study.features.measures import (
    Regions,
    agreement,
    coarse_share,
    cosine_map,
    localisation,
    regions,
    share_map,
)


def everywhere(height: int, width: int) -> Regions:
    whole = torch.ones(height, width, dtype=torch.float64)
    return Regions(torch.zeros_like(whole), whole)


def test_regions_count_picture_pixels_once_and_no_padding() -> None:
    """A 10x14 image has a 3x4 map with stride 4; two boxes overlap, and one of them crosses the border."""
    boxes = torch.tensor([[1.0, 1.0, 6.0, 5.0], [4.0, 2.6, 9.4, 12.0]])
    where = regions(boxes, (10, 14), (3, 4), 4)
    pixels = torch.zeros(12, 16)
    pixels[1:5, 1:6] = 1
    pixels[3:10, 4:9] = 1
    expected = pixels.reshape(3, 4, 4, 4).sum(dim=(1, 3))
    assert torch.equal(where.inside.float(), expected)
    assert float(where.whole.sum()) == 10 * 14
    assert where.whole[:, 3].tolist() == [8, 8, 4] and where.whole[2, 0] == 8


def test_localisation_at_its_corners() -> None:
    where = regions(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), (16, 16), (4, 4), 4)
    mask = (where.inside > 0).float()[None]
    assert localisation(mask, where) == 1
    assert localisation(1 - mask, where) == 0
    assert localisation(torch.ones(3, 4, 4), where) == 0.5
    assert localisation(mask, everywhere(4, 4)) is None


def test_localisation_is_the_probability_that_inside_outshines_outside() -> None:
    """The definition holds pair by pair. Cells that a box cuts count on both sides. The scale does not matter."""
    torch.manual_seed(0)
    where = regions(torch.tensor([[3.0, 2.0, 17.0, 13.0]]), (22, 27), (6, 7), 4)
    features = torch.randn(5, 6, 7).round(decimals=0)  # with ties
    e = features.double().norm(dim=0).flatten()
    wins = (e[:, None] > e[None]).double() + (e[:, None] == e[None]).double() / 2
    a, b = where.inside.flatten(), where.outside.flatten()
    expected = float(a @ wins @ b / (a.sum() * b.sum()))
    assert localisation(features, where) == pytest.approx(expected, abs=1e-12)
    assert localisation(4 * features, where) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


@pytest.mark.parametrize(("factor", "expected"), [(0.0, 0.0), (0.25, 0.2), (1.0, 0.5), (3.0, 0.75)])
def test_coarse_share_of_maps_with_known_norms(factor: float, expected: float) -> None:
    torch.manual_seed(0)
    own = torch.randn(8, 5, 6)
    assert coarse_share(own, factor * own.flip(0), everywhere(5, 6)) == pytest.approx(expected)
    assert torch.allclose(share_map(own, factor * own.flip(0)), torch.tensor(expected, dtype=torch.float64))


def test_coarse_share_leaves_out_padding_and_needs_something() -> None:
    own, coarse = torch.ones(2, 4, 4), torch.ones(2, 4, 4)
    coarse[:, :, 2:] = 100
    assert coarse_share(own, coarse, regions(torch.empty(0, 4), (16, 8), (4, 4), 4)) == pytest.approx(0.5)
    assert coarse_share(0 * own, 0 * coarse, everywhere(4, 4)) is None


def test_agreement_inside_and_outside() -> None:
    """The own map points along x. The coarse map does so inside the box, against x outside, and is 0 in one column."""
    where = regions(torch.tensor([[0.0, 0.0, 8.0, 16.0]]), (16, 16), (4, 4), 4)
    own, coarse = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    own[0] = 5
    coarse[0, :, :2], coarse[0, :, 2] = 0.1, -7
    assert agreement(own, coarse, where.inside) == pytest.approx(1)
    assert agreement(own, coarse, where.outside) == pytest.approx(-1)  # the empty column has no direction
    assert agreement(own, coarse, where.whole) == pytest.approx(1 / 3)
    assert cosine_map(own, coarse)[:, 3].isnan().all()
    assert agreement(own, 0 * coarse, where.whole) is None
    diagonal = own + torch.tensor([0.0, 5.0])[:, None, None]
    assert agreement(own, diagonal, where.whole) == pytest.approx(0.5**0.5)


def test_means_are_over_the_pictures_where_a_measure_is_defined() -> None:
    def picture(localisation: float | None, boxes: int) -> dict:
        return {"p2": {"localisation": localisation, "coarse_share": None, "boxes": boxes}}

    assert mean_measures([picture(0.5, 2), picture(None, 0), picture(1.0, 1), picture(math.nan, 0)]) == {
        "p2": {"localisation": 0.75, "coarse_share": None, "boxes": 3}
    }
