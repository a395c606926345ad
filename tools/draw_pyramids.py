#!/usr/bin/env python3
"""Draw pyramids from their code, and write their costs into the pages of docs/pyramids.

    python tools/draw_pyramids.py                                   # everything in docs/pyramids
    python tools/draw_pyramids.py --output /tmp sni MODEL.SNI.ALPHA 0.5  # one, with keys of your choice
    python tools/draw_pyramids.py --import examples/my_pyramid.py mine

Costs are those of the neck alone on a ResNet-50: parameters, and 10^9 multiply-adds of its convolutions for an
image of 800x1333 pixels (padded to 800x1344). Tables stand between the lines <!-- costs --> and <!-- end of costs -->.
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
from sn2fpn.config import get_cfg
from sn2fpn.engine import import_files
from sn2fpn.errors import UserError
from sn2fpn.pyramids import PYRAMIDS, Pyramid, pyramid_from_backbone_name
from sn2fpn.structures import ShapeSpec

PAGES = Path(__file__).resolve().parents[1] / "docs" / "pyramids"
R50 = {f"res{i}": ShapeSpec(channels=64 * 2**i, stride=2**i) for i in (2, 3, 4, 5)}
SIZE = (800, 1344)  # 800x1333 padded to multiples of 32
# Further settings, beside the defaults, that a pyramid's page prices; the first ones of some are drawn as well.
SETTINGS: dict[str, list[list[str]]] = {
    "sni": [["MODEL.SNI.MODE", "authors_rcnn"]],
    "ihp": [["MODEL.IHP.FILTER", name] for name in ("gsconve", "conv3x3", "bottleneck")],
    "pafpn": [["MODEL.PAFPN.VARIANT", "openmmlab"]],
    "sapan": [["MODEL.SAPAN.DOWN", name] for name in ("esd2", "gsconve1", "conv")],
    "bifpn": [["MODEL.BIFPN.PER_EDGE_PROJ", "True"], ["MODEL.BIFPN.SEPARABLE", "False"]],
    "pconv": [["MODEL.PCONV.DEFORM", "all"], ["MODEL.PCONV.LEVELS", "('p3', 'p4', 'p5', 'p6')"]],
    "gfpn": [["MODEL.GFPN.INNER_CHANNELS", "256"], ["MODEL.GFPN.DEPTH", "3"]],
    "fapn": [["MODEL.FAPN.FSM", "False"], ["MODEL.FAPN.ALIGN", "none"]],
}
DRAWN = {"sni_authors_rcnn": "sni", "pafpn_openmmlab": "pafpn"}  # further pictures, of the first of those settings


class Cost(NamedTuple):
    """Of a neck: its parameters, and the multiply-adds of its convolutions."""

    parameters: int
    multiply_adds: int


def build(name: str, keys: list[str]) -> Pyramid:
    """A registered pyramid on the maps of a ResNet-50, without the trunk."""
    cfg = get_cfg()
    cfg.merge_from_list(keys)
    return pyramid_from_backbone_name(f"build_sn2_{name}_backbone")(cfg, R50)


def drawing(name: str, keys: list[str]) -> str:
    """The picture as SVG text."""
    settings = "".join(f", {key} {value}" for key, value in zip(keys[::2], keys[1::2]))
    return draw_pyramid(trace_pyramid(build(name, keys)), f"{name}{settings}: data flow from C2…C5 to p2…p6")


def cost(pyramid: Pyramid, size: tuple[int, int] = SIZE) -> Cost:
    """Counted on the exported graph, so that nothing of this size is computed.

    A convolution (plain or deformable) costs as many multiply-adds as it has outputs times inputs of each.
    """
    inputs = {
        name: torch.zeros(1, spec.channels, size[0] // spec.stride, size[1] // spec.stride)
        for name, spec in pyramid._input_shape.items()
    }
    total = 0
    for node in torch.export.export(pyramid.eval(), (inputs,), strict=False).graph.nodes:
        if node.op == "call_function" and "conv" in str(node.target):
            total += prod(node.meta["val"].shape) * prod(node.args[1].meta["val"].shape[1:])
    return Cost(sum(p.numel() for p in pyramid.parameters()), total)


def cost_table(rows: list[tuple[str, str, list[str]]]) -> str:
    """Markdown of (label, pyramid, keys)."""
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
    """What the page of a pyramid prices."""
    settings = [" ".join(f"`{key} {value}`" for key, value in zip(s[::2], s[1::2])) for s in SETTINGS.get(name, [])]
    return [("defaults", name, []), *((label, name, s) for label, s in zip(settings, SETTINGS.get(name, [])))]


def further_pictures() -> dict[str, tuple[str, list[str]]]:
    """Picture -> the pyramid and the setting that it shows, beside one of each pyramid's defaults."""
    return {picture: (name, SETTINGS[name][0]) for picture, name in DRAWN.items()}


def with_costs(text: str, table: str) -> str:
    """A page's text with `table` between its marks."""
    pattern = r"(<!-- costs -->\n).*?(<!-- end of costs -->)"
    return re.sub(pattern, lambda m: f"{m[1]}\n{table}\n\n{m[2]}", text, flags=re.DOTALL)


def index_table(text: str) -> str:
    """The index's text with the costs of every row, `| [FPN](fpn.md) | idea | parameters | GFLOPs |`, written anew."""
    lines = text.splitlines(keepends=True)
    for i, line in enumerate(lines):
        row = re.match(r"(\| \[[^\]]+\]\((\w+)\.md\) \|[^|]*\|)", line)
        if row and row[2] in PYRAMIDS:
            c = cost(build(row[2], []))
            lines[i] = f"{row[1]} {c.parameters:,} | {c.multiply_adds / 1e9:.1f} |\n"
    return "".join(lines)


def write_all() -> list[Path]:
    """Pictures and tables of docs/pyramids; returns the files that changed."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help=f"one pyramid to draw, of {', '.join(PYRAMIDS)} (default: all pages)")
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="imports",
        metavar="FILE",
        help="a Python file with a pyramid of your own",
    )
    parser.add_argument("--output", default=".", metavar="FOLDER", help="where <name>.svg goes (default: here)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    args = parser.parse_args(argv)
    try:
        import_files(args.imports)
        if args.name is None:
            changed = write_all()
            print("\n".join(map(str, changed)) or f"{PAGES}: everything is up to date")
        else:
            path = Path(args.output) / f"{args.name}.svg"
            text = drawing(args.name, args.opts)
            with atomic_write(path) as file:
                file.write(text)
            c = cost(build(args.name, args.opts))
            print(f"{path}: {c.parameters:,} parameters, {c.multiply_adds / 1e9:.1f} GFLOPs at {SIZE[0]}x{SIZE[1]}")
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
