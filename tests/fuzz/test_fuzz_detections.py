"""Whatever is in a file of detections is read as detections that can be scored, or gives a message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged_json
from fabricated_study import write_images
from hypothesis import given
from hypothesis import strategies as st

from sn2fpn.data import DatasetCatalog, register_custom
from sn2fpn.errors import UserError
from sn2fpn.evaluation import COCOEvaluator

_RLE = {"size": [60, 80], "counts": "PSb2"}  # an empty mask
_BOXES: list[dict[str, Any]] = [
    {"image_id": i % 6 + 1, "category_id": 10 * (i % 2 + 1), "bbox": [1.5, 2, 30, 40], "score": 0.1 * i}
    for i in range(8)
]
_MASKS = [result | {"segmentation": _RLE if i % 2 else [[1, 2, 30, 2, 30, 40]]} for i, result in enumerate(_BOXES)]


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[COCOEvaluator]:
    entry = write_images(tmp_path_factory.mktemp("detections") / "images")
    register_custom([entry])
    yield COCOEvaluator(entry["NAME"])
    DatasetCatalog.remove(entry["NAME"])


@given(content=st.sampled_from([_BOXES, _MASKS]).flatmap(damaged_json))
def test_any_file_of_detections(evaluator: COCOEvaluator, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content)
    try:
        found = evaluator.read_detections(file)
        judged = evaluator.judge(found)
    except UserError as error:
        assert "results.json" in str(error)
        return
    assert all(np.isfinite(d.boxes).all() and np.isfinite(d.scores).all() for d in found)
    assert set(judged) >= {"bbox"} and all(task.scores() for task in judged.values())
