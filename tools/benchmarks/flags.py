"""Flags that several parts of the benchmark have."""

from __future__ import annotations

import argparse

import torch

from sn2fpn.errors import UserError

__all__ = [
    "add_device",
    "add_number",
    "add_output_flags",
    "add_quick",
    "add_repeats",
    "add_threads",
    "check_device",
    "read_size",
]


def add_number(parser: argparse.ArgumentParser, flag: str, default: int | None, words: str) -> None:
    """Add a flag for a number of at least 1."""
    parser.add_argument(flag, type=_at_least_one, default=default, metavar="N", help=words)


def _at_least_one(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def add_repeats(parser: argparse.ArgumentParser, default: int) -> None:
    """Add the number of rounds whose median counts."""
    add_number(parser, "--repeats", default, "rounds (default: %(default)s)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the numbers of CPU threads."""
    parser.add_argument(
        "--threads",
        type=_at_least_one,
        nargs="+",
        default=[torch.get_num_threads()],
        metavar="N",
        help=f"numbers of CPU threads to measure with (default: {torch.get_num_threads()})",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the device to measure on."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")


def check_device(device: str) -> None:
    """Check that a device can be used.

    Raises:
        UserError: it is a GPU that PyTorch does not find.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: PyTorch finds no GPU here; --device cpu needs none")


def add_quick(parser: argparse.ArgumentParser) -> None:
    """Add the flag that tries a part out."""
    parser.add_argument("--quick", action="store_true", help="use small sizes, to try this program out")


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for what is done with results."""
    parser.add_argument("--json", metavar="FILE", help="write the results to a file, which `show` reads")
    parser.add_argument("--picture", metavar="FILE", help="draw the results (.png, .svg or .pdf)")
    parser.add_argument(
        "--markdown",
        nargs="?",
        const="",
        metavar="PAGE",
        help="print the tables as Markdown or, with the name of a page, write them there between the lines "
        "<!-- benchmark: PART --> and <!-- end of benchmark: PART -->",
    )


def read_size(text: str) -> tuple[int, int]:
    """Return the (height, width) that --size gives.

    Raises:
        UserError: it is not HEIGHTxWIDTH.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise UserError(f"--size {text}: expected HEIGHTxWIDTH in pixels, e.g. --size 480x640")
    return int(sides[0]), int(sides[1])
