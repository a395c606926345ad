"""What predicting leaves in the output folder: drawn pictures and videos, and all detections as COCO JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from ..atomic import atomic_path, atomic_write
from ..data.categories import Category
from ..errors import UserError
from ..evaluation.detections import ImageDetections, to_coco_results
from ..structures import Instances
from ..visualization import draw_instances, scale_instances
from .inputs import is_video

__all__ = ["CocoWriter", "coco_writer", "draw_detections", "name_outputs", "save_picture", "VideoWriter"]

PREDICTIONS = "predictions.json"
# Labels have 10 pixels at least: smaller pictures are enlarged to be drawn on, strips up to the last of these.
_MIN_LONG_PX, _MIN_SHORT_PX, _MAX_LONG_PX = 320, 64, 4000
_CODEC = "mp4v"  # MPEG-4 part 2: the one MP4 encoder that every OpenCV with FFmpeg has


def name_outputs(files: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The drawing's file for each input: its name, numbered where names repeat; JPEG stays JPEG, else PNG or MP4.

    Raises:
        UserError: a drawing would replace an input.
    """
    inputs = {file.resolve() for file in files}
    outputs: dict[Path, Path] = {}
    taken = {PREDICTIONS}
    for file in files:
        jpeg = file.suffix.lower() in (".jpg", ".jpeg")
        suffix = ".mp4" if is_video(file) else file.suffix if jpeg else ".png"
        name, number = file.stem + suffix, 2
        while name in taken:
            name, number = f"{file.stem}-{number}{suffix}", number + 1
        taken.add(name)
        outputs[file] = folder / name
        if outputs[file].resolve() in inputs:
            raise UserError(
                f"--output {folder}: the drawing of {file} would replace the input {outputs[file]}; "
                "choose another folder"
            )
    return outputs


def draw_detections(
    image: np.ndarray, instances: Instances, class_names: Sequence[str], score_threshold: float
) -> np.ndarray:
    """Detections of at least `score_threshold` on a picture; a small picture is enlarged first.

    Args:
        image: (H, W, 3) uint8 BGR.

    Returns:
        (H, W, 3) uint8 RGB; a small one by a whole factor larger.
    """
    image = image[:, :, ::-1]
    instances = instances[instances.scores >= score_threshold].to("cpu")
    long, short = max(image.shape[:2]), min(image.shape[:2])
    factor = max(math.ceil(_MIN_LONG_PX / long), min(math.ceil(_MIN_SHORT_PX / short), _MAX_LONG_PX // long))
    if factor > 1:
        height, width = (factor * side for side in image.shape[:2])
        picture = Image.fromarray(np.ascontiguousarray(image))
        image = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
        instances = scale_instances(instances, (height, width))
    return draw_instances(image, instances, class_names)


def save_picture(image: np.ndarray, path: Path) -> None:
    """(H, W, 3) uint8 RGB as PNG or JPEG, by the name's suffix; complete or not at all."""
    with atomic_write(path, "wb") as file:
        Image.fromarray(image).save(file, format="PNG" if path.suffix == ".png" else "JPEG", quality=95)


class VideoWriter:
    """Writes (H, W, 3) uint8 RGB frames, all of one size, as MP4; complete or not at all, used with `with`.

    Without a frame no file is written. Of an odd side the last row or column is cut off, as the format demands.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer = cv2.VideoWriter()
        self._file = ExitStack()

    def write(self, frame: np.ndarray) -> None:
        """Append a frame.

        Raises:
            UserError: OpenCV cannot write MP4 here.
        """
        if not self._writer.isOpened():
            name = str(self._file.enter_context(atomic_path(self._path, ".part.mp4")))
            if not self._writer.open(name, cv2.VideoWriter.fourcc(*_CODEC), self._fps, frame.shape[1::-1]):
                raise UserError(
                    f"{self._path}: this OpenCV ({cv2.__version__}) cannot write MP4 videos (codec "
                    f"{_CODEC!r}); that of the package opencv-python-headless can"
                )
        self._writer.write(np.ascontiguousarray(frame[:, :, ::-1]))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.release()
        self._file.__exit__(*error)


class CocoWriter:
    """Writes a COCO file of detections as they come; see `coco_writer`."""

    def __init__(self, file: IO[str], categories: Sequence[Category]) -> None:
        self._file = file
        self._category_ids = [c["id"] for c in categories]
        self._images: list[dict[str, Any]] = []
        self.detections = 0
        file.write(f'{{"categories": {json.dumps(list(categories))},\n"annotations": [')

    def add(self, file_name: Path, instances: Instances, **more: Any) -> None:
        """The detections in one picture, or in one frame of a video.

        Args:
            instances: in the picture's pixels.
            more: further plain values of the picture's entry, such as `frame`.
        """
        height, width = instances.image_size
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "file_name": str(file_name), "height": height, "width": width, **more})
        for result in to_coco_results([ImageDetections.from_instances(image_id, instances)], self._category_ids):
            self.detections += 1
            mask, (_, _, w, h) = result.get("segmentation"), result["bbox"]
            area = float(mask_utils.area(mask)) if mask else w * h
            entry = {"id": self.detections, **result, "area": area, "iscrowd": 0}
            self._file.write(",\n" * (self.detections > 1) + json.dumps(entry))

    def finish(self) -> None:
        self._file.write(f'],\n"images": {json.dumps(self._images)}}}\n')


@contextmanager
def coco_writer(path: Path, categories: Sequence[Category]) -> Iterator[CocoWriter]:
    """Write a COCO file whose annotations are detections with a `score`; complete or not at all.

    `pycocotools.coco.COCO` reads it, and its "annotations" are COCO's result format. Detections go to the disk as
    they come: a long video has more than fit into memory.

    Args:
        categories: by contiguous class id.
    """
    with atomic_write(path) as file:
        writer = CocoWriter(file, categories)
        yield writer
        writer.finish()
