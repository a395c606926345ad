"""Whatever is given to `Predictor` as a picture gives detections inside it, or one message about the argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError
from sn2fpn.predict import Predictor

CONFIG = Path(__file__).parents[2] / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"
SMALL = {
    "INPUT.MIN_SIZE_TEST": 32,
    "INPUT.MAX_SIZE_TEST": 48,
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 8,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
}


@pytest.fixture(scope="module")
def predictors() -> list[Predictor]:
    """A model that resizes pictures, and the same model without resizing."""
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list([x for pair in SMALL.items() for x in pair])
    torch.manual_seed(0)
    predictor = Predictor(cfg)
    return [predictor, Predictor(predictor.model.eval())]


@st.composite
def _pixels(draw: st.DrawFn) -> np.ndarray:
    """Arrays of all types, shapes and layouts; many of them are pictures."""
    dtype = draw(
        st.sampled_from([np.uint8, np.uint8, np.float32])
        | arrays.boolean_dtypes()
        | arrays.integer_dtypes(endianness="?")
        | arrays.unsigned_integer_dtypes(endianness="?")
        | arrays.floating_dtypes(endianness="?")
        | arrays.complex_number_dtypes()
        | arrays.unicode_string_dtypes(max_len=2)
        | arrays.datetime64_dtypes()
        | arrays.array_dtypes()
    )
    side = st.integers(0, 9) | st.sampled_from([1, 3, 70])
    shape = draw(
        st.tuples(side, side, st.just(3)) | st.tuples(st.just(3), side, side) | st.lists(side, max_size=4).map(tuple)
    )
    elements = st.integers(0, 255) if np.dtype(dtype).kind in "uif" and draw(st.booleans()) else None
    if elements is not None and np.dtype(dtype).kind == "i" and np.dtype(dtype).itemsize == 1:
        elements = st.integers(0, 127)
    if elements is not None and np.dtype(dtype).kind == "f":
        elements = st.floats(0, 255, width=16)
    array = draw(arrays.arrays(dtype, shape, elements=elements))
    return array.T if draw(st.booleans()) else array


def _tensor(array: np.ndarray) -> Any:
    """Return the array as a tensor where there is such a tensor."""
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except (TypeError, ValueError):
        return array


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)
_NESTED = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(st.lists(st.integers(-1, 300), min_size=3, max_size=3), min_size=width), min_size=1)
)
_PICTURES = _pixels() | _pixels().map(_tensor) | _pixels().map(np.ndarray.tolist) | _NESTED | _ANYTHING
_PICTURES |= st.sampled_from([Image.new("RGB", (3, 3)), object(), torch.zeros(4, 4, 3, device="meta"), range(3)])


@given(picture=_PICTURES, resizes=st.booleans())
def test_any_picture(predictors: list[Predictor], picture: Any, resizes: bool) -> None:
    try:
        found = predictors[not resizes](picture)["instances"]
    except ArgumentError as error:
        assert error.argument == "image" and "\n" not in str(error)
        return
    height, width = found.image_size
    assert (height, width, 3) == tuple(np.shape(picture.float() if isinstance(picture, torch.Tensor) else picture))
    boxes, scores = found.pred_boxes.tensor, found.scores
    assert boxes.isfinite().all() and (boxes >= 0).all()
    assert (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()
    assert ((scores >= 0) & (scores <= 1)).all()
