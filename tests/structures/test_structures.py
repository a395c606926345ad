"""Test Boxes, Instances and ImageList, which have Detectron2's interfaces, against plain arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sn2fpn.structures import Boxes, ImageList, Instances, pairwise_iou


def test_boxes_measure_clip_and_scale() -> None:
    boxes = Boxes([[-2, -3, 4, 5], [1, 1, 9, 3], [5, 5, 5, 9]])
    assert boxes.tensor.dtype == torch.float32
    assert boxes.area().tolist() == [48, 16, 0]
    assert boxes.nonempty().tolist() == [True, True, False]
    assert boxes.get_centers().tolist() == [[1, 1], [5, 2], [5, 7]]
    assert boxes.inside_box((10, 10)).tolist() == [False, True, True]
    original = boxes.clone()
    boxes.clip((4, 8))
    assert boxes.tensor.tolist() == [[0, 0, 4, 4], [1, 1, 8, 3], [5, 4, 5, 4]]
    boxes.scale(2.0, 0.5)
    assert boxes.tensor[1].tolist() == [2, 0.5, 16, 1.5]
    assert original.tensor[1].tolist() == [1, 1, 9, 3]


def test_boxes_index_like_tensors() -> None:
    boxes = Boxes(torch.arange(12.0).view(3, 4))
    assert boxes[1].tensor.shape == (1, 4)
    assert boxes[torch.tensor([True, False, True])].tensor.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert len(boxes[:0]) == 0
    assert len(Boxes([])) == 0
    assert torch.equal(Boxes.cat([boxes[:1], boxes[1:]]).tensor, boxes.tensor)
    assert len(Boxes.cat([])) == 0
    with pytest.raises(ValueError, match=r"\(N, 4\).*\(2, 3\)"):
        Boxes(torch.zeros(2, 3))


def test_iou_by_hand_and_without_nan() -> None:
    a = Boxes([[0, 0, 4, 4], [2, 2, 2, 2]])
    b = Boxes([[2, 0, 6, 4], [0, 0, 4, 4], [2, 2, 2, 2]])
    expected = torch.tensor([[8 / 24, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(pairwise_iou(a, b), expected)
    assert pairwise_iou(Boxes([]), b).shape == (0, 3)


def test_instances_keep_fields_together() -> None:
    one = Instances((10, 20), pred_boxes=Boxes(torch.arange(12.0).view(3, 4)), scores=torch.tensor([0.9, 0.5, 0.1]))
    one.names = ["a", "b", "c"]
    picked = one[one.scores < 0.6]
    assert picked.names == ["b", "c"]
    assert picked.pred_boxes.tensor[:, 0].tolist() == [4, 8]
    assert one[-1].names == ["c"]
    assert len(one[0]) == 1
    assert picked.image_size == (10, 20)
    both = Instances.cat([one, picked])
    assert both.names == ["a", "b", "c", "b", "c"]
    assert both.scores.shape == (5,)
    assert one.to("cpu").names == one.names


def test_instances_refuse_what_does_not_fit() -> None:
    instances = Instances((10, 20), scores=torch.zeros(2))
    with pytest.raises(ValueError, match="gt_classes: expected 2 entries like the other fields, found 3"):
        instances.gt_classes = torch.zeros(3)
    with pytest.raises(AttributeError, match=r"no field 'score'.*scores"):
        _ = instances.score
    with pytest.raises(IndexError, match="there are 2 instances, found index 2"):
        instances[2]
    with pytest.raises(ValueError, match="expected instances of one image size"):
        Instances.cat([instances, Instances((9, 9), scores=torch.zeros(1))])
    assert not instances.has("gt_boxes")


def test_batches_are_padded_as_in_detectron2(golden: Path) -> None:
    cases = json.loads((golden / "detectron2/cases.json").read_text())["cases"]["preprocessing"]["image_list"]
    for case in cases:
        images = [torch.ones(3, h, w) for h, w in case["sizes"]]
        batch = ImageList.from_tensors(images, case["size_divisibility"])
        assert list(batch.tensor.shape) == case["batch_shape"]
        assert [list(s) for s in batch.image_sizes] == case["image_sizes"]
        for i, (h, w) in enumerate(case["sizes"]):
            assert torch.equal(batch[i], images[i])
            assert batch.tensor[i].sum() == 3 * h * w  # The padding is zero.


@pytest.mark.parametrize(
    ("constraints", "size"),
    [
        (None, (32, 64)),
        ({"square_size": 0}, (32, 64)),
        ({"size_divisibility": 48}, (48, 48)),
        ({"square_size": 100, "size_divisibility": 64}, (128, 128)),
    ],
)
def test_batches_are_padded_as_a_backbone_asks(constraints: dict[str, int] | None, size: tuple[int, int]) -> None:
    images = [torch.ones(3, 20, 40), torch.ones(3, 30, 10)]
    batch = ImageList.from_tensors(images, 32, padding_constraints=constraints)
    assert batch.tensor.shape == (2, 3, *size) and batch.image_sizes == [(20, 40), (30, 10)]
