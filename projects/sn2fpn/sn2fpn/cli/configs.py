"""`sn2fpn configs` lists, shows and copies the configurations and study files that come with this package."""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..command_line import CommandLineParser
from ..errors import UserError, nearby_files
from ..program import run_program
from ..shipped import KINDS, find_file, shipped_files

__all__ = ["main"]

_EXAMPLES = """
examples:
  sn2fpn configs list
  sn2fpn configs show quick/faster_rcnn_R18_sni_shapes.yaml
  sn2fpn configs show --resolved my_config.yaml
  sn2fpn configs copy quick/faster_rcnn_R18_sni_shapes.yaml

Wherever a command takes a configuration or a study file, it takes these names, too. Your own files come first.
"""
_HEADINGS = {"configs": "Configurations (sn2fpn train NAME):", "studies": "Study files (sn2fpn study run NAME):"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parser().parse_args(argv)
    return run_program(lambda: args.run(args))


def parser() -> CommandLineParser:
    """Return the parser of the command line."""
    top = CommandLineParser(
        prog="sn2fpn configs",
        description="List, show and copy the configurations and study files that come with this package.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, words: str) -> CommandLineParser:
        command = commands.add_parser(name, help=words, description=words)
        command.set_defaults(run=run)
        return command

    add("list", _list, "list all files, each with what it is")
    show = add("show", _show, "print a file, which may also be one of your own")
    show.add_argument("name", metavar="NAME", help="a name from the list, or a file")
    show.add_argument("--resolved", action="store_true", help="print all keys with their values, after all bases")
    trust = "with --resolved, run a Python configuration (.py) also if it belongs to somebody else"
    show.add_argument("--trust", action="store_true", help=trust)
    copy = add("copy", _copy, "copy a file and those that it is based on")
    copy.add_argument("name", metavar="NAME", help="a name from the list")
    folder = "the folder that gets the folders configs and studies (default: the present one)"
    copy.add_argument("folder", metavar="DEST", nargs="?", type=Path, default=Path(), help=folder)
    return top


def _list(_: argparse.Namespace) -> None:
    files = {kind: shipped_files(kind) for kind in KINDS}
    width = max(len(name) for names in files.values() for name in names)
    for kind, names in files.items():
        print(_HEADINGS[kind])
        for name, path in names.items():
            print(f"  {name:{width}}  {_first_sentence(path)}")


def _first_sentence(path: Path) -> str:
    """Return the first sentence of the comment or of the docstring with which a file begins."""
    lines = (line.strip('#" ') for line in path.read_text(encoding="utf-8").splitlines())
    return re.split(r"(?<=[.?]) ", " ".join(itertools.takewhile(bool, lines)), maxsplit=1)[0]


def _show(args: argparse.Namespace) -> None:
    path = _find(args.name)
    try:
        print((_resolved(path, args.trust) if args.resolved else path.read_text(encoding="utf-8")).rstrip())
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected a configuration or a study, found a file that is no text") from None


def _resolved(path: Path, trust: bool) -> str:
    """Return all keys of a configuration or of a study file as YAML."""
    from ..config import LazyConfig, get_cfg
    from ..config.files import read_file
    from ..config.printing import to_yaml
    from ..trust import check_own

    if path.suffix == ".py":
        if not trust:
            check_own([path], f"--resolved: {path} is a program that would be run")
        return to_yaml(LazyConfig.load(path))
    if "AXES" in read_file(path):
        from ..study.spec.syntax import read_yaml

        return yaml.safe_dump(read_yaml(path), sort_keys=False, allow_unicode=True)
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return cfg.dump()


def _copy(args: argparse.Namespace) -> None:
    path, root = _find(args.name), Path(__file__).parents[1]
    if not path.is_relative_to(root):
        raise UserError(f"{path} is a file of your own; `sn2fpn configs copy` copies those from `sn2fpn configs list`")
    if args.folder.is_file() or args.folder.suffix in (".yaml", ".py"):
        raise UserError(f"DEST: expected a folder, in which the file keeps its name, found {args.folder}")
    copies = {file: args.folder / file.relative_to(root) for file in dict.fromkeys(_with_bases(path))}
    for file, copy in copies.items():
        if copy.exists() and copy.read_bytes() != file.read_bytes():
            raise UserError(f"{copy}: there is another file of this name already; name another folder")
    for file, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():  # it is equal otherwise, and in a clone even the same file
            shutil.copyfile(file, copy)
        print(copy)


def _with_bases(path: Path) -> Iterator[Path]:
    """Yield a file and all files that it is based on."""
    yield path
    for base in _bases(path):
        yield from _with_bases(Path(os.path.normpath(path.parent / base)))


def _bases(path: Path) -> list[str]:
    """Return the files that a file names as its bases, relative to its folder."""
    if path.suffix == ".py":
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        return ["../" * (node.level - 1) + f"{(node.module or '').replace('.', '/')}.py" for node in imports]
    from ..config.files import read_file

    content = read_file(path)
    bases = content.get("_BASE_") or content.get("BASE") or []
    return [bases] if isinstance(bases, str) else bases


def _find(name: str) -> Path:
    """Return the path of a file that the user has named."""
    for kind in KINDS:
        if (path := find_file(name, kind)).is_file():
            return path
    names = [shipped for kind in KINDS for shipped in shipped_files(kind)]
    raise UserError(f"there is no file {name}{nearby_files(Path(name), f'*{Path(name).suffix}', names)}")
