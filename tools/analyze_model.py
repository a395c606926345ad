#!/usr/bin/env python3
"""Parameters, multiply-adds and activations of a detector, part by part, for one or several configs side by side.

    python tools/analyze_model.py --config-file configs/faster_rcnn_R50_fpn.yaml
    python tools/analyze_model.py --config-file configs/faster_rcnn_R50_{fpn,sni,ihp}.yaml --size 800x1333

Counted by fvcore on a CPU; weights do not matter. One GFLOP is 10^9 multiply-adds of convolutions, matrix products,
norms and interpolation; activations are the outputs of convolutions and matrix products. The heads are counted for as
many boxes as the config allows: POST_NMS_TOPK_TEST proposals in the box head, DETECTIONS_PER_IMAGE detections in the
mask head. What is not counted is listed below the table.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor, nn

from sn2fpn.config import LazyConfig, get_cfg, instantiate
from sn2fpn.errors import UserError
from sn2fpn.modeling import GeneralizedRCNN, build_model
from sn2fpn.predict.loading import evaluation_resize

SUFFIXES = (".yaml", ".yml", ".py")
PARTS = {  # part -> its modules; a part inside another is not counted twice
    "trunk": ["backbone.bottom_up"],
    "pyramid": ["backbone"],
    "RPN": ["proposal_generator.rpn_head"],
    "box head": ["roi_heads.box_head", "roi_heads.box_predictor"],
    "mask head": ["roi_heads.mask_head"],
}


class Analysis(NamedTuple):
    """What there is of each part, and what was left out."""

    size: tuple[int, int]  # (height, width) of the padded input
    parameters: dict[str, int]
    flops: dict[str, int]
    activations: dict[str, int]
    uncounted: Counter[str]  # operators without a rule -> how often they occur


class LearnedParts(nn.Module):
    """A detector's modules with parameters, one after the other, with tensors in and out so that it can be traced."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, *pooled: Tensor) -> tuple[Tensor, ...]:
        """Args: images (1, 3, H, W), then the pooled features (K, C, P, P) of the box head and of the mask head."""
        maps = self.detector.backbone(images)
        rpn, heads = self.detector.proposal_generator, self.detector.roi_heads
        logits, deltas = rpn.rpn_head([maps[name] for name in rpn.in_features])
        out = (*logits, *deltas, *heads.box_predictor(heads.box_head(pooled[0])))
        return (*out, heads.mask_head(pooled[1])) if len(pooled) > 1 else out


def analyze(detector: GeneralizedRCNN, size: tuple[int, int]) -> Analysis:
    """Count a detector's parts.

    Args:
        size: (height, width) of the input before padding.
    """
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis  # warns when it is imported before sn2fpn

    step = detector.backbone.size_divisibility
    height, width = (-(-side // step) * step for side in size)
    channels = next(iter(detector.backbone.output_shape().values())).channels
    heads = detector.roi_heads
    boxes = [(detector.proposal_generator.post_nms_topk[1], heads.box_pooler)]
    if heads.mask_head is not None:
        boxes.append((heads.max_detections, heads.mask_pooler))
    inputs = [torch.zeros(1, 3, height, width)]
    inputs += [torch.zeros(max(count, 1), channels, p.output_size, p.output_size) for count, p in boxes]
    model = LearnedParts(detector.eval())
    analyses = [kind(model, tuple(inputs)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
                for kind in (FlopCountAnalysis, ActivationCountAnalysis)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: shapes are constant here
        flops, activations = (_by_part(a.by_module()) for a in analyses)
        uncounted = analyses[0].unsupported_ops()
    parameters = {f"detector.{name}": sum(p.numel() for p in module.parameters())
                  for name, module in detector.named_modules()}
    return Analysis((height, width), _by_part(parameters), flops, activations, uncounted)


def _by_part(counts: dict[str, int]) -> dict[str, int]:
    out = {part: round(sum(counts.get(f"detector.{name}", 0) for name in names)) for part, names in PARTS.items()}
    out["pyramid"] -= out["trunk"]
    return out


def table(analyses: dict[str, Analysis]) -> str:
    """Parts in rows, configurations in columns."""
    rows: list[list[Any]] = [["input, padded", "", *(f"{a.size[0]}x{a.size[1]}" for a in analyses.values())]]
    for title, field, unit in (("parameters, millions", "parameters", 1e6), ("GFLOPs", "flops", 1e9),
                               ("activations, millions", "activations", 1e6)):
        counts = [getattr(a, field) for a in analyses.values()]
        for i, part in enumerate(PARTS):
            if any(c[part] for c in counts):
                rows.append([title if i == 0 else "", part, *(f"{c[part] / unit:.2f}" for c in counts)])
        rows.append(["", "total", *(f"{sum(c.values()) / unit:.2f}" for c in counts)])
    align = ("left", "left", *("right" for _ in analyses))
    return tabulate(rows, ["", "", *analyses], tablefmt="github", disable_numparse=True, colalign=align)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", nargs="+", required=True, metavar="FILE", help="one or several configs")
    parser.add_argument("--size", metavar="HxW", help="height and width of the input in pixels, padded as in training "
                        "(default: the config's short x long edge in evaluation)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE",
                        help="config keys to change, in all; key=value for Python configs")
    args = parser.parse_args(argv)
    try:
        count = sum(1 for _ in itertools.takewhile(lambda f: Path(f).suffix in SUFFIXES, args.config_file))
        files, opts = args.config_file[:count], args.config_file[count:] + args.opts  # pairs may follow the files
        if not files:
            raise UserError(f"--config-file: expected a name that ends with {' or '.join(SUFFIXES)}, found {opts[0]!r}")
        size = _size(args.size)
        analyses = {name: _analyze_config(file, opts, size) for name, file in zip(_short_names(files), files)}
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(table(analyses))
    print("\nnot counted: anchors, choice of proposals and detections (NMS), RoI pooling, pasting of masks; "
          "and, as fvcore has no rule for them, the operators")
    for name, a in analyses.items():
        print(f"  {name}: " + ", ".join(f"{op.partition('::')[2]} x{n}" for op, n in a.uncounted.most_common()))
    return 0


def _analyze_config(file: str, opts: list[str], size: tuple[int, int] | None) -> Analysis:
    if file.endswith(".py"):
        config = LazyConfig.apply_overrides(LazyConfig.load(file), opts)
        resize = evaluation_resize(config)
        size = size or ((resize.short_edges[0], resize.max_size) if resize else None)
        return analyze(instantiate(config.model), _given(size, file))
    cfg = get_cfg()
    cfg.merge_from_file(file)
    cfg.merge_from_list([*opts, "MODEL.DEVICE", "cpu"])
    return analyze(build_model(cfg), _given(size or (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST), file))


def _given(size: tuple[int, int] | None, file: str) -> tuple[int, int]:
    if size is None or min(size) < 1:
        raise UserError(f"--size HxW is needed: {file} leaves pictures in their own size")
    return size


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise UserError(f"--size {text}: expected HEIGHTxWIDTH in pixels, e.g. --size 800x1333")
    return int(sides[0]), int(sides[1])


def _short_names(files: list[str]) -> list[str]:
    stems = [Path(f).stem for f in files]
    return stems if len(set(stems)) == len(stems) else files


if __name__ == "__main__":
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    sys.exit(main())
