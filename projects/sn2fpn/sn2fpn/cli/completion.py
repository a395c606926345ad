"""`sn2fpn completion` prints the script with which a shell completes commands, flags, files and configurations."""

from __future__ import annotations

import argparse
from importlib import import_module
from types import ModuleType
from typing import Any

from ..command_line import CommandLineParser
from ..errors import UserError
from ..program import run_program
from ..shipped import KINDS, shipped_files
from .commands import COMMANDS, Command
from .main import parser as top_parser

__all__ = ["main", "parser"]

_HOW = """
The line for bash and the one for zsh, whose second folder must be among those of $fpath before `compinit` is called:
  sn2fpn completion bash > ~/.local/share/bash-completion/completions/sn2fpn
  sn2fpn completion zsh > ~/.zfunc/_sn2fpn
"""
_FILES = {"FILE", "IMAGE", "IN", "PATH", "PNG", "STUDY"}  # what arguments are called whose values are files
_FOLDERS = {"DEST", "FOLDER", "OUT"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parser().parse_args(argv)
    return run_program(lambda: print(_script(args.shell)))


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    parser = CommandLineParser(
        prog="sn2fpn completion",
        description="Print a script that completes this command.",
        epilog=_HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh"), help="bash or zsh")
    return parser


def _script(shell: str) -> str:
    try:
        import shtab
    except ImportError:
        raise UserError("sn2fpn completion needs the package shtab; run: pip install 'sn2fpn[completion]'") from None
    parsers = {name: _parser_of(command) for name, command in COMMANDS.items()}
    for parser in parsers.values():
        _say_what_completes(parser, shtab)
    return shtab.complete(top_parser(parsers), shell)


def _parser_of(command: Command) -> CommandLineParser:
    parser = getattr(import_module(f"..{command.module}", __package__), command.parser)()
    for word in command.first:
        parser = _commands(parser).get(word, parser)
    return parser


def _commands(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the parsers of the sub-commands of a parser."""
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return choices[0] if choices else {}


def _say_what_completes(parser: argparse.ArgumentParser, shtab: ModuleType) -> None:
    """Set the attribute `complete` of actions, from which shtab knows files and names."""
    takes_config = any(action.dest == "config_file" for action in parser._actions)
    for action in parser._actions:
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if action.dest == "config_file" or (takes_config and action.nargs == argparse.REMAINDER):
            action.complete = _names("configs")
        elif action.dest == "study":
            action.complete = _names("studies")
        elif action.dest == "name":
            action.complete = _names(*KINDS)
        elif metavar in _FILES:
            action.complete = shtab.FILE
        elif metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY
    for command in _commands(parser).values():
        _say_what_completes(command, shtab)


def _names(*kinds: str) -> dict[str, Any]:
    """Return the completion with files and with the names of those that come with this package, in shtab's form."""
    names = " ".join(name for kind in kinds for name in shipped_files(kind))
    function = f"_sn2fpn_files_or_{'_'.join(kinds)}"
    bash = f'{function}() {{ compgen -f -- "$1"; compgen -W "{names}" -- "$1"; }}'
    zsh = f"{function}() {{ _files; compadd -- {names}; }}"
    return {"bash": function, "zsh": function, "preamble": {"bash": bash, "zsh": zsh}}
