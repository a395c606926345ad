"""The colours of feature maps, and the sheet on which they are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sn2fpn.study.features.sheet import draw_views
from sn2fpn.study.features.view import LevelView, View, align, principal_scores, to_rgb


@pytest.mark.parametrize("shape", [(5, 6, 7), (64, 3, 4)], ids=["more pixels", "more channels"])
def test_principal_scores_are_those_of_the_definition(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    features = torch.randn(shape) * torch.linspace(3, 1, shape[0])[:, None, None]
    scores = principal_scores(features).reshape(-1, 3)
    pixels = features.double().flatten(1).T.numpy()
    u, _, _ = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    assert np.abs(scores.T @ u[:, :3]) == pytest.approx(np.eye(3) * len(pixels) ** 0.5, abs=1e-6)
    energy = np.linalg.norm(pixels, axis=1)
    assert (scores.T @ (energy - energy.mean()) >= 0).all()
    assert (principal_scores(features).reshape(-1, 3) == scores).all()


def test_components_that_do_not_exist_are_gray() -> None:
    ramp = torch.arange(12.0).reshape(1, 3, 4).expand(6, 3, 4)
    scores = principal_scores(ramp)
    assert scores[..., 0].std() == pytest.approx(1) and not scores[..., 1:].any()
    assert (np.diff(scores[..., 0].ravel()) > 0).all()  # grows with energy
    assert (to_rgb(principal_scores(torch.ones(4, 1, 1))) == 0.5).all()
    assert (to_rgb(scores)[..., 1:] == 0.5).all() and to_rgb(scores)[..., 0].max() == 1


def test_rotated_maps_get_the_first_ones_colours() -> None:
    """Channels of another network may be any rotation of the first network's channels, but the pixels correspond."""
    torch.manual_seed(0)
    features = torch.randn(5, 8, 9) * torch.tensor([5.0, 3.0, 2.0, 0.1, 0.1])[:, None, None]
    rotation, _ = torch.linalg.qr(torch.randn(5, 5))
    other = torch.einsum("cd,dhw->chw", rotation, features)
    first, turned = align([principal_scores(features), principal_scores(other)])
    assert turned == pytest.approx(first, abs=1e-5)
    coarse = np.zeros((2, 2, 3))
    assert align([first, coarse])[1] is coarse


def _level(name: str, stride: int, share: bool, boxes: int) -> LevelView:
    rng = np.random.default_rng(stride)
    h, w = 60 // stride + 1, 90 // stride + 1
    maps = [rng.random((h, w)) for _ in range(4)]
    maps[3][0, 0] = np.nan  # the cosine is not defined there
    measures = {
        "localisation": 0.75 if boxes else None,
        "localisation_before": 0.5 if boxes else None,
        "coarse_share": 0.25,
        "agreement": -0.5,
    }
    return LevelView(
        name,
        stride,
        (60, 90),
        maps[0],
        maps[1],
        rng.random((h, w, 3)),
        rng.random((h, w, 3)),
        maps[2] if share else None,
        maps[3] if share else None,
        np.array([[10.0, 10, 40, 50]] * boxes).reshape(-1, 4),
        measures,
    )


@pytest.mark.parametrize("models", [1, 3])
def test_one_sheet_for_all_models(tmp_path: Path, models: int) -> None:
    levels = [_level("p2", 4, True, 1), _level("p3", 8, False, 0)]
    view = View(np.full((60, 90, 3), 200, np.uint8), levels)
    path = draw_views({f"model {i}": view for i in range(models)}, tmp_path / "deep" / "sheet.png", "a title")
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    sheet = np.asarray(Image.open(path).convert("RGB"))
    assert sheet.shape[1] > 250 + 350 * models
    dark = (sheet < 250).any(axis=2)
    assert not dark[:, :5].any() and not dark[:, -5:].any() and not dark[-3:].any()  # nothing runs over the edge
    again = draw_views({f"model {i}": view for i in range(models)}, tmp_path / "again.png", "a title")
    assert again.read_bytes() == path.read_bytes()
