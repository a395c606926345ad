"""Predict on all inputs: decode, detect, draw and write."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..atomic import DAY_S, remove_leftovers
from ..errors import UserError
from ..imports import import_files
from ..program import Interrupted
from ..visualization import Shown, shown_detections
from .finding import with_flags
from .inputs import Source, Unreadable, Video, find_sources, is_video, read_picture
from .loading import load_predictor
from .names import printable, shown
from .outputs import (
    PREDICTIONS,
    CocoWriter,
    NoEncoder,
    VideoWriter,
    coco_writer,
    draw_detections,
    name_outputs,
    save_picture,
)
from .predictor import Predictor
from .remarks import Remarks
from .streams import Stream, StreamAddress
from .tiling import TiledPredictor

__all__ = ["run"]

logger = logging.getLogger(__name__)

_LETTERS = 0.022
"""The height of the letters on drawings, as a share of the side of a tile."""


def run(args: Any) -> int:
    """Do what the command line says and return its exit code.

    The code is 0 when all is done, 1 if inputs were left out, and 128 + N if signal number N has stopped it. An error
    is raised after the results so far have been written.

    Raises:
        UserError: there are mistakes in the arguments, which are found before anything is predicted; or there is no
            encoder for videos; or the results cannot be written.
    """
    progress = _progress()
    _log_to(progress.console)
    folder = Path(args.output)
    if folder.is_file():
        raise UserError(f"--output: expected a folder, found the file {shown(folder)}")
    sources, missing = find_sources(args.input, sys.stdin, args.recursive, leave_out=folder)
    with _writing_to(folder):
        outputs = name_outputs(sources, folder)
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        for place in {folder, *(output.parent for output in outputs.values())}:
            remove_leftovers(place, DAY_S)
        if (folder / PREDICTIONS).is_dir():
            raise UserError(f"--output {shown(folder)}: a folder has the place of the file {PREDICTIONS}")
    for name in missing:
        logger.warning("--input: no file matches %s", name)
    import_files(args.imports)
    predictor, categories = load_predictor(args.config_file, args.weights, args.opts, args.trust)
    with _writing_to(folder), coco_writer(folder / PREDICTIONS, categories) as coco, progress:
        found_by = with_flags(predictor, args, partial(_track_tiles, progress))
        job = _Job(found_by, coco, args.score_threshold, progress, args.max_frames, folder)
        failed, stopped = job.run(outputs)
    job.remarks.log()
    images = "1 picture or frame" if coco.images == 1 else f"{coco.images} pictures and frames"
    logger.info("Wrote %d detections in %s to %s", coco.detections, images, folder / PREDICTIONS)
    failed += len(missing)
    if failed:
        logger.error("%d of %d inputs could not be read (see the warnings above)", failed, len(sources) + len(missing))
    if isinstance(stopped, Exception):
        with _writing_to(folder):
            raise stopped
    return stopped.exit_code if stopped else min(failed, 1)


def _progress() -> Progress:
    """Return a progress bar on the standard error stream."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


