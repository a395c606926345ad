#!/usr/bin/env python3
"""Draw training data as annotated, or as the model sees it after augmentation.

    python tools/visualize_data.py --source annotation --config-file configs/faster_rcnn_R50_sni.yaml --output-dir out
    python tools/visualize_data.py --source dataloader --config-file … --num 8 INPUT.CROP.ENABLED True
    python tools/visualize_data.py --source dataloader --config-file configs/lazy/quick_shapes.py --show

The tool draws the first images of the training sets, or the images of the first training batches. It writes them to the
output folder or, with --show, shows them in windows, one after the other.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from sn2fpn.command_line import CommandLineParser
from sn2fpn.config import get_cfg
from sn2fpn.data import class_names, get_dataset_dicts, read_image
from sn2fpn.data.images import check_image_size
from sn2fpn.data.selection import require_annotations
from sn2fpn.data.targets import annotations_to_instances
from sn2fpn.data.transforms import TransformList
from sn2fpn.engine.lazy import LazyRecipe, set_names
from sn2fpn.engine.recipe import CfgRecipe, Recipe
from sn2fpn.errors import UserError
from sn2fpn.imports import import_files
from sn2fpn.program import run_program
from sn2fpn.visualization import draw_instances, save_png

Picture = tuple[str, np.ndarray]  # the name of the image file, and the drawn image, (H, W, 3) uint8 RGB


class TrainingData(NamedTuple):
    """The training data of a configuration."""

    sets: Sequence[str]
    key: str  # the key that names the sets
    loader: Callable[[], Iterable[list[dict[str, Any]]]]  # endless batches of model inputs
    image_format: str  # the channel order of the inputs


def from_yaml(config_file: str, opts: Sequence[str]) -> TrainingData:
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(opts))
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "DATASETS.TEST", ()])
    return _checked(CfgRecipe(cfg), cfg.DATASETS.TRAIN, cfg.INPUT.FORMAT)


def from_python(config_file: str, opts: Sequence[str]) -> TrainingData:
    recipe = LazyRecipe(config_file, [*opts, "dataloader.train.num_workers=0", "dataloader.test=null"])
    loader = recipe.cfg.dataloader.train
    return _checked(recipe, set_names(loader) or [], loader.mapper.get("image_format", "BGR"))


def _checked(recipe: Recipe, sets: Sequence[str], image_format: str) -> TrainingData:
    key = recipe.options.key("train_sets")
    if not sets:
        raise UserError(f"{key}: expected the name of a data set to draw, found none")
    recipe.check_data(eval_only=False)
    seed = max(recipe.options.seed, 0)
    return TrainingData(sets, key, lambda: recipe.build_train_loader(0, seed), image_format)


def annotated(data: TrainingData) -> Iterator[Picture]:
    """Yield the images in their own size with all boxes and masks, including crowd regions, which are labelled."""
    names = class_names(data.sets[0])
    records = get_dataset_dicts(data.sets, where=data.key)
    require_annotations(records, f"{data.key}: data set {', '.join(data.sets)}")
    for record in records:
        image = read_image(record["file_name"], "RGB")
        check_image_size(record, image)
        objects = [
            {**a, "iscrowd": 0, "category_id": a["category_id"] + len(names) * a.get("iscrowd", 0)}
            for a in record["annotations"]
        ]
        truth = annotations_to_instances(objects, TransformList([]), image.shape[:2], "bitmask")
        yield record["file_name"], draw_instances(image, truth, [*names, *(f"{name} (crowd)" for name in names)])


def loaded(data: TrainingData) -> Iterator[Picture]:
    """Yield the endless stream of augmented training images with their targets."""
    names = class_names(data.sets[0])
    for item in itertools.chain.from_iterable(data.loader()):
        image = item["image"].permute(1, 2, 0).numpy()
        image = image[:, :, ::-1] if data.image_format == "BGR" else image
        yield item["file_name"], draw_instances(np.ascontiguousarray(image), item["instances"], names)


SOURCES = {"annotation": annotated, "dataloader": loaded}


def main(argv: list[str] | None = None) -> int:
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source",
        choices=list(SOURCES),
        required=True,
        help="annotation: draw the annotated images; dataloader: draw the augmented images",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML or Python config")
    parser.add_argument(
        "--output-dir", default="./visualized", metavar="FOLDER", help="folder to write to (default: %(default)s)"
    )
    parser.add_import()
    parser.add_argument("--show", action="store_true", help="show the images in windows instead of writing them")
    parser.add_argument("--num", type=int, default=20, metavar="N", help="number of images (default: %(default)s)")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys to change (key=value for a Python config)",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    return run_program(lambda: _draw(args))


def _draw(args: argparse.Namespace) -> None:
    if args.num < 1:
        raise UserError(f"--num {args.num}: expected at least 1")
    import_files(args.imports)
    read = from_python if args.config_file.endswith(".py") else from_yaml
    pictures = itertools.islice(SOURCES[args.source](read(args.config_file, args.opts)), args.num)
    if args.show:
        for file_name, picture in pictures:
            _show(file_name, picture)
        return
    folder = Path(args.output_dir)
    try:
        for number, (file_name, picture) in enumerate(track(pictures, "drawing", total=args.num)):
            # The number keeps the repetitions of an image apart.
            save_png(picture, folder / f"{number:05d}_{Path(file_name).stem}.png")
    except OSError as e:
        raise UserError(f"--output-dir {folder}: cannot be written: {e}") from None


def _show(title: str, picture: np.ndarray) -> None:
    """Show an image in a window until the user closes it."""
    import matplotlib
    from matplotlib import pyplot

    try:
        pyplot.figure(title)
        opens = matplotlib.get_backend().lower() != "agg"  # Matplotlib falls back to this backend
    except ImportError:
        opens = False
    if not opens:
        raise UserError(
            "--show: no window can be opened, because there is no display or no window toolkit such as tkinter; "
            "omit --show to write the images to --output-dir"
        )
    pyplot.imshow(picture)
    pyplot.axis("off")
    pyplot.tight_layout(pad=0)
    pyplot.show()


if __name__ == "__main__":
    sys.exit(main())
