"""The command line `python -m sn2fpn.export`.

Only the standard library is imported before the command line is parsed, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys

from ..command_line import CommandLineParser
from ..program import import_quickly, run_program

__all__ = ["main", "parser"]

_EXAMPLES = """
examples:
  python -m sn2fpn.export --config-file configs/quick/faster_rcnn_R18_sni_shapes.yaml \\
    --weights output/quick/faster_rcnn_R18_sni_shapes/model_final.pth --format onnx --output sni.onnx
  ... --format onnx --output sni.onnx --size 320 480 --check photos/*.jpg
  ... --format onnx --output sni_int8.onnx --int8 photos/*.jpg --evaluate shapes_val
  ... --format torch_export --output sni.pt2

The file takes one image of shape (channels, height, width) with numbers from 0 to 255 and returns its boxes in pixels,
scores, classes and, for Mask R-CNN, masks within the boxes.

exit codes: 0 done, 1 the file is written, but its detections differ from the model's, 2 a mistake in the command,
128 + N stopped by signal N (130 after Ctrl-C)
"""


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    parser = CommandLineParser(
        prog="python -m sn2fpn.export",
        description="Write a trained detector to a file that other programs run without this package.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    parser.add_config_file("the configuration of the training, .yaml or .py", required=True)
    parser.add_import()
    add("--weights", default="", metavar="FILE", help="the checkpoint (default: the one that the configuration names)")
    add("--format", required=True, choices=("onnx", "torch_export", "torchscript"), help="the format of the file")
    add("--output", required=True, metavar="FILE", help="the file to write, ending in .onnx, .pt2 or .pt")
    add("--overwrite", action="store_true", help="replace the file if it exists")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="take images of this height and width only")
    add("--dtype", choices=("uint8", "float32"), default="uint8", help="the type of the image (default: uint8)")
    add("--opset", type=int, metavar="N", help="ONNX opset, 18 or newer (default: 18; 19 with deformable convolutions)")
    add("--check", nargs="+", default=[], metavar="IMAGE", help="compare the detections in these pictures too")
    add("--int8", nargs="+", default=[], metavar="IMAGE", help="quantise to 8 bits, calibrated with these pictures")
    add("--evaluate", default="", metavar="DATASET", help="print the AP of the model and of the file on a data set")
    add("--trust", action="store_true", help="run a Python configuration (.py) also if it belongs to somebody else")
    add("--debug", action="store_true", help="show the traceback of a mistake")
    add(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="configuration keys to change, after all flags; key=value for a Python configuration",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code, see `--help`."""
    args = parser().parse_args(argv)
    return run_program(lambda: _export(args), debug=args.debug)


def _export(args: argparse.Namespace) -> int:
    return import_quickly(".run", __package__).run(args)


if __name__ == "__main__":
    sys.exit(main())
