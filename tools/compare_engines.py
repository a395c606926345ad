#!/usr/bin/env python3
"""The same configuration in both engines: how far are inputs, detections, losses and gradients apart?

    python tools/compare_engines.py --config-file configs/faster_rcnn_R50_sni.yaml
    python tools/compare_engines.py --config-file configs/… --weights output/model_final.pth MODEL.SNI.ALPHA 0.5

Needs Detectron2. Runs on the CPU on two small synthetic pictures; parameters are those of the full model, random
unless --weights names a checkpoint. Differences are of the order of float32 rounding when the engines agree.

Detectors sort, threshold and sample, so a last digit may choose another proposal, after which every number differs.
Therefore convolutions and matrix products compute in float64 here; --float32 shows how it is in use.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings

from sn2fpn.engine.choice import choose_engine
from sn2fpn.errors import UserError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML config")
    parser.add_argument("--weights", default="", metavar="FILE", help="checkpoint for both (default: random weights)")
    parser.add_argument("--images", type=int, default=2, metavar="N", help="pictures (default 2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random weights and pictures (default 0)")
    parser.add_argument("--float32", action="store_true", help="compute as in use")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    try:
        choose_engine("detectron2", args.config_file)
        from tabulate import tabulate

        from engine_comparison import compare_engines

        logging.getLogger("sn2fpn").setLevel(logging.WARNING)
        rows = compare_engines(
            args.config_file, args.opts, args.weights, args.images, args.seed, exactly=not args.float32
        )
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(
        tabulate(
            [(r.what, f"{r.largest:.2e}", r.where) for r in rows],
            headers=("native - detectron2", "largest difference", ""),
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
