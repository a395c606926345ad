"""Write the output folder: drawn pictures and videos, and all detections as a COCO file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from ..atomic import StorageError, atomic_path, atomic_write
from ..data.categories import Category
from ..errors import UserError, counted
from ..evaluation.detections import ImageDetections, to_coco_results
from ..structures import Instances
from ..visualization import Shown, draw_shown
from .inputs import Source, check_utf8, is_video
from .names import free_names, in_json, shown
from .streams import StreamAddress

__all__ = [
    "CocoWriter",
    "NoEncoder",
    "check_inputs_stay",
    "coco_writer",
    "draw_detections",
    "name_outputs",
    "save_picture",
    "VideoWriter",
]

PREDICTIONS = "predictions.json"
_MIN_LONG_PX, _MIN_SHORT_PX, _MAX_LONG_PX = 320, 64, 4000
"""Pictures with shorter sides are enlarged, so that labels can be read on them; strips only up to the last number."""
_CODEC = "mp4v"
"""MPEG-4 part 2, the one MP4 encoder that every OpenCV with FFmpeg has."""


def name_outputs(sources: Mapping[Source, Path], folder: Path) -> dict[Source, Path]:
    """Return the file of the drawing of each input.

    It has the name of the input, with a number where names repeat. JPEG stays JPEG, other pictures become PNG, and
    videos and streams become MP4.

    Args:
        sources: the inputs, each with the sub-folder that its drawing belongs in.
        folder: the output folder.

    Raises:
        UserError: a drawing would replace an input, or a link in the output folder leads a drawing out of it.
    """
    outputs = dict(zip(sources, free_names(list(sources), folder, _suffix, {PREDICTIONS}, list(sources.values()))))
    check_inputs_stay(outputs)
    root = Path(os.path.realpath(folder))
    for place in {output.parent for output in outputs.values()}:
        if not Path(os.path.realpath(place)).is_relative_to(root):
            raise UserError(f"--output {shown(folder)}: the link {shown(place)} leads out of the folder; remove it")
    return outputs


def check_inputs_stay(outputs: Mapping[Any, Path]) -> None:
    """Check that no output replaces an input.

    Args:
        outputs: the output of each input.

    Raises:
        UserError: one does.
    """
    inputs = {os.path.realpath(file) for file in outputs if isinstance(file, Path)}
    for file, output in outputs.items():
        if os.path.realpath(output) in inputs:
            raise UserError(
                f"--output {output.parent}: the drawing of {shown(file)} would replace the input {shown(output)}; "
                "choose another folder"
            )


def _suffix(source: Source) -> str:
    if isinstance(source, StreamAddress) or is_video(source):
        return ".mp4"
    return source.suffix if source.suffix.lower() in (".jpg", ".jpeg") else ".png"


def draw_detections(
    image: np.ndarray, detections: Shown, class_names: Sequence[str], font_size_px: int | None = None
) -> np.ndarray:
    """Draw chosen detections on a picture. Small pictures are enlarged first.

    Args:
        image: the picture in BGR order (array [H, W, 3] of uint8).
        detections: the detections to draw, in the pixels of the picture.
        class_names: the name of each class.
        font_size_px: the height of the letters; None makes them grow with the picture.

    Returns:
        The drawing in RGB order (array [s * H, s * W, 3] of uint8), where s is the factor of enlargement.
    """
    image = image[:, :, ::-1]
    long, short = max(image.shape[:2]), min(image.shape[:2])
    factor = max(math.ceil(_MIN_LONG_PX / long), min(math.ceil(_MIN_SHORT_PX / short), _MAX_LONG_PX // long))
    if factor > 1:
        height, width = (factor * side for side in image.shape[:2])
        picture = Image.fromarray(np.ascontiguousarray(image))
        image = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
        detections = detections.scaled((height, width))
    return draw_shown(image, detections, class_names, font_size_px)


def save_picture(image: np.ndarray, path: Path) -> None:
    """Write a picture in RGB order as PNG or JPEG, by the suffix of the name, completely or not at all."""
    with atomic_write(path, "wb") as file:
        Image.fromarray(image).save(file, format="PNG" if path.suffix == ".png" else "JPEG", quality=95)


class NoEncoder(UserError):
    """The installed OpenCV cannot write videos."""


class VideoWriter:
    """Writes an MP4 file completely or not at all. It is used in a `with` statement.

    Without a frame no file is written. If a side of the frames is odd, the format demands that its last row or column
    is cut off.

    Args:
        path: the file to write.
        fps: number of frames per second.

    Raises:
        StorageError: at the end of the `with` statement: the file is not complete.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer = cv2.VideoWriter()
        self._shape: tuple[int, ...] = ()
        self._frames = 0
        self._file = ExitStack()

    def write(self, frame: np.ndarray) -> None:
        """Append a frame in RGB order (array [H, W, 3] of uint8), which has the size of those before it.

        Raises:
            NoEncoder: this OpenCV cannot write MP4.
        """
        if not self._writer.isOpened():
            self._open(frame)
        self._writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
        self._frames += frame.shape == self._shape  # OpenCV leaves out frames of other sizes

    def _open(self, frame: np.ndarray) -> None:
        check_utf8(self._path)
        name = str(self._file.enter_context(atomic_path(self._path, ".part.mp4")))
        if not self._writer.open(name, cv2.VideoWriter.fourcc(*_CODEC), _writable_rate(self._fps), frame.shape[1::-1]):
            raise NoEncoder(
                f"{self._path}: this OpenCV ({cv2.__version__}) cannot write MP4 videos (codec "
                f"{_CODEC!r}); the one in the package opencv-python-headless can"
            )
        self._shape = frame.shape
        self._file.push(lambda error, *_: self._check(name) if error is None else None)
        self._file.callback(self._writer.release)

    def _check(self, name: str) -> None:
        """Check that the finished file has all frames, since OpenCV does not say when it cannot write.

        Raises:
            StorageError: frames are missing.
        """
        video = cv2.VideoCapture(name)
        found = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
        if found < self._frames:
            raise StorageError(
                f"cannot write {self._path}: the file has {found} of {counted(self._frames, 'frame')}, as on a full "
                "disk. An older file of this name is intact"
            )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)


