"""Export a detector: check the command, write the file, compare and time it, and say what was written."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..atomic import storage_errors
from ..config import get_cfg
from ..data import DatasetCatalog, class_names
from ..data.augmentation import plan_transforms
from ..engine.lazy import LazyRecipe
from ..engine.recipe import CfgRecipe, Recipe
from ..engine.record import check_class_order
from ..errors import UserError, argument_names, counted, did_you_mean
from ..imports import import_files
from ..modeling import StandardROIHeads
from ..predict import Predictor
from ..predict.inputs import IMAGE_SUFFIXES, Unreadable, read_picture
from ..predict.loading import load_predictor
from .comparison import compare, detections_of, time_by_turns
from .files import ENDINGS, check_opset, describe, load_exported, write_exported
from .inference import PlainDetector
from .int8 import quantise
from .libraries import check_torch, require
from .scoring import as_model, recipe_on, score
from .tracing import LARGEST_SIDE, SMALLEST_SIDE

__all__ = ["run"]

logger = logging.getLogger(__name__)


def run(args: Any) -> int:
    """Do what the command line says and return its exit code.

    Raises:
        UserError: there are mistakes in the arguments, which are found before anything is written.
    """
    path = Path(args.output)
    _check(args, path)
    import_files(args.imports)
    predictor, recipe = _load(args)
    model = PlainDetector(predictor.model)
    with argument_names({"opset": "--opset"}):
        opset = check_opset(args.opset, model) if args.format == "onnx" else None
    reader = _Reader(predictor, args)
    images = [reader.read(name, "--check") for name in args.check]
    calibration = [reader.read(name, "--int8") for name in args.int8]
    image = reader.drawn()
    evaluated = _evaluated(args, predictor, recipe) if args.evaluate else None
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "float.onnx" if args.int8 else path
        about = _metadata(predictor, recipe)
        write_exported(model, image, first, args.format, about, dynamic=_is_dynamic(args), opset=opset)
        if args.int8:
            share = quantise(first, path, calibration)
            print(f"quantised: {share:.0%} of the weights of convolutions and matrix products")
    return _report(args, path, predictor, evaluated, [image, *images])


def _check(args: Any, path: Path) -> None:
    """Raise UserError for the first mistake that shows without the model."""
    check_torch()
    ending = ENDINGS[args.format]
    if path.suffix != ending:
        raise UserError(f"--output {path}: expected a name that ends in {ending} for --format {args.format}")
    if path.is_dir() or (path.exists() and not args.overwrite):
        raise UserError(f"--output {path}: it exists already; choose another name or add --overwrite")
    if args.format != "onnx":
        for flag in ("opset", "int8"):
            if getattr(args, flag):
                raise UserError(f"--{flag} belongs to --format onnx, found --format {args.format}")
    else:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "--format onnx")
    for side, name in zip(args.size or (), ("height", "width")):
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            expected = f"expected {SMALLEST_SIDE} to {LARGEST_SIDE} pixels"
            raise UserError(f"--size {' '.join(map(str, args.size))}: {expected} for the {name}, found {side}")
    if args.evaluate and args.config_file.endswith(".py"):
        raise UserError("--evaluate needs a YAML configuration; use python train_net.py --eval-only for a Python one")
    if args.evaluate and not _is_dynamic(args):
        raise UserError("--evaluate needs a file for images of any size; leave out --size")
    with storage_errors(path):  # now, because the export takes a while
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def _is_dynamic(args: Any) -> bool:
    """Return whether the file takes images of any size."""
    return not args.size or args.format == "torchscript"


def _check_heads(heads: StandardROIHeads) -> None:
    """Raise UserError for RoI heads that compute something else than the exported graph."""
    if heads.soft_nms is not None:
        raise UserError(
            "MODEL.ROI_HEADS.SOFT_NMS.METHOD (model.roi_heads.soft_nms in a Python configuration): expected none for "
            "an export, since the number of steps of soft-NMS depends on the detections, which a traced graph cannot "
            "express; the graph has plain non-maximum suppression"
        )


def _load(args: Any) -> tuple[Predictor, Recipe]:
    """Return the model on the CPU with its resizing and class names, and its recipe."""
    predictor, _ = load_predictor(args.config_file, args.weights, args.opts, args.trust, device="cpu")
    predictor.model.eval()
    _check_heads(predictor.model.roi_heads)
    if predictor.augmented is not None:
        logger.warning("TEST.AUG.ENABLED True has no effect on the file, which detects without test-time augmentation")
    if args.config_file.endswith(".py"):
        return predictor, LazyRecipe(args.config_file, args.opts).on_device("cpu")
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list([*args.opts, "MODEL.DEVICE", "cpu"])
    return predictor, CfgRecipe(cfg)


def _evaluated(args: Any, predictor: Predictor, recipe: Recipe) -> CfgRecipe:
    """Return the recipe of the evaluation, whose data set must have its classes in the order of the checkpoint."""
    evaluated = recipe_on(recipe.cfg, args.evaluate, "--evaluate")
    file, data = args.weights or recipe.options.weights, f"data set {args.evaluate!r}"
    with argument_names({"path": "--evaluate"}):
        check_class_order(predictor.trained_names, class_names(args.evaluate), file, data)
    if args.format == "torch_export":
        _check_sizes(predictor, args.evaluate)
    return evaluated


def _check_sizes(predictor: Predictor, data_set: str) -> None:
    """Raise UserError for an image of a data set that is resized to sides which a file of torch.export refuses."""
    for record in DatasetCatalog.read(data_set):
        size = (record["height"], record["width"])
        if predictor.resize is not None:
            size = plan_transforms([predictor.resize], size, np.random.default_rng(0)).output_size(size)
        _check_sides(size, f"--evaluate {data_set}: {record['file_name']}: after resizing by ")


def _check_sides(size: tuple[int, int], whose: str) -> None:
    if not SMALLEST_SIDE <= min(size) <= max(size) <= LARGEST_SIDE:
        expected = f"expected pictures with sides from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels"
        keys = "INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST"
        raise UserError(f"{whose}{keys}: {expected}, found {size[0]} x {size[1]}")


def _metadata(predictor: Predictor, recipe: Recipe) -> dict[str, Any]:
    """Return what the file says about itself."""
    resize = predictor.resize
    sizes = {} if resize is None else {"min_size": resize.short_edges[0], "max_size": resize.max_size}
    return {
        "producer": f"sn2fpn {__version__}",
        "class_names": predictor.class_names,
        "input_format": predictor.model.input_format,
        **sizes,
        "configuration": recipe.dump(),
    }


class _Reader:
    """Reads pictures as the inputs of the graph.

    Args:
        predictor: the model, which says how pictures are resized.
        args: the command line, with `size` and `dtype`.
    """

    def __init__(self, predictor: Predictor, args: Any) -> None:
        self._predictor, self._size, self._dtype = predictor, args.size, getattr(torch, args.dtype)

    def read(self, name: str, flag: str) -> Tensor:
        """Return a picture (Tensor[C, H, W]); `flag` is the flag that names it.

        Raises:
            UserError: the file is missing or is no picture.
        """
        path = Path(name)
        if path.is_dir():
            raise UserError(
                f"{flag} {name}: expected pictures, found a folder; name its files, such as {path / '*.jpg'}"
            )
        if not path.is_file():
            if name.isupper():
                raise UserError(
                    f"{flag} {name}: expected a picture; put another flag between the pictures and the keys"
                )
            raise UserError(f"{flag} {name}: there is no such picture{_similar_pictures(path)}")
        try:
            return self._as_input(read_picture(path), f"{flag} {name}: after resizing by ")
        except Unreadable as e:
            raise UserError(f"{flag} {e}") from None

    def drawn(self) -> Tensor:
        """Return a picture of drawn shapes, for tracing and timing."""
        height, width = self._size or (480, 640)
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
        return self._as_input(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))

    def _as_input(self, image: np.ndarray, whose: str = "") -> Tensor:
        """Return a picture (H, W, 3) in BGR order as the graph takes it; `whose` begins the message of an error."""
        if self._predictor.model.input_format == "RGB":
            image = image[:, :, ::-1]
        if self._size:
            image = cv2.resize(np.ascontiguousarray(image), self._size[::-1], interpolation=cv2.INTER_LINEAR)
        elif self._predictor.resize is not None:
            transforms = plan_transforms([self._predictor.resize], image.shape[:2], np.random.default_rng(0))
            image = transforms.apply_image(image)
        _check_sides(image.shape[:2], whose)
        return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")).to(self._dtype)


def _similar_pictures(path: Path) -> str:
    """Return a suggestion if a picture beside a missing one has a similar name."""
    nearby = [file for file in path.parent.glob("*.*") if file.suffix.lower() in IMAGE_SUFFIXES]
    return did_you_mean(str(path), map(str, nearby)) if nearby else ""


def _report(args: Any, path: Path, predictor: Predictor, evaluated: CfgRecipe | None, images: Sequence[Tensor]) -> int:
    """Print what the file is, how it differs from the model and how long it takes, and return the exit code."""
    threads = torch.get_num_threads()
    exported = load_exported(path, args.format, threads)
    differences = [compare(exported(image), detections_of(predictor.model, image)) for image in images]
    print(*describe(path, args.format, exported(images[0]), images[0], _is_dynamic(args)), sep="\n")
    for name, difference in zip(["the drawn picture", *args.check], differences):
        print(f"  {name}: {difference}")
    ours, theirs = time_by_turns([lambda: detections_of(predictor.model, images[0]), lambda: exported(images[0])])
    engine = "onnxruntime" if args.format == "onnx" else "the file"
    size = "x".join(map(str, images[0].shape[1:]))
    print(
        f"  time per image of {size} on {counted(threads, 'CPU thread')}: model {ours:.3f} s, {engine} {theirs:.3f} s"
    )
    if evaluated:
        before = score(predictor.model, evaluated)
        after = score(as_model(exported, images[0].dtype), evaluated)
        for task in before:
            change = after[task] - before[task]
            print(f"  {task} AP on {args.evaluate}: model {before[task]:.2f}, file {after[task]:.2f} ({change:+.2f})")
    equal = all(difference.equal for difference in differences)
    if not equal and not args.int8:
        print("warning: the detections differ by more than rounding, see above")
    if not any(difference.compared for difference in differences):
        print(
            "warning: the file was not compared with the model, because neither detects anything in "
            f"{'these pictures' if args.check else 'the drawn picture'}; add --check with pictures of objects that the "
            "model finds"
        )
    return 0 if equal or args.int8 else 1
