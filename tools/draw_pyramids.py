#!/usr/bin/env python3
"""Draw pyramids from their code, and write their costs to the pages of docs/pyramids.

    python tools/draw_pyramids.py                                   # all drawings and tables of docs/pyramids
    python tools/draw_pyramids.py --output /tmp sni MODEL.SNI.ALPHA 0.5  # one pyramid, with other keys
    python tools/draw_pyramids.py --import examples/my_pyramid.py mine

The costs are those of the pyramid without its trunk, a ResNet-50: the parameters, and 10^9 multiply-adds of its
convolutions for an image of 800x1333 pixels (padded to 800x1344). The tables are between the lines <!-- costs --> and
<!-- end of costs --> of the pages.
"""

from __future__ import annotations

import argparse
import re
import sys
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from tabulate import tabulate

from pyramid_drawing import draw_pyramid, trace_pyramid
from sn2fpn.atomic import atomic_write
from sn2fpn.command_line import CommandLineParser
from sn2fpn.config import get_cfg
from sn2fpn.imports import import_files
from sn2fpn.program import run_program
from sn2fpn.pyramids import PYRAMIDS, Pyramid, pyramid_from_backbone_name
from sn2fpn.structures import ShapeSpec

PAGES = Path(__file__).resolve().parents[1] / "docs" / "pyramids"
R50 = {f"res{i}": ShapeSpec(channels=64 * 2**i, stride=2**i) for i in (2, 3, 4, 5)}
SIZE = (800, 1344)  # 800x1333, padded to multiples of 32
# The settings, besides the defaults, whose costs are on a pyramid's page. Some are drawn as well (DRAWN).
SETTINGS: dict[str, list[list[str]]] = {
    "sni": [["MODEL.SNI.MODE", "authors_rcnn"]],
    "ihp": [["MODEL.IHP.FILTER", name] for name in ("gsconve", "conv3x3", "bottleneck")],
    "fpn": [["MODEL.FPN.UPSAMPLE", kind] for kind in ("deconv", "carafe", "dysample")],
    "pafpn": [["MODEL.PAFPN.VARIANT", "openmmlab"]],
    "sapan": [["MODEL.SAPAN.DOWN", name] for name in ("esd2", "gsconve1", "conv")],
    "bifpn": [["MODEL.BIFPN.PER_EDGE_PROJ", "True"], ["MODEL.BIFPN.SEPARABLE", "False"]],
    "pconv": [["MODEL.PCONV.DEFORM", "all"], ["MODEL.PCONV.LEVELS", "('p3', 'p4', 'p5', 'p6')"]],
    "gfpn": [["MODEL.GFPN.INNER_CHANNELS", "256"], ["MODEL.GFPN.DEPTH", "3"]],
    "fapn": [["MODEL.FAPN.FSM", "False"], ["MODEL.FAPN.ALIGN", "none"]],
}
# Additional drawings, which show the first setting of a pyramid.
DRAWN = {"sni_authors_rcnn": "sni", "pafpn_openmmlab": "pafpn"}


class Cost(NamedTuple):
    """The cost of a pyramid: its parameters, and the multiply-adds of its convolutions."""

    parameters: int
    multiply_adds: int


def build(name: str, keys: list[str]) -> Pyramid:
    """Build a registered pyramid for the feature maps of a ResNet-50, without the trunk."""
    cfg = get_cfg()
    cfg.merge_from_list(keys)
    return pyramid_from_backbone_name(f"build_sn2_{name}_backbone")(cfg, R50)


def drawing(name: str, keys: list[str]) -> str:
    """Draw a pyramid as SVG text."""
    settings = "".join(f", {key} {value}" for key, value in zip(keys[::2], keys[1::2]))
    return draw_pyramid(trace_pyramid(build(name, keys)), f"{name}{settings}: data flow from C2…C5 to p2…p6")


def cost(pyramid: Pyramid, size: tuple[int, int] = SIZE) -> Cost:
    """Count the cost on the exported graph, which has no values, so that nothing is computed.

    The multiply-adds of a convolution, plain or deformable, are its outputs times the inputs of one output.
    """
    inputs = {
        name: torch.zeros(1, channels, size[0] >> level, size[1] >> level)
        for name, channels, level in zip(pyramid.in_features, pyramid.in_channels, pyramid.levels)
    }
    total = 0
    for node in torch.export.export(pyramid.eval(), (inputs,), strict=False).graph.nodes:
        if node.op == "call_function" and "conv" in str(node.target):
            values = node.args[0] if "transpose" in str(node.target) else node  # each of which takes a whole kernel
            total += prod(values.meta["val"].shape) * prod(node.args[1].meta["val"].shape[1:])
    return Cost(sum(p.numel() for p in pyramid.parameters()), total)