def _writable_rate(fps: float) -> float:
    """Return the nearest frame rate that the codec can store.

    It is a fraction of numbers with at most 16 bits, which OpenCV makes from up to three decimals.
    """
    most = 2**16 - 1
    return next((rate for digits in range(3, -1, -1) if (rate := round(fps, digits)) * 10**digits <= most), most)


class CocoWriter:
    """Writes a COCO file of detections as they come; `coco_writer` makes one.

    Attributes:
        detections: number of detections that were written.
    """

    def __init__(self, file: IO[str], categories: Sequence[Category]) -> None:
        self._file = file
        self._category_ids = [c["id"] for c in categories]
        self._images: list[dict[str, Any]] = []
        self.detections = 0
        file.write(f'{{"categories": {json.dumps(list(categories))},\n"annotations": [')

    def add(self, file_name: Source, instances: Instances, **more: Any) -> None:
        """Write the detections in one picture, or in one frame of a video.

        Args:
            file_name: the file of the picture or video, or the address of the stream.
            instances: the detections, in the pixels of the picture.
            **more: further plain values for the entry of the picture, such as `frame`.
        """
        height, width = instances.image_size
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "file_name": in_json(file_name), "height": height, "width": width, **more})
        for result in to_coco_results([ImageDetections.from_instances(image_id, instances)], self._category_ids):
            self.detections += 1
            mask, (_, _, w, h) = result.get("segmentation"), result["bbox"]
            area = float(mask_utils.area(mask)) if mask else w * h
            entry = {"id": self.detections, **result, "area": area, "iscrowd": 0}
            self._file.write(",\n" * (self.detections > 1) + json.dumps(entry, allow_nan=False))

    @property
    def images(self) -> int:
        """The number of pictures and frames, with or without detections."""
        return len(self._images)

    def finish(self) -> None:
        """Write the end of the file, which lists the pictures."""
        self._file.write(f'],\n"images": {json.dumps(self._images)}}}\n')


@contextmanager
def coco_writer(path: Path, categories: Sequence[Category]) -> Iterator[CocoWriter]:
    """Write a COCO file whose annotations are detections with a `score`, completely or not at all.

    `pycocotools.coco.COCO` reads the file, and its "annotations" are in COCO's result format. Detections are written
    as they come because a long video has more of them than fit into memory.

    Args:
        path: the file to write.
        categories: the categories, ordered by contiguous class id.
    """
    with atomic_write(path) as file:
        writer = CocoWriter(file, categories)
        yield writer
        writer.finish()
