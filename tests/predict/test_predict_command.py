"""Test `python -m sn2fpn.predict` as a user runs it: what it writes, what it logs and how it ends."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from sn2fpn.config import CfgNode
from sn2fpn.data import read_image
from sn2fpn.predict import Predictor
from sn2fpn.predict.__main__ import main
from sn2fpn.predict.inputs import Video

CONFIG = Path(__file__).parents[2] / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"
Predict = Callable[..., int]


def _check_detections(coco: COCO, entry: dict[str, Any], predictor: Predictor, image: np.ndarray) -> None:
    """Check that the file holds the detections of the model in a picture."""
    expected = predictor(image)["instances"]
    found = coco.loadAnns(coco.getAnnIds(imgIds=entry["id"]))
    assert (entry["height"], entry["width"]) == image.shape[:2]
    assert len(found) == len(expected) > 0
    for i, a in enumerate(found):
        x, y, w, h = a["bbox"]
        assert np.allclose([x, y, x + w, y + h], expected.pred_boxes.tensor[i], atol=1e-4)
        assert a["score"] == float(expected.scores[i])
        assert a["category_id"] == int(expected.pred_classes[i]) + 1  # The ids of the data set start at 1.
        if expected.has("pred_masks"):
            assert (mask_utils.decode(a["segmentation"]).astype(bool) == expected.pred_masks[i].numpy()).all()


@pytest.mark.parametrize("masks", [False, True])
def test_pictures_of_all_kinds(
    predict: Predict,
    small_cfg: Callable[..., CfgNode],
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    masks: bool,
) -> None:
    keys = {"MODEL.MASK_ON": masks}
    assert predict([pictures], keys, score_threshold=0.1) == 1
    said = capsys.readouterr().err
    assert "broken.jpg: not decodable as an image" in said and "empty.png: image file is empty" in said
    assert "2 of 6 inputs could not be read" in said
    coco = COCO(str(tmp_path / "out/predictions.json"))
    names = ["color.jpg", "gray.png", "tiny.png", "turned.jpg"]
    entries = coco.loadImgs(coco.getImgIds())
    assert [entry["file_name"] for entry in entries] == [str(pictures / name) for name in names]
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())][:2] == ["circle", "square"]
    predictor = Predictor(small_cfg(keys))
    for entry, name in zip(entries, names):
        image = read_image(pictures / name, "BGR")
        _check_detections(coco, entry, predictor, image)
        with Image.open(tmp_path / "out" / entry["drawing"]) as drawing:
            factor = drawing.width // image.shape[1]
            assert drawing.size == (factor * image.shape[1], factor * image.shape[0])
            assert max(drawing.size) >= 320  # Labels can be read.
    assert (entries[3]["width"], entries[3]["height"]) == (60, 90)  # It is upright.
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*names[:2], "predictions.json", *names[2:]]


def test_the_threshold_decides_what_is_drawn_but_not_what_is_written(
    predict: Predict, pictures: Path, tmp_path: Path
) -> None:
    assert predict([pictures / "gray.png"], score_threshold=1.0) == 0
    drawn = np.asarray(Image.open(tmp_path / "out/gray.png"))
    assert (drawn == drawn[:, :, :1]).all()  # Nothing has a colour.
    assert json.loads((tmp_path / "out/predictions.json").read_text())["annotations"]
    assert predict([pictures / "gray.png"], score_threshold=0) == 0
    drawn = np.asarray(Image.open(tmp_path / "out/gray.png"))
    assert not (drawn == drawn[:, :, :1]).all()


def test_a_video(predict: Predict, small_cfg: Callable[..., CfgNode], video: Path, tmp_path: Path) -> None:
    assert predict([video], score_threshold=0) == 0
    coco = COCO(str(tmp_path / "out/predictions.json"))
    entries = coco.loadImgs(coco.getImgIds())
    assert [(e["file_name"], e["frame"], e["drawing"]) for e in entries] == [
        (str(video), i, "clip.mp4") for i in range(6)
    ]
    predictor = Predictor(small_cfg())
    for entry, frame in zip(entries, Video(video)):
        _check_detections(coco, entry, predictor, frame)
    drawn = Video(tmp_path / "out/clip.mp4")
    frames = list(drawn)
    assert (drawn.fps, len(frames), frames[0].shape) == (12.5, 6, (5 * 48, 5 * 64, 3))
    brightness = [frame[-9:].mean() for frame in frames]
    assert brightness == sorted(brightness)


def test_broken_videos_are_drawn_as_far_as_they_go(
    predict: Predict, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = video.read_bytes()[: video.stat().st_size * 2 // 3]
    broken = {"cut.avi": cut, "noise.mp4": b"noise" * 99, "void.mkv": b""}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    assert predict([tmp_path / name for name in broken]) == 1
    said = capsys.readouterr().err
    broken_off, noise, empty = "the video breaks off after", "cannot be decoded as a video", "the video file is empty"
    for words in (f"cut.avi: {broken_off}", f"noise.mp4: {noise}", f"void.mkv: {empty}"):
        assert words in said
    assert 0 < len(list(Video(tmp_path / "out/cut.mp4"))) < 6
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cut.mp4", "predictions.json"]


def test_names_from_standard_input_repeated_names_and_patterns(
    predict: Predict,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other[1]"  # Brackets belong to patterns, but also to this name.
    shutil.copytree(pictures, other)
    names = [str(other / "gray.png"), "", str(pictures / "gr*.png"), str(pictures / "gray.png"), "nowhere/*.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(names)))
    assert predict(["-", pictures / "tiny.png"]) == 1
    assert "no file matches nowhere/*.png" in capsys.readouterr().err
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [(i["file_name"], i["drawing"]) for i in images] == [
        (str(other / "gray.png"), "gray.png"),
        (str(pictures / "gray.png"), "gray-2.png"),
        (str(pictures / "tiny.png"), "tiny.png"),
    ]


@pytest.mark.parametrize(
    ("inputs", "flags", "keys", "words"),
    [
        (["nowhere.jpg", "no/*.png"], {}, {}, ["--input", "nowhere.jpg, no/*.png"]),
        (["-"], {}, {}, ["--input -", "standard input"]),
        (["{}/tiny.png", "MODEL.DEVICE", "cpu"], {}, {}, ["'MODEL.DEVICE'", "come last"]),
        (["{}/tiny.png", "train.device=cpu"], {}, {}, ["'train.device=cpu'", "come last"]),
        (["{}/tiny.png"], {"weights": "nowhere.pth"}, {}, ["--weights", "nowhere.pth"]),
        (["{}/tiny.png"], {"weights": ""}, {}, ["--weights", "faster_rcnn_R18_sni_shapes.yaml"]),
        (["{}/tiny.png"], {"output": "/dev/null/out"}, {}, ["--output /dev/null/out", "cannot be written"]),
        (["{}/tiny.png"], {"output": "{}"}, {}, ["--output", "would replace the input"]),
        (["{}/tiny.png"], {"config_file": "nowhere.yaml"}, {}, ["nowhere.yaml"]),
        (["{}/tiny.png"], {"score_threshold": 50}, {}, ["--score-threshold 50", "0 to 1"]),
        (["{}/tiny.png"], {}, {"MODEL.ROI_HEADS.NUM_CLASSES": 9}, ["--weights: ", "cls_score"]),
    ],
)
def test_mistakes_end_with_one_message_and_code_2(
    predict: Predict,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inputs: list[str],
    flags: dict[str, Any],
    keys: dict[str, Any],
    words: list[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    flags = {k: v.format(pictures) if isinstance(v, str) else v for k, v in flags.items()}
    assert predict([i.format(pictures) for i in inputs], keys, **flags) == 2
    said = capsys.readouterr().err
    assert said.lower().count("error:") == 1
    for word in words:
        assert word in said
    assert not list(tmp_path.rglob("predictions.json")) and not list(tmp_path.rglob(".*"))


def test_without_an_encoder(
    predict: Predict, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class NoEncoder:
        fourcc = cv2.VideoWriter.fourcc
        isOpened = open = release = lambda *_: False

    monkeypatch.setattr("cv2.VideoWriter", NoEncoder)
    assert predict([video]) == 2
    assert "cannot write MP4 videos (codec 'mp4v')" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk(
    predict: Predict,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    assert predict([pictures / "gray.png"]) == 2
    assert f"--output {tmp_path / 'out'}: cannot be written" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_what_is_done_at_an_interruption_stays(
    predict: Predict, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Predictor.__call__

    def interrupted(self: Predictor, image: np.ndarray) -> dict[str, Any]:
        if image.shape[0] == 12:  # tiny.png
            raise KeyboardInterrupt
        return whole(self, image)

    monkeypatch.setattr(Predictor, "__call__", interrupted)
    assert predict([pictures / name for name in ("color.jpg", "tiny.png", "gray.png")]) == 130
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [Path(i["file_name"]).name for i in images] == ["color.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["color.jpg", "predictions.json"]


def test_a_python_config_predicts_as_its_yaml_twin(
    small_cfg: Callable[..., CfgNode],
    pictures: Path,
    tmp_path: Path,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = [
        "model.backbone.out_channels=16",
        "model.roi_heads.box_head.fc_dims=[16,16]",
        "model.proposal_generator.post_nms_topk=[300,20]",
        "model.roi_heads.max_detections=10",
        "dataloader.test.mapper.augmentations.0.short_edges=64",
        "dataloader.test.mapper.augmentations.0.max_size=96",
    ]
    argv = [
        "--config-file",
        str(CONFIG.parents[1] / "lazy/quick_shapes.py"),
        "--input",
        str(pictures / "color.jpg"),
        "--output",
        str(tmp_path / "lazy"),
        "--weights",
    ]
    assert main([*argv, small_cfg().MODEL.WEIGHTS, *keys]) == 0
    assert predict([pictures / "color.jpg"]) == 0
    lazy, yaml = (tmp_path / folder / "predictions.json" for folder in ("lazy", "out"))
    assert lazy.read_text() == yaml.read_text()
    capsys.readouterr()
    assert main([*argv, small_cfg().MODEL.WEIGHTS, "model.backbone.out_chanels=16"]) == 2
    assert "out_channels" in capsys.readouterr().err
    assert main([*argv, ""]) == 2
    assert "quick_shapes.py names none" in capsys.readouterr().err


def test_help_does_not_import_torch() -> None:
    code = "import sys, sn2fpn.predict.__main__ as m; m._parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_as_a_program(small_cfg: Callable[..., CfgNode], pictures: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sn2fpn.predict"]
    cfg = small_cfg()
    (tmp_path / "small.yaml").write_text(cfg.dump())
    command += ["--config-file", str(tmp_path / "small.yaml"), "--output", str(tmp_path / "out"), "--input", "-"]
    done = subprocess.run(
        command,
        input=str(pictures / "color.jpg"),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "1/1" in done.stderr  # The progress bar ends with this.
    assert (tmp_path / "out/color.jpg").is_file()
