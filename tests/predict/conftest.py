"""Fixtures for prediction: a small detector with random weights, and pictures of all kinds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from sn2fpn.checkpoint import Checkpointer
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data.shapes import write_shapes
from sn2fpn.modeling import build_model
from sn2fpn.predict.__main__ import main

CONFIG = Path(__file__).parents[2] / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"
KEYS: dict[str, Any] = {
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 96,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "TEST.DETECTIONS_PER_IMAGE": 10,
    "DATALOADER.NUM_WORKERS": 0,
}


def as_list(keys: dict[str, Any]) -> list[str]:
    return [str(x) for pair in keys.items() for x in pair]


@pytest.fixture(scope="session")
def small_cfg(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CfgNode]:
    """A function that returns a configuration with changes, such as {"MODEL.MASK_ON": True}, and random weights."""
    folder = tmp_path_factory.mktemp("weights")

    def make(changes: dict[str, Any] | None = None) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(str(CONFIG))
        cfg.merge_from_list(as_list(KEYS | (changes or {})))
        file = folder / f"{'mask' if cfg.MODEL.MASK_ON else 'box'}.pth"
        if not file.exists():
            torch.manual_seed(3)
            Checkpointer(build_model(cfg), folder).save(file.stem)
        cfg.MODEL.WEIGHTS = str(file)
        return cfg

    return make


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a data set with 3 pictures in `val` and one in `train`."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, {"train": (1, 1), "val": (3, 2)})
    return root


@pytest.fixture
def pictures(tmp_path: Path, shapes: Path) -> Path:
    """A folder with a JPEG, a gray PNG, a picture rotated by EXIF, a tiny one, and two that cannot be read."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    image = Image.open(shapes / "val/000001.jpg")
    image.save(folder / "color.jpg")
    image.convert("L").save(folder / "gray.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.resize((90, 60)).save(folder / "turned.jpg", exif=exif)
    image.resize((20, 12)).save(folder / "tiny.png")
    (folder / "broken.jpg").write_bytes((folder / "color.jpg").read_bytes()[:2000])
    (folder / "empty.png").touch()
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A lossless video of 6 frames of 64x48 pixels at 12.5 frames per second, each brighter than the one before."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 12.5, (64, 48))
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    for i in range(6):
        frame = (40 * i + rng.integers(0, 40, (48, 64, 3))).astype(np.uint8)
        frame[10:30, 8 * i : 8 * i + 16] = (0, 200, 255)
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture
def predict(small_cfg: Callable[..., CfgNode], tmp_path: Path) -> Iterator[Callable[..., int]]:
    """A function that runs the command line with the output folder `tmp_path/out` and returns the exit code.

    Flags are given as `score_threshold=0.3`, those without a value as `flip=True`, and those with several as a list.
    """
    logger = logging.getLogger("sn2fpn")
    before = logger.handlers, logger.propagate, logger.level

    def run(inputs: list[Any], keys: dict[str, Any] | None = None, **flags: Any) -> int:
        weights = small_cfg(keys).MODEL.WEIGHTS
        flags |= {"config_file": CONFIG, "weights": weights, "output": tmp_path / "out"} | flags
        words = [
            (f"--{k.replace('_', '-')}", *(v if isinstance(v, list) else () if v is True else (v,)))
            for k, v in flags.items()
        ]
        argv = [str(x) for flag in words for x in flag]
        inputs = ["--input", *map(str, inputs)]
        return main([*inputs, *argv, *as_list(KEYS | (keys or {}))])

    yield run
    logger.handlers, logger.propagate, logger.level = before
