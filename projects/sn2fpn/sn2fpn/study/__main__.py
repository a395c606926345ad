"""The command line `python -m sn2fpn.study`, which runs studies, reports on them and looks at features."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from ..command_line import CommandLineParser
from ..program import run_program

__all__ = ["main"]

# name -> (module, help)
_COMMANDS = {
    "run": (
        "run.command",
        "train the cells of a study file, measure them and write the report; an interrupted study is continued",
    ),
    "report": ("report.writing", "write the report of a study's folder"),
    "pack": ("archive.pack", "write the results of a study into one file"),
    "merge": ("archive.merge", "join studies whose cells were trained separately"),
    "features": ("features.command", "draw and measure what pyramids do to feature maps"),
}
_EXAMPLES = """
examples:
  python -m sn2fpn.study run studies/quick_shapes.yaml
  python -m sn2fpn.study run studies/voc0712.yaml --dry-run
  python -m sn2fpn.study run studies/voc0712.yaml --parallel 4
  python -m sn2fpn.study run studies/coco_1x.yaml --executor slurm --partition gpu --num-gpus 4 --time 12:00:00
  python -m sn2fpn.study report output/studies/quick_shapes
  python -m sn2fpn.study pack output/studies/quick_shapes --output quick_shapes.study.zip
  python -m sn2fpn.study merge here.study.zip there.study.zip --output output/studies/both

exit codes: 0 done, 1 something failed, 2 a mistake in the command or in a file, 128 + N stopped by signal N (130
after Ctrl-C)
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code, which `--help` explains."""
    argv = sys.argv[1:] if argv is None else argv
    return run_program(lambda: _run(argv), debug="--debug" in argv)


def _run(argv: list[str]) -> int | None:
    parser = CommandLineParser(
        prog="python -m sn2fpn.study",
        epilog=_EXAMPLES,
        description="Compare feature pyramids under one protocol.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module_name, words) in _COMMANDS.items():
        command = commands.add_parser(name, help=words, description=words)
        if argv[:1] == [name]:  # only the module of the chosen command is imported
            module = import_module(f".{module_name}", __package__)
            module.add_arguments(command)
            command.add_argument("--debug", action="store_true", help="show the traceback of an error")
            command.set_defaults(main=module.main)
    args = parser.parse_args(argv)
    return args.main(args)


if __name__ == "__main__":
    sys.exit(main())
