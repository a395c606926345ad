"""The sub-commands of `sn2fpn`. Nothing is imported here, so that its help answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["COMMANDS", "Command"]


class Command(NamedTuple):
    """A sub-command.

    Attributes:
        module: the module inside the package whose `main(argv)` runs it; it is imported when the command is called.
        help: what it does.
        first: the arguments that come before those of the user.
        parser: the name of the function in the module that returns its parser.
        options: further arguments of this function and of `main`.
    """

    module: str
    help: str
    first: tuple[str, ...] = ()
    parser: str = "parser"
    options: Mapping[str, bool] = MappingProxyType({})


_TRAIN_PARSER = "default_argument_parser"
_EVALUATES = MappingProxyType({"evaluates": True})

COMMANDS = {
    "train": Command("engine", "train a detector, or continue an interrupted training", (), _TRAIN_PARSER),
    "eval": Command("engine", "evaluate a checkpoint on a configuration's test sets", (), _TRAIN_PARSER, _EVALUATES),
    "predict": Command("predict.__main__", "find objects in pictures, videos and streams"),
    "export": Command("export.__main__", "write a trained detector to a file that runs without this package"),
    "study": Command("study.__main__", "compare pyramids under one protocol, and report on it"),
    "features": Command("study.__main__", "draw and measure what pyramids do to feature maps", ("features",)),
    "check": Command("data.check", "read whole data sets and report every problem"),
    "analyze": Command("evaluation.analysis", "show what a detector does right and wrong on a data set"),
    "convert": Command("data.convert", "write a data set in another format, with its counts before and after"),
    "configs": Command("cli.configs", "list, show and copy the configurations that come with the package"),
    "completion": Command("cli.completion", "print a script that completes this command in bash or zsh"),
}
