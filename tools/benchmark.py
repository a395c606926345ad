#!/usr/bin/env python3
"""Measure the speed and memory of this project beside torchvision, Detectron2 and pycocotools.

    python tools/benchmark.py                              # detector: Faster and Mask R-CNN, inference and training
    python tools/benchmark.py detector --threads 1 2 --precision float32 bfloat16 --json detector.json
    python tools/benchmark.py all --json docs/benchmark.json --picture docs/benchmark.png --markdown docs/performance.md
    python tools/benchmark.py show docs/benchmark.json --markdown docs/performance.md   # measures nothing

Whatever is compared takes turns in one process, and the tables show medians. Figures that were measured while other
processes used the cores are marked. `python tools/benchmark.py PART --help` shows the flags of a part.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from sn2fpn.command_line import CommandLineParser
from sn2fpn.program import run_program

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences torch's profiler; it reads the variable on import

# The help of each part. The minutes are those of the part in `all` on two quiet cores.
PARTS = {
    "detector": "inference and training steps of whole detectors, by stage, beside the machine's peak (5 minutes)",
    "loading": "images per second of the mappers (20 seconds)",
    "evaluation": "COCO evaluation of 5,000 images, beside pycocotools (2 minutes)",
    "startup": "import, build and first step in fresh processes, and --help (1 minute)",
    "pyramids": "every pyramid alone, beside FPN (40 seconds)",
    "upsampling": "one top-down step with every kind of upsampling, beside nearest (40 seconds)",
    "all": "all parts, one after the other (9 minutes)",
    "show": "tables and pictures of results that were written with --json",
}
DEFAULT = "detector"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    return run_program(lambda: _run(argv))


def _run(argv: list[str]) -> None:
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = [DEFAULT, *argv]
    parser = CommandLineParser(
        prog="python tools/benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, words in PARTS.items():
        command = commands.add_parser(
            name, help=words, description=words, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if argv[:1] == [name]:  # Only then torch is imported.
            import_module("benchmarks.command").add_arguments(command, name)
    args = parser.parse_args(argv)
    args.command(args, argv)


if __name__ == "__main__":
    sys.exit(main())
