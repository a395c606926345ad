"""Test the RPN: the head at single anchors, labels, losses, the choice of proposals, and corner cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import nms

from golden_detectron2 import NOTHING, pairs
from sn2fpn.config import get_cfg
from sn2fpn.errors import UserError
from sn2fpn.layers import Conv2d
from sn2fpn.modeling.box_coding import BoxCoder
from sn2fpn.modeling.metrics import collect_metrics
from sn2fpn.modeling.rpn import RPN, build_rpn
from sn2fpn.modeling.rpn.head import RPNHead, TopAnchors
from sn2fpn.modeling.rpn.proposals import top_proposals
from sn2fpn.structures import Boxes, ImageList, Instances, ShapeSpec, pairwise_iou

SHAPES = {f"p{level}": ShapeSpec(channels=8, stride=2**level) for level in (3, 4, 5)}
SIZES = [(64, 96), (60, 90)]


def make_rpn(overrides: Mapping[str, Any] = NOTHING) -> RPN:
    cfg = get_cfg()
    cfg.merge_from_list(
        pairs(
            {
                "MODEL.RPN.IN_FEATURES": ["p3", "p4", "p5"],
                "MODEL.ANCHOR_GENERATOR.SIZES": [[16], [32], [64]],
                "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 100,
                "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
                **overrides,
            }
        )
    )
    torch.manual_seed(0)
    rpn = build_rpn(cfg, SHAPES)
    for p in rpn.parameters():  # The usual initial weights are close to 0.
        torch.nn.init.normal_(p, std=0.1)
    return rpn


def make_batch(*gt: list[list[float]]) -> tuple[ImageList, dict[str, torch.Tensor], list[Instances]]:
    g = torch.Generator().manual_seed(5)
    features = {name: torch.randn(2, 8, 64 // s.stride, 96 // s.stride, generator=g) for name, s in SHAPES.items()}
    targets = [Instances(size, gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4))) for size, boxes in zip(SIZES, gt)]
    return ImageList(torch.zeros(2, 3, 64, 96), SIZES), features, targets


GT = ([[4.0, 5.0, 30.0, 28.0], [40.0, 10.0, 90.0, 60.0]], [[10.0, 20.0, 27.0, 33.0]])


def make_head(layout: torch.memory_format, conv_dims: tuple[int, ...] = (-1,)) -> tuple[RPNHead, list[torch.Tensor]]:
    torch.manual_seed(2)
    head = RPNHead(8, 3, conv_dims)
    for p in head.parameters():
        torch.nn.init.normal_(p, std=0.3)
    maps = [torch.randn(2, 8, h, w).to(memory_format=layout) for h, w in ((6, 7), (3, 4), (1, 1))]
    return head, [m.requires_grad_() for m in maps]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("number, conv_dims", [(90, (-1,)), (0, (-1,)), (500, (-1,)), (90, (4, -1))])
def test_head_at_some_anchors(layout: torch.memory_format, number: int, conv_dims: tuple[int, ...]) -> None:
    """Few anchors are computed from patches.

    More anchors than positions (110), and heads of several convolutions, use the dense maps.
    """
    head, maps = make_head(layout, conv_dims)
    total = 3 * (42 + 12 + 1)
    image, anchor = torch.randint(2, (number,)), torch.randint(total, (number,))
    anchor[-3:] = total - 1  # in the 1 x 1 map, whose whole border is padding
    logits, deltas = (torch.cat(x, dim=1)[image, anchor] for x in head(maps))
    found_logits, found_deltas = head.at(maps, image, anchor)
    torch.testing.assert_close(found_logits, logits)
    torch.testing.assert_close(found_deltas, deltas)
    wanted = [*maps, *head.parameters()]
    weight = torch.randn(number, 5)
    dense = torch.autograd.grad((logits * weight[:, 0]).sum() + (deltas * weight[:, 1:]).sum(), wanted)
    sparse = torch.autograd.grad((found_logits * weight[:, 0]).sum() + (found_deltas * weight[:, 1:]).sum(), wanted)
    for a, b in zip(sparse, dense):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("conv_dims", [(-1,), (4, -1)])
def test_best_anchors_of_the_head(layout: torch.memory_format, conv_dims: tuple[int, ...]) -> None:
    head, maps = make_head(layout, conv_dims)
    found, start = head.best(maps, topk=10), 0
    for level, (logits, deltas) in enumerate(zip(*head(maps))):
        here, k = found.level == level, min(10, logits.shape[1])
        anchor = found.anchor[:, here] - start
        torch.testing.assert_close(found.logits[:, here], logits.sort(dim=1, descending=True).values[:, :k])
        torch.testing.assert_close(found.logits[:, here], logits.gather(1, anchor))
        torch.testing.assert_close(found.deltas[:, here], torch.stack([d[a] for d, a in zip(deltas, anchor)]))
        start += logits.shape[1]


def _hooked(layer: torch.nn.Module) -> torch.nn.Module:
    layer.register_forward_hook(lambda _, inputs, output: output + 1)
    return layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("conv", lambda: Conv2d(8, 8, 3, padding=1, norm="BN")),
        ("conv", lambda: torch.nn.Conv2d(8, 8, 3, padding=2, dilation=2)),
        ("conv", lambda: _hooked(torch.nn.Conv2d(8, 8, 3, padding=1))),
        ("objectness_logits", lambda: _hooked(torch.nn.Conv2d(8, 3, 1))),
        ("anchor_deltas", lambda: Conv2d(8, 12, 1, activation=torch.tanh)),
    ],
)
def test_layers_in_place_of_the_heads_own_are_called(name: str, layer: Callable[[], torch.nn.Module]) -> None:
    head, maps = make_head(torch.contiguous_format)
    setattr(head, name, layer())
    logits, deltas = (torch.cat(x, dim=1) for x in head(maps))
    image, anchor = torch.randint(2, (20,)), torch.randint(3 * 55, (20,))
    for found, expected in zip(head.at(maps, image, anchor), (logits, deltas)):
        torch.testing.assert_close(found, expected[image, anchor])
    best = head.best(maps, topk=10)
    row = torch.arange(2)[:, None]
    torch.testing.assert_close(best.logits, logits[row, best.anchor])
    torch.testing.assert_close(best.deltas, deltas[row, best.anchor])


@pytest.mark.parametrize("ratios", [[1.0], [0.5, 1.0, 2.0]])
def test_losses_by_hand(ratios: list[float]) -> None:
    rpn = make_rpn(
        {
            "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 5000,
            "MODEL.RPN.POSITIVE_FRACTION": 1.0,
            "MODEL.RPN.LOSS_WEIGHT": 2.0,
            "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 3.0,
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [ratios],
        }
    )
    images, features, targets = make_batch(*GT)
    with collect_metrics() as metrics:
        _, losses = rpn(images, features, targets)
    maps = list(features.values())
    anchors = torch.cat(rpn.anchor_generator(maps))
    logits, deltas = (torch.cat(x, dim=1) for x in rpn.rpn_head(maps))
    cls = loc = 0.0
    counts = [0, 0]
    for n, target in enumerate(targets):
        iou = pairwise_iou(Boxes(anchors), target.gt_boxes)
        for a, row in enumerate(iou):
            best = row.max()
            positive = bool(best >= 0.7) or any(row[g] == iou[:, g].max() for g in range(len(row)))
            if positive or best < 0.3:
                counts[positive] += 1
                cls += F.binary_cross_entropy_with_logits(logits[n, a], torch.tensor(float(positive))).item()
            if positive:
                goal = rpn.box_coder.encode(anchors[a], target.gt_boxes.tensor[row.argmax()])
                loc += (deltas[n, a] - goal).abs().sum().item()
    assert losses["loss_rpn_cls"].item() == pytest.approx(2 * cls / (5000 * 2), rel=1e-5)
    assert losses["loss_rpn_loc"].item() == pytest.approx(6 * loc / (5000 * 2), rel=1e-5)
    assert [2 * float(metrics[f"rpn/num_{k}_anchors"]) for k in ("neg", "pos")] == counts


def test_boundary_threshold_ignores_anchors_outside() -> None:
    rpn = make_rpn({"MODEL.RPN.BOUNDARY_THRESH": 0, "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 5000})
    _, features, targets = make_batch(*GT)
    anchors = torch.cat(rpn.anchor_generator(list(features.values())))
    sample = rpn.label_and_sample(anchors, targets)
    for n, (h, w) in enumerate(SIZES):
        used = anchors[sample.anchor[sample.image == n]]
        assert len(used) and (used[:, :2] >= 0).all() and (used[:, 2] < w).all() and (used[:, 3] < h).all()
    far = make_rpn({"MODEL.RPN.BATCH_SIZE_PER_IMAGE": 5000}).label_and_sample(anchors, targets)
    assert len(far.anchor) > len(sample.anchor)


@pytest.mark.parametrize("conv_dims", [[-1], [16, -1]])
@pytest.mark.parametrize("batch_size", [8, 512])
def test_images_without_boxes(batch_size: int, conv_dims: list[int]) -> None:
    rpn = make_rpn({"MODEL.RPN.BATCH_SIZE_PER_IMAGE": batch_size, "MODEL.RPN.CONV_DIMS": conv_dims})
    _, losses = rpn(*make_batch([], []))
    assert losses["loss_rpn_loc"] == 0 and losses["loss_rpn_cls"] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in rpn.parameters())
    assert not rpn.rpn_head.anchor_deltas.weight.grad.any()


def test_several_convs_have_detectron2s_names() -> None:
    names = [n for n, _ in make_rpn({"MODEL.RPN.CONV_DIMS": [16, -1]}).rpn_head.named_parameters() if "weight" in n]
    assert names == ["conv.conv0.weight", "conv.conv1.weight", "objectness_logits.weight", "anchor_deltas.weight"]


def choose(logits: list[torch.Tensor], deltas: list[torch.Tensor], anchors: list[torch.Tensor], **options) -> list:
    parts, start = [], 0
    for level, (s, d) in enumerate(zip(logits, deltas)):
        best, anchor = s.topk(min(30, s.shape[1]))
        chosen = torch.stack([d_n[a_n] for d_n, a_n in zip(d, anchor)])
        parts.append((anchor + start, torch.full_like(anchor, level), best, chosen))
        start += s.shape[1]
    anchor, level, best, chosen = (torch.cat(part, dim=1) for part in zip(*parts))
    top = TopAnchors(anchor, level[0], best, chosen)
    return top_proposals(
        torch.cat(anchors), top, SIZES, BoxCoder(), **{"post_nms_topk": 20, "nms_thresh": 0.6, **options}
    )


def random_predictions() -> dict[str, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(9)
    rpn, (_, features, _) = make_rpn(), make_batch(*GT)
    anchors = rpn.anchor_generator(list(features.values()))
    return {
        "anchors": anchors,
        "logits": [torch.randn(2, len(a), generator=g) for a in anchors],
        "deltas": [torch.randn(2, len(a), 4, generator=g) * 0.4 for a in anchors],
    }


def test_proposals_by_the_long_way() -> None:
    predictions = random_predictions()
    for n, (found, (h, w)) in enumerate(zip(choose(**predictions, min_box_size=6.0), SIZES)):
        boxes, scores = [], []
        for a, s, d in zip(*predictions.values()):
            top = s[n].argsort(descending=True)[:30]
            box = BoxCoder().decode(d[n], a)[top]
            box = torch.stack([c.clamp(0, limit) for c, limit in zip(box.unbind(1), (w, h, w, h))], dim=1)
            large = ((box[:, 2:] - box[:, :2]) > 6).all(1)
            keep = nms(box[large], s[n, top][large], 0.6)
            boxes.append(box[large][keep])
            scores.append(s[n, top][large][keep])
        score, order = torch.cat(scores).sort(descending=True)
        assert len(score) > 20
        assert torch.equal(found.objectness_logits, score[:20])
        assert torch.equal(found.proposal_boxes.tensor, torch.cat(boxes)[order[:20]])
        assert found.image_size == (h, w)


def test_predictions_that_are_not_finite() -> None:
    predictions = random_predictions()
    best = predictions["logits"][0][0].argmax()
    predictions["deltas"][0][0, best, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"proposals .* not finite because training has diverged"):
        choose(**predictions, must_be_finite=True)
    first, second = choose(**predictions)
    assert first.proposal_boxes.tensor.isfinite().all() and len(first) and len(second)
    predictions["logits"][0][:] = float("nan")
    assert all(p.objectness_logits.isfinite().all() for p in choose(**predictions))


def test_all_proposals_may_vanish() -> None:
    proposals = choose(**random_predictions(), min_box_size=500.0)
    assert [len(p) for p in proposals] == [0, 0]


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("MODEL.RPN.IN_FEATURES", ["p3", "p9"], "MODEL.RPN.IN_FEATURES: the backbone has no output 'p9'"),
        (
            "MODEL.RPN.IN_FEATURES",
            [],
            r"MODEL.RPN.IN_FEATURES: expected some of the backbone's outputs \['p3', 'p4', 'p5'\], found none",
        ),
        ("MODEL.RPN.CONV_DIMS", [0], "MODEL.RPN.CONV_DIMS: expected numbers of channels"),
        (
            "MODEL.ANCHOR_GENERATOR.SIZES",
            [[16, 20], [32], [64]],
            r"the same number of anchors per position .* found \[6, 3, 3\]",
        ),
    ],
)
def test_mistakes(key: str, value: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_rpn({key: value})
