"""The command line of train_net.py. It imports the standard library only, so that `--help` answers at once."""

from __future__ import annotations

import argparse

from ..command_line import CommandLineParser
from .choice import ENGINES

__all__ = ["default_argument_parser", "evaluation_argument_parser"]

_EXAMPLES = """
examples:
  train on 4 GPUs:
    python train_net.py --config-file configs/faster_rcnn_R50_sni.yaml --num-gpus 4
  change keys of the configuration:
    python train_net.py --config-file configs/faster_rcnn_R50_sni.yaml SOLVER.BASE_LR 0.0025 SOLVER.IMS_PER_BATCH 2
  change keys of a Python configuration (LazyConfig):
    python train_net.py --config-file configs/lazy/faster_rcnn_R50_sni.py optimizer.lr=0.0025 model.backbone.alpha=0.5
  continue an interrupted run:
    python train_net.py --config-file configs/faster_rcnn_R50_sni.yaml --resume
  evaluate a checkpoint:
    python train_net.py --eval-only --config-file configs/faster_rcnn_R50_sni.yaml MODEL.WEIGHTS output/model_final.pth
  train on two machines; run this on each one with its own rank:
    python train_net.py --config-file … --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT
"""


_EVAL_EXAMPLES = """
examples:
  evaluate a checkpoint:
    sn2fpn eval configs/faster_rcnn_R50_sni.yaml MODEL.WEIGHTS output/model_final.pth
  evaluate on another data set:
    sn2fpn eval configs/faster_rcnn_R50_sni.yaml MODEL.WEIGHTS model_final.pth DATASETS.TEST '["coco_2017_val_100"]'
  evaluate a model with a Python configuration (LazyConfig):
    sn2fpn eval configs/lazy/faster_rcnn_R50_sni.py train.init_checkpoint=output/model_final.pth

The results are written to the folder inference in OUTPUT_DIR.
"""


def default_argument_parser(epilog: str | None = None) -> CommandLineParser:
    """Return a parser with the flags of Detectron2's training scripts, and `--engine`, `--import` and `--debug`.

    Args:
        epilog: text after the help; None shows examples.
    """
    return _parser("Train or evaluate a two-stage detector with a feature pyramid.", epilog or _EXAMPLES)


def evaluation_argument_parser() -> CommandLineParser:
    """Return the parser of `sn2fpn eval`: `--eval-only` is set, and the help leaves out what only a training needs."""
    return _parser("Evaluate a two-stage detector with a feature pyramid.", _EVAL_EXAMPLES, evaluates=True)


def _parser(description: str, epilog: str, evaluates: bool = False) -> CommandLineParser:
    parser = CommandLineParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    hidden = argparse.SUPPRESS if evaluates else ""
    parser.add_config_file("YAML or Python configuration (required)", default="")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help=f"the engine that {'evaluates' if evaluates else 'trains'}: native (this package), detectron2 (if it is "
        "installed), or auto (default), which takes Detectron2 if it can be imported",
    )
    parser.add_import()
    parser.add_argument(
        "--resume",
        action="store_true",
        help=hidden
        or "continue from the last checkpoint in OUTPUT_DIR, or start if there is none; with --eval-only, "
        "evaluate this checkpoint in place of MODEL.WEIGHTS",
    )
    parser.add_argument(
        "--eval-only", action="store_true", default=evaluates, help=hidden or "evaluate MODEL.WEIGHTS and do not train"
    )
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help=f"{'' if evaluates else 'with --eval-only, '}also evaluate a checkpoint that lacks some of the model's "
        "weights, which stay random",
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="number of processes on this machine, each with a GPU of its own unless MODEL.DEVICE is cpu (default 1)",
    )
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="number of machines (default 1)")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="R", help="rank of this machine, counted from 0")
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="address at which the processes meet, tcp://HOST:PORT; auto (default) takes a free local port",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a user mistake")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="configuration keys to change, after all flags; KEY=VALUE for a Python configuration",
    )
    return parser
