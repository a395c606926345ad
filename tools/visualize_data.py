#!/usr/bin/env python3
"""Draw training data: as annotated, or as the model sees it after augmentation.

    python tools/visualize_data.py --source annotation --config-file configs/faster_rcnn_R50_sni.yaml --output-dir out
    python tools/visualize_data.py --source dataloader --config-file … --num 8 INPUT.CROP.ENABLED True

Draws the first images of DATASETS.TRAIN, or those of the first training batches, into the output folder.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data import build_train_loader, check_classes, get_dataset_dicts, read_image, register_custom
from sn2fpn.data.augmentation import TransformList
from sn2fpn.data.images import check_image_size
from sn2fpn.data.mapper import annotations_to_instances
from sn2fpn.errors import UserError
from sn2fpn.visualization import draw_instances, save_png

Picture = tuple[str, np.ndarray]  # name of the source file, drawn (H, W, 3) uint8 RGB


def annotated(cfg: CfgNode) -> Iterator[Picture]:
    """The images of DATASETS.TRAIN in their own size, with all boxes and masks; crowd regions are named so."""
    names = check_classes(cfg, cfg.DATASETS.TRAIN)
    for record in get_dataset_dicts(cfg.DATASETS.TRAIN, where="DATASETS.TRAIN"):
        image = read_image(record["file_name"], "RGB")
        check_image_size(record, image)
        objects = [{**a, "iscrowd": 0, "category_id": a["category_id"] + len(names) * a.get("iscrowd", 0)}
                   for a in record["annotations"]]
        truth = annotations_to_instances(objects, TransformList([]), image.shape[:2], "bitmask")
        yield record["file_name"], draw_instances(image, truth, [*names, *(f"{name} (crowd)" for name in names)])


def loaded(cfg: CfgNode) -> Iterator[Picture]:
    """The endless stream of training images with their targets, resized, cropped and flipped."""
    names = check_classes(cfg, cfg.DATASETS.TRAIN)
    for item in itertools.chain.from_iterable(build_train_loader(cfg)):
        image = item["image"].permute(1, 2, 0).numpy()
        image = image[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else image
        yield item["file_name"], draw_instances(np.ascontiguousarray(image), item["instances"], names)


SOURCES = {"annotation": annotated, "dataloader": loaded}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=list(SOURCES), required=True,
                        help="annotation: as in the files; dataloader: after augmentation")
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--output-dir", default="./visualized", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--num", type=int, default=20, metavar="N", help="images to draw (default %(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        _draw(args)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


def _draw(args: Any) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list([*args.opts, "DATALOADER.NUM_WORKERS", 0])
    register_custom(cfg.DATASETS.CUSTOM)
    if args.num < 1:
        raise UserError(f"--num {args.num}: expected at least 1")
    pictures = itertools.islice(SOURCES[args.source](cfg), args.num)
    folder = Path(args.output_dir)
    try:
        for number, (file_name, picture) in enumerate(track(pictures, "drawing", total=args.num)):
            save_png(picture, folder / f"{number:05d}_{Path(file_name).stem}.png")  # a stream repeats its images
    except OSError as e:
        raise UserError(f"--output-dir {folder}: cannot be written: {e}") from None


if __name__ == "__main__":
    sys.exit(main())
