"""Test `python -m sn2fpn.predict` as a user runs it: what it writes, what it logs and how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from sn2fpn.atomic import StorageError
from sn2fpn.checkpoint import Checkpointer
from sn2fpn.config import CfgNode
from sn2fpn.data import read_image
from sn2fpn.modeling import build_model
from sn2fpn.predict import Predictor
from sn2fpn.predict.__main__ import main
from sn2fpn.predict.inputs import Video
from sn2fpn.predict.outputs import VideoWriter

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


def test_the_best_few_are_drawn_in_gray_and_said_once(
    predict: Predict, pictures: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The note at the bottom of the drawing is white on black, and what is drawn is gray."""
    assert predict([pictures / "gray.png", pictures / "color.jpg", video], score_threshold=1) == 0
    said = capsys.readouterr().err
    assert "Nothing that is detected reaches --score-threshold 1 in 3 of 3 inputs (0 of 10 in " in said
    assert "gray.png, 0 of" in said and said.count("reaches") == 1
    drawn = np.asarray(Image.open(tmp_path / "out/gray.png"))
    assert (drawn == drawn[:, :, :1]).all() and (drawn[-2:, :100] == 0).all()
    assert predict([pictures / "gray.png"], score_threshold=0) == 0
    said = capsys.readouterr().err
    assert "reaches" not in said and "TEST.DETECTIONS_PER_IMAGE (max_detections of the RoI heads) allows (10)" in said


