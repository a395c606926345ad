"""`python -m sn2fpn.study report FOLDER`."""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write report/report.html, report/report.md, results.csv and results.json of a study from "
        "what its cells left on disk, finished or not; nothing is trained."
    )
    parser.add_argument("folder", metavar="FOLDER", help="of a study, such as output/studies/quick_shapes")


def main(args: argparse.Namespace) -> int:
    """Write the report and say where; raises UserError as `write_report` does."""
    from .writing import write_report

    print(write_report(args.folder))
    return 0
