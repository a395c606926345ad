"""The command line of train_net.py. Standard library only: `--help` answers at once."""

from __future__ import annotations

import argparse

from .choice import ENGINES

__all__ = ["default_argument_parser"]

_EXAMPLES = """
examples:
  train on 4 GPUs:
    python train_net.py --config-file configs/faster_rcnn_R50_sni.yaml --num-gpus 4
  change keys of the config:
    python train_net.py --config-file configs/faster_rcnn_R50_sni.yaml SOLVER.BASE_LR 0.0025 SOLVER.IMS_PER_BATCH 2
  the same with a Python config (LazyConfig), changed by key=value:
    python train_net.py --config-file configs/lazy/faster_rcnn_R50_sni.py optimizer.lr=0.0025 model.backbone.alpha=0.5
  continue an interrupted run:
    python train_net.py --config-file configs/faster_rcnn_R50_sni.yaml --resume
  evaluate a checkpoint:
    python train_net.py --config-file configs/faster_rcnn_R50_sni.yaml --eval-only MODEL.WEIGHTS output/model_final.pth
  train on two machines (run on each, with its rank):
    python train_net.py --config-file … --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT
"""


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The parser of Detectron2's training scripts (same flags), plus `--engine` and `--debug`."""
    parser = argparse.ArgumentParser(
        description="Train or evaluate a two-stage detector with a feature pyramid.",
        epilog=epilog or _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="YAML config, or Python config (required)")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="who trains: this package (native) or an installed Detectron2; auto (default): Detectron2 when it imports",
    )
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="imports",
        metavar="FILE",
        help="a Python file to import before the config is read, e.g. with a pyramid of your own "
        "(may be given several times)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in OUTPUT_DIR, or start when there is none",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS and stop")
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine; GPUs, or CPU processes with MODEL.DEVICE cpu (default 1)",
    )
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines (default 1)")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="R", help="rank of this machine, from 0")
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="where the processes meet: tcp://HOST:PORT; 'auto' picks a free local port",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys to change, after all flags (KEY=VALUE for a Python config)",
    )
    return parser
