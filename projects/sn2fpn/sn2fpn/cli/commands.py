"""The sub-commands of `sn2fpn`. Nothing is imported here, so that its help answers at once."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS", "Command"]


class Command(NamedTuple):
    """A sub-command.

    Attributes:
        module: the module inside the package that has it; it is imported when the command is called.
        help: what it does.
        first: the arguments that come before those of the user.
        parser: the name of the function in the module that returns its parser.
        main: the name of the function in the module that runs it with arguments and returns its exit code.
    """

    module: str
    help: str
    first: tuple[str, ...] = ()
    parser: str = "parser"
    main: str = "main"


COMMANDS = {
    "train": Command(
        "engine", "train a detector, or continue an interrupted training", parser="default_argument_parser"
    ),
    "eval": Command(
        "engine",
        "evaluate a checkpoint on a configuration's test sets",
        parser="evaluation_argument_parser",
        main="evaluation_main",
    ),
    "predict": Command("predict.__main__", "find objects in pictures, videos and streams"),
    "export": Command("export.__main__", "write a trained detector to a file that runs without this package"),
    "study": Command("study.__main__", "compare pyramids under one protocol, and report on it"),
    "features": Command("study.__main__", "draw and measure what pyramids do to feature maps", ("features",)),
    "check": Command("data.check", "read whole data sets and report every problem"),
    "analyze": Command("evaluation.analysis.__main__", "show what a detector does right and wrong on a data set"),
    "convert": Command("data.convert", "write a data set in another format, with its counts before and after"),
    "configs": Command("cli.configs", "list, show and copy the configurations that come with the package"),
    "completion": Command("cli.completion", "print a script that completes this command in bash or zsh"),
}
