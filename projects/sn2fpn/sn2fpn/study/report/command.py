"""`python -m sn2fpn.study report FOLDER`."""

from __future__ import annotations

import argparse
import sys

from ...errors import UserError

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = ("Write report/report.html, report/report.md, results.csv and results.json of a study from what "
                          "its cells left on disk, finished or not; nothing is trained.")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of a study, such as output/studies/quick_shapes")


def main(args: argparse.Namespace) -> int:
    """Write the report of each folder; 2 when one of them could not be reported on."""
    from .writing import write_report

    code = 0
    for folder in args.folders:
        try:
            print(write_report(folder))
        except UserError as e:
            print(f"error: {e}", file=sys.stderr)
            code = 2
    return code
