"""The command line `python -m sn2fpn.study`, which runs studies, reports on them and looks at features."""

from __future__ import annotations

import argparse
import sys

from ..command_line import CommandLineParser
from ..program import import_quickly, run_program
from .arguments import add_features, add_merge, add_pack, add_report, add_run

__all__ = ["main", "parser"]

# name -> (the function that adds its flags, the module that runs it, help)
_COMMANDS = {
    "run": (
        add_run,
        "run.command",
        "train the cells of a study file, measure them and write the report; an interrupted study is continued",
    ),
    "report": (add_report, "report.writing", "write the report of a study's folder"),
    "pack": (add_pack, "archive.pack", "write the results of a study into one file"),
    "merge": (add_merge, "archive.merge", "join studies whose cells were trained separately"),
    "features": (add_features, "features.command", "draw and measure what pyramids do to feature maps"),
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
    args = parser().parse_args(argv)
    return import_quickly(f".{args.module}", __package__).main(args)  # only the chosen command's module is imported


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    parser = CommandLineParser(
        prog="python -m sn2fpn.study",
        epilog=_EXAMPLES,
        description="Compare feature pyramids under one protocol.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_arguments, module, words) in _COMMANDS.items():
        command = commands.add_parser(name, prog=f"python -m sn2fpn.study {name}", help=words, description=words)
        add_arguments(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(module=module)
    return parser


if __name__ == "__main__":
    sys.exit(main())
