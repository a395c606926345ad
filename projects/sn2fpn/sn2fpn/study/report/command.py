"""`python -m sn2fpn.study report` writes the report of a study's folder."""

from __future__ import annotations

import argparse

from .writing import write_report

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.description = (
        "Write report/report.html, report/report.md, results.csv and results.json of a study from what its cells have "
        "left in their folders, whether they are finished or not. Nothing is trained."
    )
    parser.add_argument("folder", metavar="FOLDER", help="a study's folder, such as output/studies/quick_shapes")


def main(args: argparse.Namespace) -> int:
    """Write the report, print its path and return 0; raise a UserError as `write_report` does."""
    print(write_report(args.folder))
    return 0