@dataclass
class _Job:
    """What is needed to predict on a file."""

    predictor: Predictor | TiledPredictor
    coco: CocoWriter
    score_threshold: float
    progress: Progress
    max_frames: int  # of each video and stream; 0 means all
    folder: Path  # the output folder

    def __post_init__(self) -> None:
        tiled = isinstance(self.predictor, TiledPredictor)
        limit = -1 if tiled else getattr(self.predictor.model.roi_heads, "max_detections", -1)
        # Labels that grow with a large picture would hide the small objects that tiles are for.
        self.letters = max(10, round(_LETTERS * self.predictor.tile)) if tiled else None
        self.remarks = Remarks(self.score_threshold, limit)

    def run(self, outputs: Mapping[Source, Path]) -> tuple[int, Interrupted | Exception | None]:
        """Predict on all files, and keep the results so far if a signal or an error stops that.

        Args:
            outputs: the drawing of each file or stream.

        Returns:
            The number of inputs that cannot be read, and what has stopped the prediction, if anything.

        Raises:
            Exception: there was an error, and there are no results yet.
        """
        failed = 0
        for file in self.progress.track(list(outputs), description="inputs"):
            try:
                outputs[file].parent.mkdir(parents=True, exist_ok=True)
                (self.video if is_video(file) else self.picture)(file, outputs[file])
            except Unreadable as e:
                logger.warning("%s", e)
                failed += 1
            except Interrupted as e:
                logger.error("Interrupted at %s", file)
                return failed, e
            except Exception as e:
                if not _is_out_of_memory(e):
                    if not self.coco.images:
                        raise
                    logger.error("An error stopped the prediction at %s", file)
                    return failed, e
                logger.warning("%s: there is not enough memory to predict on it", file)
                failed += 1
        return failed, None

    def picture(self, file: Path, output: Path) -> None:
        """Predict on a picture. If no detection reaches the threshold, the best few are drawn in gray."""
        image = read_picture(file)
        instances = self.predictor(image)["instances"].to("cpu")
        detections = shown_detections(instances, self.score_threshold)
        save_picture(self._draw(image, detections), output)
        self.coco.add(file, instances, drawing=self.drawing(output))
        self.remarks.add(file, [detections.reach], len(instances))

    def video(self, source: Source, output: Path) -> None:
        """Predict on a video or stream frame by frame. One that breaks off or is stopped is drawn as far as it goes."""
        video = Stream(source) if isinstance(source, StreamAddress) else Video(source)
        frames = islice(video, self.max_frames or None)
        total = min(filter(None, (video.frames, self.max_frames)), default=None)
        task = self.progress.add_task(f"  {shown(source.stem)}", total=total)
        reach, found = [], self.coco.detections
        stopped: Interrupted | Exception | None = None
        with VideoWriter(output, video.fps) as writer:
            try:
                for number, image in enumerate(self.progress.track(frames, task_id=task)):
                    reach.append(self._frame(source, image, writer, drawing=self.drawing(output), frame=number))
            except (OSError, NoEncoder):
                raise  # The drawing itself cannot be written.
            except (Interrupted, Exception) as e:  # The drawing is finished before the program goes on or ends.
                stopped = e
            finally:
                self.progress.remove_task(task)
        if reach:
            self.remarks.add(source, reach, self.coco.detections - found)
        if stopped:
            raise stopped
        if not 0 < self.max_frames <= video.frames_read:
            video.check_complete()

    def _frame(self, source: Source, image: np.ndarray, writer: VideoWriter, **more: Any) -> int:
        """Predict on a frame, and return how many detections reach the threshold."""
        instances = self.predictor(image)["instances"].to("cpu")
        sure = instances[instances.scores >= self.score_threshold]
        writer.write(self._draw(image, Shown(sure, len(sure), "")))
        self.coco.add(source, instances, **more)
        return len(sure)

    def _draw(self, image: np.ndarray, detections: Shown) -> np.ndarray:
        return draw_detections(image, detections, self.predictor.class_names, self.letters)

    def drawing(self, output: Path) -> str:
        """Return the name of a drawing as predictions.json has it, inside of the output folder."""
        return output.relative_to(self.folder).as_posix()


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Turn errors of writing into mistakes in `--output`. Inputs that cannot be read raise `Unreadable` instead."""
    try:
        yield
    except OSError as e:
        raise UserError(f"--output {shown(folder)}: cannot be written: {e}") from None


def _track_tiles(progress: Progress, windows: Sequence[Any]) -> Iterator[Any]:
    """Show the progress over the tiles of a picture."""
    task = progress.add_task("  tiles", total=len(windows))
    try:
        yield from progress.track(windows, task_id=task)
    finally:
        progress.remove_task(task)


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that the memory of the machine or of the GPU is used up."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _log_to(console: Console) -> None:
    """Send the log of this package to the console, above its progress bar."""
    root = logging.getLogger("sn2fpn")
    root.setLevel(logging.INFO)
    root.propagate = False
    root.handlers = [_ConsoleHandler(console)]


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(f"{record.levelname}: {self.format(record)}", keep="\n")
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
