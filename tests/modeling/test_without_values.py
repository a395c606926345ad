"""Test models without values, which are built to see whether they can be built and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from golden_detectron2 import CASES, config, pairs
from sn2fpn.modeling import build_model
from sn2fpn.modeling.build import without_values
from sn2fpn.pyramids import PYRAMIDS


class _Operators(TorchDispatchMode):
    """Collects the names of the operators that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func.overloadpacket).removeprefix("aten."))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pyramid", sorted(PYRAMIDS))
def test_a_model_without_values_has_the_same_shapes_and_fills_nothing(pyramid: str) -> None:
    cfg = config(CASES["infer_faster_r50"])
    cfg.merge_from_list(pairs({"MODEL.BACKBONE.NAME": f"build_sn2_{pyramid}_backbone", "MODEL.MASK_ON": True}))
    whole = build_model(cfg)
    cfg.MODEL.DEVICE = "meta"
    with _Operators() as operators, without_values():
        empty = build_model(cfg)
    assert not operators.names & {"normal_", "uniform_", "trunc_normal_"}
    assert all(t.is_meta for t in empty.state_dict().values())
    assert {n: t.shape for n, t in empty.state_dict().items()} == {n: t.shape for n, t in whole.state_dict().items()}
    assert [n for n, p in empty.named_parameters() if p.requires_grad] == [
        n for n, p in whole.named_parameters() if p.requires_grad
    ]
