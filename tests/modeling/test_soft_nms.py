"""Tests of soft NMS against the loop of the paper, and of its configuration key."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from sn2fpn.config import get_cfg
from sn2fpn.engine.record import check_same_model
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.modeling import SoftNMS, build_model

CONFIG = Path(__file__).parents[2] / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"


def loop(boxes, scores, groups, kind, sigma, threshold, score_thresh):  # type: ignore[no-untyped-def]
    """Return (new score, index) of the kept boxes, one after the other as in Figure 3 of the paper."""
    out = []
    for group in set(groups.tolist()):
        rest = {i: float(scores[i]) for i in range(len(boxes)) if int(groups[i]) == group}
        while rest:
            best = max(rest, key=lambda i: (rest[i], -i))
            out.append((rest.pop(best), best))
            for i in rest:
                u = float(box_iou(boxes[[best]], boxes[[i]]))
                if kind == "gaussian":
                    rest[i] *= math.exp(-u * u / sigma)
                elif u > threshold:
                    rest[i] *= 1 - u
    return sorted((o for o in out if o[0] > score_thresh), key=lambda o: (-o[0], o[1]))


def scene(number: int, num_groups: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(number + num_groups)
    xy = torch.rand(number, 2, generator=g) * 60
    boxes = torch.cat([xy, xy + 10 + 30 * torch.rand(number, 2, generator=g)], dim=1)
    boxes[::7] = boxes[0].clone()  # some boxes are equal, so that the factor of "linear" is 0
    scores = torch.randperm(number, generator=g) / number
    return boxes, scores, torch.randint(num_groups, (number,), generator=g)


@pytest.mark.parametrize("kind", ["gaussian", "linear"])
@pytest.mark.parametrize(("number", "num_groups", "sigma"), [(1, 1, 0.5), (80, 1, 0.5), (120, 5, 0.1), (60, 40, 2.0)])
@pytest.mark.parametrize("score_thresh", [-1.0, 0.061])
def test_equals_the_loop(kind: str, number: int, num_groups: int, sigma: float, score_thresh: float) -> None:
    boxes, scores, groups = scene(number, num_groups)
    expected = loop(boxes, scores, groups, kind, sigma, 0.3, score_thresh)
    keep, new = SoftNMS(kind, sigma)(boxes, scores, groups, 0.3, score_thresh)
    torch.testing.assert_close(new, torch.tensor([s for s, _ in expected]))
    positive = new > 1e-6  # scores that became 0 are ties
    assert keep[positive].tolist() == [i for s, i in expected if s > 1e-6]
    assert score_thresh > 0 or sorted(keep.tolist()) == list(range(number))
    limited, top = SoftNMS(kind, sigma)(boxes, scores, groups, 0.3, score_thresh, limit=7)
    assert limited.tolist() == keep[:7].tolist() and torch.equal(top, new[:7])


def test_a_near_object_survives_with_a_lower_score() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 10]])
    scores, groups = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1])
    keep, new = SoftNMS("linear")(boxes, scores, groups, 0.5, 0.05)
    assert keep.tolist() == [0, 2, 1] and new.tolist() == pytest.approx([0.9, 0.7, 0.8 * 0.4])


def test_no_boxes() -> None:
    keep, new = SoftNMS("linear")(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5, 0.05)
    assert keep.tolist() == new.tolist() == [] and keep.dtype == torch.int64


def test_wrong_values_name_their_argument_or_key() -> None:
    with pytest.raises(ArgumentError, match=r"kind: unknown value 'gausian'.*gaussian"):
        SoftNMS("gausian")
    with pytest.raises(ArgumentError, match="sigma"):
        SoftNMS("gaussian", 0)
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    cfg.MODEL.ROI_HEADS.SOFT_NMS.METHOD = "soft"
    with pytest.raises(UserError, match=r"MODEL\.ROI_HEADS\.SOFT_NMS\.METHOD: unknown value"):
        build_model(cfg)
    cfg.MODEL.ROI_HEADS.SOFT_NMS.METHOD, cfg.MODEL.ROI_HEADS.SOFT_NMS.SIGMA = "gaussian", 0.25
    assert repr(build_model(cfg).roi_heads.soft_nms) == "SoftNMS('gaussian', sigma=0.25)"


def test_it_may_be_switched_on_after_the_training() -> None:
    """It changes no weights, so that a checkpoint of a model without it is one of the same model."""
    cfg = get_cfg()
    before = cfg.dump()
    cfg.MODEL.ROI_HEADS.SOFT_NMS.METHOD = "linear"
    check_same_model(before, cfg.dump(), "model.pth")
    cfg.MODEL.FPN.FUSE_TYPE = "avg"
    with pytest.raises(ArgumentError, match=r"another model: MODEL\.FPN\.FUSE_TYPE"):
        check_same_model(before, cfg.dump(), "model.pth")
