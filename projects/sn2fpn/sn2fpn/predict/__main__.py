"""The command line `python -m sn2fpn.predict`.

Only the standard library is imported before the command line is parsed, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys

from ..command_line import CommandLineParser
from ..errors import UserError
from ..program import import_quickly, run_program

__all__ = ["main", "parser"]

_EXAMPLES = """
examples:
  python -m sn2fpn.predict --config-file configs/quick/faster_rcnn_R18_sni_shapes.yaml \\
    --weights output/quick/faster_rcnn_R18_sni_shapes/model_final.pth --input images/*.jpg --output out
  ... --input video.mp4 --output out --score-threshold 0.7
  ... --input aerial.tif --output out --tile 640 --overlap 0.2
  ... --input photos --recursive --output out --flip --scales 480 800
  ... --input rtsp://camera.example/stream --output out --max-frames 1000
  find photos -name '*.jpg' | ... --input - --output out MODEL.DEVICE cpu

The output folder gets a drawing of each input, and predictions.json, a COCO file of all detections. The file also
holds detections that score less than --score-threshold, if they score more than MODEL.ROI_HEADS.SCORE_THRESH_TEST.

exit codes: 0 done, 1 some inputs could not be read, 2 a mistake in the command, 128 + N stopped by
signal N (130 after Ctrl-C), which keeps what is done
"""


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    parser = CommandLineParser(
        prog="python -m sn2fpn.predict",
        description="Detect objects in pictures and videos with a trained model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_config_file("the configuration of the training, .yaml or .py", required=True)
    parser.add_import()
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="the checkpoint (default: the one that the configuration names)"
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="pictures, videos, folders or patterns; camera:0 and rtsp://, http:// or https:// addresses of streams; "
        "- reads such names from the standard input, one per line",
    )
    parser.add_argument(
        "--recursive",
        action="store_true",
        help="also take the pictures and videos of sub-folders; the output folder gets the same sub-folders",
    )
    parser.add_argument(
        "--max-frames", type=int, default=0, metavar="N", help="stop after N frames of each video, camera or stream"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the folder to write to, made if needed")
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="S",
        help="draw the detections that score at least S (default: 0.5)",
    )
    _add_detection(parser)
    parser.add_argument(
        "--trust", action="store_true", help="run a Python configuration (.py) also if it belongs to somebody else"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a mistake")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="configuration keys to change, after all flags; key=value for a Python configuration",
    )
    return parser


def _length(word: str) -> int:
    """Return a length in pixels. Keys to change may follow `--scales` by mistake."""
    if not word.isdecimal():
        hint = "; changes of keys come last, after another flag" * ("." in word or "=" in word)
        raise argparse.ArgumentTypeError(f"expected lengths in pixels, found {word!r}{hint}")
    return int(word)


def _add_detection(parser: CommandLineParser) -> None:
    """Add the flags that say how objects are found in a picture."""
    add = parser.add_argument_group("ways to find more objects").add_argument
    add("--tile", type=int, default=0, metavar="PX", help="cut pictures into overlapping squares of PX pixels")
    add("--overlap", type=float, metavar="S", help="the share of a tile that the next one repeats (0.2)")
    add("--no-whole", action="store_true", help="with --tile, leave out the detection in the whole picture")
    add("--flip", action="store_true", help="detect in the mirrored picture, too")
    add(
        "--scales",
        type=_length,
        nargs="+",
        default=[],
        metavar="PX",
        help="detect with these lengths of the short edge; TEST.AUG.MAX_SIZE limits the long one",
    )
    soft = "lower the scores of overlapping boxes in place of removing them"
    add("--soft-nms", default="", choices=("gaussian", "linear"), help=soft)
    add("--sigma", type=float, metavar="S", help="the width of --soft-nms gaussian (default: 0.5)")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code, see `--help`."""
    args = parser().parse_args(argv)
    return run_program(lambda: _predict(args), debug=args.debug)


def _predict(args: argparse.Namespace) -> int:
    if not 0 <= args.score_threshold <= 1:
        raise UserError(f"--score-threshold {args.score_threshold}: expected a score from 0 to 1")
    if args.max_frames < 0:
        raise UserError(f"--max-frames {args.max_frames}: expected a number of frames, or 0 for all")
    if args.no_whole and not args.tile:
        raise UserError("--no-whole: expected --tile beside it, since without tiles nothing would be detected")
    return import_quickly(".run", __package__).run(args)


if __name__ == "__main__":
    sys.exit(main())
