"""Tests of sub-folders, and of test-time augmentation and soft NMS on the command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sn2fpn.config import CfgNode
from sn2fpn.data import read_image
from sn2fpn.modeling import MultiViewDetector, SoftNMS
from sn2fpn.predict import Predictor

Predict = Callable[..., int]


def _found(folder: Path) -> list[list[float]]:
    return [[*a["bbox"], a["score"]] for a in json.loads((folder / "predictions.json").read_text())["annotations"]]


def _expected(predictor: Predictor, picture: Path) -> np.ndarray:
    found = predictor(read_image(picture, "BGR"))["instances"]
    boxes = found.pred_boxes.tensor.numpy()
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], found.scores.numpy()[:, None]], axis=1)


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        ({"flip": True}, lambda p: setattr(p, "augmented", MultiViewDetector(p.model, (), 4000))),
        ({"scales": [64, 80]}, lambda p: setattr(p, "augmented", MultiViewDetector(p.model, (64, 80), 4000, False))),
        ({"soft_nms": "linear"}, lambda p: setattr(p.model.roi_heads, "soft_nms", SoftNMS("linear"))),
        (
            {"soft_nms": "gaussian", "sigma": 0.1},
            lambda p: setattr(p.model.roi_heads, "soft_nms", SoftNMS("gaussian", 0.1)),
        ),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_flags_change_how_objects_are_found(
    predict: Predict,
    small_cfg: Callable[..., CfgNode],
    pictures: Path,
    tmp_path: Path,
    flags: dict[str, Any],
    change: Callable[[Predictor], None],
) -> None:
    picture = pictures / "color.jpg"
    keys = {"TEST.DETECTIONS_PER_IMAGE": 100}
    predictor = Predictor(small_cfg(keys))
    plain = _expected(predictor, picture)
    change(predictor)
    expected = _expected(predictor, picture)
    assert plain.shape != expected.shape or not np.allclose(plain, expected)
    assert predict([picture], keys, **flags) == 0
    np.testing.assert_allclose(_found(tmp_path / "out"), expected, atol=1e-4)


def test_scales_keep_the_limit_of_the_configuration(
    predict: Predict, small_cfg: Callable[..., CfgNode], pictures: Path, tmp_path: Path
) -> None:
    keys = {"TEST.DETECTIONS_PER_IMAGE": 100, "TEST.AUG.MAX_SIZE": 90}
    predictor = Predictor(small_cfg(keys))
    expected = []
    for limit in (90, 4000):
        predictor.augmented = MultiViewDetector(predictor.model, (120,), limit, False)
        expected.append(_expected(predictor, pictures / "color.jpg"))
    assert expected[0].shape != expected[1].shape or not np.allclose(*expected)
    assert predict([pictures / "color.jpg"], keys, scales=[120]) == 0
    np.testing.assert_allclose(_found(tmp_path / "out"), expected[0], atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"scales": [240, 0]}, "--scales[1]: expected"),
        ({"no_whole": True}, "--no-whole: expected --tile"),
        ({"tile": 64, "overlap": 1.5}, "--overlap: expected"),
        ({"max_frames": -2}, "--max-frames -2"),
    ],
)
def test_mistakes_in_flags(
    predict: Predict, pictures: Path, capsys: pytest.CaptureFixture[str], flags: dict[str, Any], words: str
) -> None:
    assert predict([pictures / "color.jpg"], **flags) == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def nested(tmp_path: Path, pictures: Path) -> Path:
    """A folder with sub-folders, some of which have odd names or are hidden, and a link to a folder outside."""
    root = tmp_path / "nested"
    usual = ("a.png", "one/a.png", "one/two/b.png", "predictions.json/c.png", "a.png.d/a.png", "odd\n/a.png")
    for name in (*usual, "._a.png", ".thumbnails/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / "tiny.png", root / name)
    (root / "one/notes.txt").write_text("no picture")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(pictures / "tiny.png", tmp_path / "elsewhere/secret.png")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    return root


def test_sub_folders_are_kept(predict: Predict, nested: Path, tmp_path: Path) -> None:
    assert predict([nested]) == 0  # Without the flag, sub-folders do not count.
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "predictions.json"}
    inside = nested / "out"  # It is left out when the command is repeated.
    for _ in range(2):
        assert predict([nested], recursive=True, output=inside) == 0
        images = json.loads((inside / "predictions.json").read_text())["images"]
        drawings = {Path(i["file_name"]).relative_to(nested).as_posix(): i["drawing"] for i in images}
        assert drawings == {
            "a.png": "a.png",
            "a.png.d/a.png": "a.png.d/a.png",
            "odd\n/a.png": "odd_/a.png",
            "one/a.png": "one/a.png",
            "one/two/b.png": "one/two/b.png",
            "predictions.json/c.png": "predictions.json_/c.png",
        }
        assert all((inside / d).is_file() for d in drawings.values())


def test_folders_that_cannot_be_read_are_named(
    predict: Predict, nested: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = os.scandir

    def scandir(folder: Any) -> Any:
        if Path(folder).name == "one":
            raise PermissionError(13, "Permission denied", str(folder))
        return whole(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert predict([nested], recursive=True) == 1
    said = capsys.readouterr().err
    assert f"no file matches {nested / 'one'} (Permission denied)" in said and "1 of 5 inputs" in said
    assert predict([nested / "one"]) == 2
    assert f"no file matches {nested / 'one'} (Permission denied)" in capsys.readouterr().err


def test_no_drawing_leaves_the_output_folder(
    predict: Predict, nested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/one").symlink_to(tmp_path / "elsewhere")
    assert predict([nested], recursive=True) == 2
    said = capsys.readouterr().err
    assert "leads out of the folder" in said and [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["secret.png"]
    assert predict([f"{nested}/../nested/one/../one"], recursive=True, output=tmp_path / "other") == 0
    assert {p.relative_to(tmp_path / "other").as_posix() for p in (tmp_path / "other").rglob("*.png")} == {
        "a.png",
        "two/b.png",
    }


def test_a_folder_without_pictures_says_what_may_be_meant(
    predict: Predict, nested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (nested / "a.png").unlink()
    assert predict([nested]) == 2
    hint = "the folder holds no pictures and no videos"
    assert f"{hint}; --recursive also takes those of its sub-folders" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert predict([empty], recursive=True) == 2
    said = capsys.readouterr().err
    assert hint in said and "--recursive" not in said


def test_flags_without_effect_are_named(predict: Predict, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict([pictures / "tiny.png"], overlap=0.1, sigma=0.3, soft_nms="linear") == 0
    said = capsys.readouterr().err
    assert "--overlap has no effect without --tile" in said
    assert "--sigma has no effect without --soft-nms gaussian" in said
    assert predict([pictures / "tiny.png"], overlap=0.1, tile=64, sigma=0.3, soft_nms="gaussian") == 0
    assert "no effect" not in capsys.readouterr().err