def test_inputs_without_a_detection_are_counted(
    predict: Predict, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [pictures / "gray.png", pictures / "color.jpg", pictures / "tiny.png"]
    assert predict(inputs, {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.99}) == 0
    said = capsys.readouterr().err
    assert "WARNING: Nothing is detected in any of the 3 inputs. The inputs may hold no objects of" in said
    assert "Wrote 0 detections in 3 pictures and frames to" in said and "reaches" not in said
    found = Predictor.__call__

    def find_in_tiny_ones(self: Predictor, image: np.ndarray) -> dict[str, Any]:
        return {"instances": found(self, image)["instances"][: 10 * (image.shape[0] < 50)]}

    monkeypatch.setattr(Predictor, "__call__", find_in_tiny_ones)
    assert predict(inputs, score_threshold=1) == 0
    said = capsys.readouterr().err
    assert re.search(r"INFO: Nothing is detected in 2 of 3 inputs: .*gray\.png, .*color\.jpg\n", said)
    assert "WARNING: Nothing that is detected reaches --score-threshold 1 in 1 of 3 inputs (0 of 10 in " in said


def test_class_names_of_the_checkpoint_are_drawn_and_written(
    predict: Predict, small_cfg: Callable[..., CfgNode], pictures: Path, tmp_path: Path
) -> None:
    """The data set of the training is not on this machine."""
    names = ["bolt", "nut", "washer", "cog", "two\nlines", "\x1b[31m"]
    data = torch.load(small_cfg().MODEL.WEIGHTS, weights_only=True)
    torch.save(data | {"class_names": names}, tmp_path / "named.pth")
    keys = {"DATASETS.TEST": "('elsewhere',)", "DATASETS.TRAIN": "('elsewhere',)"}
    flags = {"config_file": CONFIG, "weights": tmp_path / "named.pth", "output": tmp_path / "out"}
    assert predict([pictures / "gray.png"], keys, **flags) == 0
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    expected = ["bolt", "nut", "washer", "cog", "two lines", "[31m"]
    assert content["categories"] == [{"id": i, "name": name} for i, name in enumerate(expected)]


def _odd_files(folder: Path, good: Path) -> dict[str, bytes]:
    """Write a good picture under odd names and return the names as bytes."""
    names = {
        "long": b"l" * 251 + b".png",
        "latin": "Küche".encode("latin-1") + b".png",
        "lines": b"two\nlines.png",
        "escape": b"\x1b[31mred\x7f.png",
        "wide": "写真".encode() * 41 + b".png",
    }
    for name in names.values():
        (folder / os.fsdecode(name)).write_bytes(good.read_bytes())
    return names


def test_odd_names(predict: Predict, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names that are long, not UTF-8 or not printable are read; outputs and messages have clean names."""
    folder = tmp_path / "odd"
    folder.mkdir()
    names = _odd_files(folder, pictures / "tiny.png")
    (folder / os.fsdecode(b"broken\n\xff.jpg")).write_bytes(b"noise")
    assert predict([folder]) == 1
    said = capsys.readouterr().err
    assert r"broken\n\xff.jpg: not decodable as an image" in said and "\x1b[31m" not in said
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    content["images"][0]["file_name"].encode()  # Every text is valid Unicode.
    files = [Path(image["file_name"]).name.encode() for image in content["images"]]
    assert sorted(files) == sorted([*(names[k] for k in names if k != "latin"), b"K\\xfcche.png"])
    drawings = {p.name for p in (tmp_path / "out").iterdir()} - {"predictions.json"}
    assert {image["drawing"] for image in content["images"]} == drawings and len(drawings) == len(names)
    assert all(name.isprintable() and len(name.encode()) <= 210 for name in drawings)


def test_names_that_cannot_be_looked_up_are_said_and_others_go_on(
    predict: Predict,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [
        "x" * 5000,
        "~nosuchuser/a.jpg",
        "nul\0.jpg",
        str(pictures / "tiny.png"),
        str(pictures / "gray.png") + "\r",
    ]
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(names).encode() + b"\nno\xff.png"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stdin)
    assert predict(["-"]) == 1
    said = capsys.readouterr().err
    assert "(File name too long)" in said and "~nosuchuser/a.jpg (Could not determine home directory" in said
    assert r"no file matches nul\x00.jpg" in said and r"no file matches no\xff.png" in said
    assert max(map(len, said.splitlines())) < 800 and "4 of 6 inputs could not be read" in said
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"gray.png", "tiny.png", "predictions.json"}


def test_files_that_are_no_pictures(
    predict: Predict, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe would block for ever. Folders that are called like pictures are passed over. Broken links are named."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.jpg").mkdir()
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "text.png").write_text("a text")
    shutil.copy(pictures / "tiny.png", folder / "a.png")
    assert predict([folder, "/dev/zero"]) == 1
    said = capsys.readouterr().err
    for words in (
        "pipe.jpg: expected a regular file",
        "pipe.mp4: expected a regular file",
        "/dev/zero: expected a reg",
    ):
        assert words in said
    for words in ("link.jpg: image file does not exist", "text.png: not decodable as an image", "6 of 7 inputs"):
        assert words in said
    assert said.count("WARNING") == 7 and "loop.png" in said  # six files, and the remark that nothing is sure


def test_pictures_of_all_modes_and_sizes(predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "modes"
    folder.mkdir()
    color = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 31, 3)).astype(np.uint8))
    for mode in ("1", "L", "LA", "P", "RGBA"):
        color.convert(mode).save(folder / f"{mode}.png")
    color.convert("P").save(folder / "clear.png", transparency=b"\0\x80\xff")
    color.convert("CMYK").save(folder / "CMYK.tif")
    color.save(folder / "animated.gif", save_all=True, append_images=[color.rotate(90)])
    color.save(folder / "lossless.webp", lossless=True)
    Image.fromarray(np.full((9, 9), 300, np.uint16)).save(folder / "dark16.png")
    Image.fromarray(np.full((9, 9), 0.5, np.float32)).save(folder / "float.tif")
    for size in ((1, 1), (1, 3000), (3000, 1), (9000, 2)):
        color.resize(size).save(folder / f"{size[0]}x{size[1]}.png")
    assert predict([folder]) == 1
    said = capsys.readouterr().err
    assert "float.tif: 'F' pixels beyond 16 bits have no defined brightness" in said and "1 of 15 inputs" in said
    assert "dark16.png: the 16-bit pixels are at most about 257 of 65,535" in said
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert {Path(i["file_name"]).stem: (i["width"], i["height"]) for i in images}["9000x2"] == (9000, 2)
    assert len(images) == 14


def test_pictures_beyond_the_limit_of_pixels(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pillow warns about pictures that are larger than its limit, and refuses those that are twice as large."""
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 15000)
    Image.new("L", (200, 100)).save(tmp_path / "large.png")
    Image.new("L", (400, 100)).save(tmp_path / "huge.png")
    assert predict([tmp_path / "large.png", tmp_path / "huge.png"]) == 1
    said = capsys.readouterr().err
    assert "large.png: Image size (20000 pixels) exceeds limit of 15000 pixels" in said
    assert "huge.png: not decodable as an image: Image size (40000 pixels)" in said and "1 of 2 inputs" in said


def test_too_little_memory_for_a_picture(
    predict: Predict, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Predictor.__call__
    errors = iter(
        [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: no")]
    )

    def full(self: Predictor, image: np.ndarray) -> dict[str, Any]:
        if error := next(errors, None):
            raise error
        return whole(self, image)

    monkeypatch.setattr(Predictor, "__call__", full)
    assert predict([pictures / name for name in ("color.jpg", "turned.jpg", "tiny.png", "gray.png")]) == 1
    said = capsys.readouterr().err
    assert said.count("there is not enough memory to predict on it") == 3 and "3 of 4 inputs" in said
    errors = iter([RuntimeError("a fault of the program")])
    with pytest.raises(RuntimeError, match="a fault of the program"):
        predict([pictures / "gray.png"])


def test_many_inputs_of_one_name_and_folders_in_the_way(
    predict: Predict, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        tmp_path / str(i) / name for i in range(2) for name in ("A.png", "a.png", "a-2.png", "predictions.json.png")
    ]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        shutil.copy(pictures / "tiny.png", file)
    (tmp_path / "out/a.png").mkdir(parents=True)
    assert predict(files) == 0
    drawings = [i["drawing"] for i in json.loads((tmp_path / "out/predictions.json").read_text())["images"]]
    assert drawings[:2] == ["A.png", "a-2.png"] or drawings[:2] == ["A-2.png", "a-3.png"]
    assert len({d.casefold() for d in drawings}) == 8 and all((tmp_path / "out" / d).is_file() for d in drawings)
    capsys.readouterr()
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out/predictions.json").mkdir(parents=True)
    assert predict(files) == 2
    assert "out: a folder has the place of the file predictions.json" in capsys.readouterr().err


def test_a_video_whose_name_is_not_utf8(
    predict: Predict, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenCV would end the process with a segmentation fault."""
    odd = tmp_path / os.fsdecode(b"clip\xff.avi")
    video.rename(odd)
    assert predict([odd]) == 1
    assert r"clip\xff.avi: OpenCV reads and writes videos only under names in UTF-8" in capsys.readouterr().err


def test_a_model_of_other_pictures_is_refused(
    predict: Predict,
    small_cfg: Callable[..., CfgNode],
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = {"MODEL.PIXEL_MEAN": "[1.0]", "MODEL.PIXEL_STD": "[1.0]"}
    Checkpointer(build_model(small_cfg(keys)), tmp_path).save("gray")
    assert predict([pictures], keys, weights=tmp_path / "gray.pth") == 2
    said = capsys.readouterr().err
    assert "expected a model of pictures with 3 channels, as files have, found 1 in MODEL.PIXEL_MEAN" in said


def test_a_video_whose_name_has_a_colon(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would take what stands before the colon for a protocol."""
    monkeypatch.chdir(tmp_path)
    video.rename("2024-05-01T12:30:00.avi")
    assert len(list(Video(Path("2024-05-01T12:30:00.avi")))) == 6


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


def _opens(path: Path) -> bool:
    return cv2.VideoCapture(str(path)).isOpened()


def test_broken_videos_are_drawn_as_far_as_they_go(
    predict: Predict, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = video.read_bytes()[: video.stat().st_size * 2 // 3]
    heads = (video.read_bytes()[:size] for size in range(100, video.stat().st_size, 100))
    head = next(h for h in heads if (tmp_path / "head.avi").write_bytes(h) and _opens(tmp_path / "head.avi"))
    broken = {"head.avi": head, "cut.avi": cut, "noise.mp4": b"noise" * 99, "void.mkv": b""}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    assert predict([tmp_path / name for name in broken]) == 1
    said = capsys.readouterr().err
    broken_off, noise, empty = "the video breaks off after", "cannot be decoded as a video", "the video file is empty"
    assert "head.avi: no frame of the video can be decoded" in said
    assert "head.avi" not in said[said.rindex("no frame") :]  # it does not count as one in which nothing is detected
    for words in (f"cut.avi: {broken_off}", f"noise.mp4: {noise}", f"void.mkv: {empty}"):
        assert words in said
    assert 0 < len(list(Video(tmp_path / "out/cut.mp4"))) < 6
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cut.mp4", "predictions.json"]


@pytest.mark.parametrize("fps", [0.5, 29.97, 66.667, 119.953, 960.1234, 90000.0])
def test_any_frame_rate_is_written_as_near_as_the_codec_allows(fps: float, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", fps) as writer:
        for brightness in (0, 255):
            writer.write(np.full((48, 64, 3), brightness, np.uint8))
    written = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert written.get(cv2.CAP_PROP_FPS) == pytest.approx(min(fps, 65535), rel=1e-3)
    assert Video(tmp_path / "clip.mp4").fps == (pytest.approx(fps, rel=1e-3) if fps < 10_000 else 25)


def test_inputs_that_cannot_be_looked_at_are_named_and_others_go_on(
    predict: Predict,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As in a folder whose files may be listed and not opened. The superuser, who may run the tests, opens all."""
    whole = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path == inputs[0]:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, **options)

    inputs = [pictures / name for name in ("gray.png", "tiny.png")]
    monkeypatch.setattr("sn2fpn.predict.inputs._Look.match", lambda _, name: iter([(Path(name), Path())]))
    monkeypatch.setattr(Path, "stat", stat)
    assert predict(inputs) == 1
    said = capsys.readouterr().err
    assert f"{inputs[0]}: Permission denied" in said and "1 of 2 inputs could not be read" in said
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [Path(i["file_name"]).name for i in images] == ["tiny.png"]


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
        (["{}/tinny.png"], {}, {}, ["--input", "did you mean", "tiny.png"]),
        (["-"], {}, {}, ["--input -", "standard input"]),
        ([""], {}, {}, ["--input: expected the names of files, found an empty text"]),
        (["{}/tiny.png", "MODEL.DEVICE", "cpu"], {}, {}, ["'MODEL.DEVICE'", "come last"]),
        (["{}/tiny.png", "train.device=cpu"], {}, {}, ["'train.device=cpu'", "come last"]),
        (["{}/tiny.png"], {"weights": "nowhere.pth"}, {}, ["--weights", "nowhere.pth"]),
        (["{}/tiny.png"], {"weights": ""}, {}, ["--weights", "faster_rcnn_R18_sni_shapes.yaml"]),
        (["{}/tiny.png"], {"output": "/dev/null/out"}, {}, ["--output /dev/null/out", "cannot be written"]),
        (["{}/tiny.png"], {"output": "{}/gray.png"}, {}, ["--output: expected a folder, found the file", "gray.png"]),
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


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a fault of the program")])
def test_what_is_done_before_an_error_stays(
    error: Exception,
    predict: Predict,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = Image.Image.save

    def save(image: Image.Image, file: Any, *args: Any, **options: Any) -> None:
        if image.width == 320 and image.height == 192:  # the enlarged tiny.png
            raise error
        whole(image, file, *args, **options)

    monkeypatch.setattr("PIL.Image.Image.save", save)
    inputs = [pictures / name for name in ("color.jpg", "tiny.png", "gray.png")]
    if isinstance(error, OSError):
        assert predict(inputs) == 2
        said = capsys.readouterr().err
        out = tmp_path / "out"
        assert f"--output {out}: cannot be written: cannot write {out / 'tiny.png'}: no space left" in said
        assert said.index("Wrote ") < said.index("cannot be written")
    else:
        with pytest.raises(RuntimeError, match="a fault of the program"):
            predict(inputs)
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [Path(i["file_name"]).name for i in images] == ["color.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["color.jpg", "predictions.json"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), RuntimeError("a fault of the program")])
def test_an_error_in_a_video_keeps_what_is_drawn(
    error: Exception, predict: Predict, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/clip.mp4").write_bytes(b"an older drawing")
    whole, seen = Predictor.__call__, []

    def fails(self: Predictor, image: np.ndarray) -> dict[str, Any]:
        seen.append(image)
        if len(seen) == 4:
            raise error
        return whole(self, image)

    monkeypatch.setattr(Predictor, "__call__", fails)
    with nullcontext() if isinstance(error, torch.OutOfMemoryError) else pytest.raises(RuntimeError, match="a fault"):
        assert predict([video]) == 1
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [(i["frame"], i["drawing"]) for i in images] == [(i, "clip.mp4") for i in range(3)]
    assert len(list(Video(tmp_path / "out/clip.mp4"))) == 3


def test_a_video_on_a_full_disk(tmp_path: Path) -> None:
    """OpenCV says nothing when it cannot write. A limit for the size of files takes the place of the full disk."""
    path = tmp_path / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (20, 120, 160, 3), dtype=np.uint8)

    def write() -> None:
        with VideoWriter(path, 10) as writer:
            for frame in frames:
                writer.write(frame)

    write()
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, limits[1]))
    try:
        with pytest.raises(StorageError) as error:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).startswith(f"cannot write {path}: the file has 0 of 20 frames")
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_what_is_done_at_an_interruption_stays(
    number: signal.Signals, predict: Predict, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Predictor.__call__

    def interrupted(self: Predictor, image: np.ndarray) -> dict[str, Any]:
        if image.shape[0] == 12:  # tiny.png
            os.kill(os.getpid(), number)
        return whole(self, image)

    monkeypatch.setattr(Predictor, "__call__", interrupted)
    assert predict([pictures / name for name in ("color.jpg", "tiny.png", "gray.png")]) == 128 + number
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


@pytest.mark.usefixtures("predict")  # which restores the log
def test_a_python_config_of_others_is_not_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell leaves ~ in `--config-file=~/theirs.py` to the program."""
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "theirs.py"
    file.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    file.chmod(0o666)
    for name in ("~/theirs.py", str(file)):
        argv = [f"--config-file={name}", "--input", str(pictures / "color.jpg"), "--output", str(tmp_path / "out")]
        assert main(argv) == 2
        assert "may be changed by every user of this machine" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_leftovers_of_killed_runs_are_removed_in_sub_folders(predict: Predict, pictures: Path, tmp_path: Path) -> None:
    left = tmp_path / "out/one/.clip.mp4.abcdefgh.part.mp4"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    (tmp_path / "given/one").mkdir(parents=True)
    shutil.copy(pictures / "color.jpg", tmp_path / "given/one")
    assert predict([tmp_path / "given"], recursive=True) == 0
    assert (tmp_path / "out/one/color.jpg").is_file() and not left.exists()


def test_help_does_not_import_torch() -> None:
    code = "import sys, sn2fpn.predict.__main__ as m; m.parser().format_help(); sys.exit('torch' in sys.modules)"
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