def cost_table(rows: list[tuple[str, str, list[str]]]) -> str:
    """Format the costs of rows (label, pyramid, keys) as a Markdown table."""
    costs = [(label, cost(build(name, keys))) for label, name, keys in rows]
    cells = [[label, f"{c.parameters:,}", f"{c.multiply_adds / 1e9:.1f}"] for label, c in costs]
    return tabulate(
        cells,
        ["setting", "parameters", "GFLOPs"],
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", "right", "right"),
    )


def page_rows(name: str) -> list[tuple[str, str, list[str]]]:
    """Return the rows of the table on a pyramid's page."""
    settings = [" ".join(f"`{key} {value}`" for key, value in zip(s[::2], s[1::2])) for s in SETTINGS.get(name, [])]
    return [("defaults", name, []), *((label, name, s) for label, s in zip(settings, SETTINGS.get(name, [])))]


def further_pictures() -> dict[str, tuple[str, list[str]]]:
    """Return the pyramids and settings of the additional drawings by the name of the drawing."""
    return {picture: (name, SETTINGS[name][0]) for picture, name in DRAWN.items()}


def with_costs(text: str, table: str) -> str:
    """Replace the table between the marks of a page."""
    pattern = r"(<!-- costs -->\n).*?(<!-- end of costs -->)"
    return re.sub(pattern, lambda m: f"{m[1]}\n{table}\n\n{m[2]}", text, flags=re.DOTALL)


def index_table(text: str) -> str:
    """Update the costs in the rows `| [FPN](fpn.md) | idea | parameters | GFLOPs |` of the index."""
    lines = text.splitlines(keepends=True)
    for i, line in enumerate(lines):
        row = re.match(r"(\| \[[^\]]+\]\((\w+)\.md\) \|[^|]*\|)", line)
        if row and row[2] in PYRAMIDS:
            c = cost(build(row[2], []))
            lines[i] = f"{row[1]} {c.parameters:,} | {c.multiply_adds / 1e9:.1f} |\n"
    return "".join(lines)


def write_all() -> list[Path]:
    """Write the drawings and tables of docs/pyramids, and return the files that changed."""
    texts = {PAGES / f"{name}.svg": drawing(name, []) for name in PYRAMIDS}
    texts |= {PAGES / f"{picture}.svg": drawing(*what) for picture, what in further_pictures().items()}
    for name in PYRAMIDS:
        page = PAGES / f"{name}.md"
        if page.is_file():
            texts[page] = with_costs(page.read_text(encoding="utf-8"), cost_table(page_rows(name)))
    texts[PAGES / "README.md"] = index_table((PAGES / "README.md").read_text(encoding="utf-8"))
    changed = [p for p, text in texts.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    for path in changed:
        with atomic_write(path) as file:
            file.write(texts[path])
    return changed


def main(argv: list[str] | None = None) -> int:
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "name", nargs="?", help=f"the pyramid to draw, one of {', '.join(PYRAMIDS)} (default: update docs/pyramids)"
    )
    parser.add_import()
    parser.add_argument(
        "--output", default=".", metavar="FOLDER", help="folder of <name>.svg (default: the current one)"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    args = parser.parse_args(argv)
    return run_program(lambda: _draw(args))


def _draw(args: argparse.Namespace) -> None:
    import_files(args.imports)
    if args.name is None:
        changed = write_all()
        print("\n".join(map(str, changed)) or f"{PAGES}: everything is up to date")
        return
    path = Path(args.output) / f"{args.name}.svg"
    text = drawing(args.name, args.opts)
    with atomic_write(path) as file:
        file.write(text)
    c = cost(build(args.name, args.opts))
    print(f"{path}: {c.parameters:,} parameters, {c.multiply_adds / 1e9:.1f} GFLOPs at {SIZE[0]}x{SIZE[1]}")


if __name__ == "__main__":
    sys.exit(main())
