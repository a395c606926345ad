"""The entry point of `sn2fpn`, which imports the module of the chosen sub-command only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from types import ModuleType

from .. import __version__
from ..command_line import COMMAND, CommandLineParser
from ..program import import_quickly, run_program
from .commands import COMMANDS

__all__ = ["main", "parser"]

_EXAMPLES = """
examples:
  sn2fpn configs list
  sn2fpn train quick/faster_rcnn_R18_sni_shapes.yaml
  sn2fpn eval quick/faster_rcnn_R18_sni_shapes.yaml \\
    MODEL.WEIGHTS output/quick/faster_rcnn_R18_sni_shapes/model_final.pth
  sn2fpn predict quick/faster_rcnn_R18_sni_shapes.yaml \\
    --weights output/quick/faster_rcnn_R18_sni_shapes/model_final.pth --input datasets/shapes/val --output out
  sn2fpn study run quick_shapes.yaml

`sn2fpn COMMAND --help` explains a command.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code of the sub-command.

    Args:
        argv: the arguments; None takes those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] not in COMMANDS:
        return run_program(lambda: _answer(words))
    command = COMMANDS[words[0]]
    sys.argv = [f"{COMMAND} {words[0]}", *words[1:]]  # from here on, texts name the programs as sub-commands
    found: list[ModuleType] = []
    if code := run_program(lambda: found.append(import_quickly(f"..{command.module}", __package__))):
        return code  # a signal came while the module was imported
    return getattr(found[0], command.main)([*command.first, *words[1:]])


def _answer(words: list[str]) -> None:
    """Answer a command line without a sub-command. Help and mistakes end the program."""
    args = parser({}).parse_args(words)
    if not args.version:
        parser({}).print_help()
    elif args.verbose:
        from ..engine.versions import environment_summary

        print(environment_summary())
    else:
        print(COMMAND, __version__)


def parser(parents: Mapping[str, CommandLineParser]) -> CommandLineParser:
    """Return the parser of the command line.

    Args:
        parents: the parsers whose flags the sub-commands get; without them, a sub-command is a name with its help.
    """
    parser = CommandLineParser(
        prog=COMMAND,
        description="Feature pyramids for two-stage detectors: train, evaluate, compare and use them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--verbose", action="store_true", help="with --version, also those of the libraries")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        flags = [parents[name]] if name in parents else []
        commands.add_parser(name, help=command.help, parents=flags, add_help=False)
    return parser
