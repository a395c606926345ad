"""Tests of test-time augmentation: views by hand, equality with Detectron2, and evaluation with `TEST.AUG`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data.augmentation import ResizeShortestEdge
from sn2fpn.data.transforms import Resize
from sn2fpn.errors import ArgumentError
from sn2fpn.modeling import MultiViewDetector, build_model, build_multi_view
from sn2fpn.modeling.nms import grouped_nms
from sn2fpn.structures import Instances

CONFIG = Path(__file__).parents[2] / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"


def small_cfg(masks: bool, **keys: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    changes = {
        "MODEL.MASK_ON": masks,
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 30,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
        "TEST.DETECTIONS_PER_IMAGE": 12,
        "TEST.AUG.ENABLED": True,
        "TEST.AUG.MIN_SIZES": (64, 80),
        "TEST.AUG.MAX_SIZE": 120,
        "MODEL.WEIGHTS": "",
        **keys,
    }
    cfg.merge_from_list([x for pair in changes.items() for x in pair])
    return cfg


def detector(cfg: CfgNode) -> Any:
    torch.manual_seed(3)
    return build_model(cfg).eval()


def picture(height: int = 60, width: int = 90, seed: int = 0) -> dict[str, Any]:
    """A picture that was resized to 2/3 of its size."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, height, width)).astype(np.uint8)
    return {"image": torch.from_numpy(pixels), "height": height * 3 // 2, "width": width * 3 // 2}


def by_hand(model: Any, x: dict[str, Any], edges: tuple[int, ...], flip: bool) -> Instances:
    """Merge the boxes of views that are detected one by one, each with the usual post-processing."""
    given = x["image"].shape[1:]
    boxes, scores, classes = [], [], []
    for edge in edges:
        new = ResizeShortestEdge.new_size(tuple(given), edge, 120)
        pixels = Resize(tuple(given), new).apply_image(x["image"].permute(1, 2, 0).numpy())
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        for mirrored in (False, True)[: 1 + flip]:
            view = {"image": image.flip(2) if mirrored else image, "height": x["height"], "width": x["width"]}
            found = model([view])[0]["instances"]
            box = found.pred_boxes.tensor.clone()
            if mirrored:
                box[:, [0, 2]] = x["width"] - box[:, [2, 0]]
            boxes.append(box)
            scores.append(found.scores)
            classes.append(found.pred_classes)
    box, score, cls = map(torch.cat, (boxes, scores, classes))
    keep = grouped_nms(box, score, cls, 0.5)[:12]
    from sn2fpn.structures import Boxes

    return Instances((x["height"], x["width"]), pred_boxes=Boxes(box[keep]), scores=score[keep], pred_classes=cls[keep])


def assert_near(found: Instances, expected: Instances, atol: float = 1e-3) -> None:
    assert tuple(found.image_size) == tuple(expected.image_size) and len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-4, atol=atol)


@pytest.mark.parametrize(("edges", "flip"), [((64, 80), True), ((64, 80), False), ((72,), True)])
def test_views_by_hand(edges: tuple[int, ...], flip: bool) -> None:
    """One view per batch, because padding changes the last digits."""
    model, x = detector(small_cfg(False)), picture()
    (found,) = MultiViewDetector(model, edges, 120, flip, views_per_batch=1)([x])
    assert_near(found["instances"], by_hand(model, x, edges, flip))


def test_a_mirrored_picture_has_mirrored_detections() -> None:
    """With the flip alone, the two views change places. The probabilities of masks are mirrored, too."""
    model, x = detector(small_cfg(True)), picture(64, 96)
    views = MultiViewDetector(model)
    (found,) = views.inference([x], do_postprocess=False)
    (other,) = views.inference([x | {"image": x["image"].flip(2)}], do_postprocess=False)
    box = other.pred_boxes.tensor.clone()
    box[:, [0, 2]] = x["width"] - box[:, [2, 0]]
    torch.testing.assert_close(box, found.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(other.pred_masks.flip(3), found.pred_masks, rtol=1e-4, atol=1e-5)
    bitmaps = views([x])[0]["instances"].pred_masks
    assert bitmaps.shape == (len(found), x["height"], x["width"]) and bitmaps.dtype == torch.bool


def test_one_view_is_refused() -> None:
    with pytest.raises(ArgumentError, match="short_edges: expected lengths"):
        MultiViewDetector(detector(small_cfg(False)), flip=False)
    with pytest.raises(ArgumentError, match=r"short_edges\[1\]: expected"):
        MultiViewDetector(detector(small_cfg(False)), [64, 0])


@pytest.mark.detectron2
@pytest.mark.parametrize("masks", [False, True])
def test_equals_detectron2s(masks: bool) -> None:
    """With equal weights, boxes, scores, classes and masks of `GeneralizedRCNNWithTTA` are found."""
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.config import get_cfg as their_cfg
    from detectron2.modeling import GeneralizedRCNNWithTTA
    from detectron2.modeling import build_model as build_theirs

    from sn2fpn.config import add_study_config

    cfg = small_cfg(masks, **{"MODEL.BACKBONE.NAME": "build_sn2_fpn_backbone"})
    theirs = their_cfg()
    add_study_config(theirs)
    theirs.merge_from_other_cfg(cfg)
    theirs.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    model, other = detector(cfg), build_theirs(theirs).eval()
    other.load_state_dict(model.state_dict())
    x = picture()
    with torch.no_grad():
        expected = GeneralizedRCNNWithTTA(theirs, other)([x])[0]["instances"]
    found = build_multi_view(cfg, model)([x])[0]["instances"]
    assert_near(found, expected)
    if masks:
        assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-4
