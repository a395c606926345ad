#!/usr/bin/env python3
"""Compare the inputs, detections, losses and gradients of one configuration in the native engine and in Detectron2.

    python tools/compare_engines.py --config-file configs/faster_rcnn_R50_sni.yaml
    python tools/compare_engines.py --config-file configs/… --weights output/model_final.pth MODEL.SNI.ALPHA 0.5

This tool needs Detectron2. It runs the full model on a CPU with two small synthetic images. The weights are random
unless --weights names a checkpoint. If the engines agree, the differences are about as large as float32 rounding.

Detectors sort, threshold and sample, so that a difference in the last digit may select another proposal, after which
all numbers differ. Therefore the networks compute in float64 here. --float32 shows the differences in normal use.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings

from tabulate import tabulate

from sn2fpn.command_line import CommandLineParser
from sn2fpn.engine.choice import choose_engine
from sn2fpn.imports import import_files
from sn2fpn.program import run_program


def main(argv: list[str] | None = None) -> int:
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML config")
    parser.add_import()
    parser.add_argument("--weights", default="", metavar="FILE", help="checkpoint for both (default: random weights)")
    parser.add_argument("--images", type=int, default=2, metavar="N", help="number of images (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of random weights and images (default: %(default)s)"
    )
    parser.add_argument("--float32", action="store_true", help="compute in float32, as in normal use")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    return run_program(lambda: _compare(args))


def _compare(args: argparse.Namespace) -> None:
    import_files(args.imports)
    choose_engine("detectron2", args.config_file)
    from engine_comparison import compare_engines  # needs Detectron2

    logging.getLogger("sn2fpn").setLevel(logging.WARNING)
    rows = compare_engines(args.config_file, args.opts, args.weights, args.images, args.seed, exactly=not args.float32)
    cells = [(r.what, f"{r.largest:.2e}", r.where) for r in rows]
    print(tabulate(cells, headers=("native - detectron2", "largest difference", "")))


if __name__ == "__main__":
    sys.exit(main())
