"""A program of its own: import an engine, build a detector and make a training step, and print the seconds of each.

It is started by `benchmarks.startup` in fresh processes. Nothing is imported before the clock starts.
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402


def main(engine: str, file: str, height: int, width: int) -> None:
    """Print JSON with the seconds of "import", "build" and "first step"."""
    build, kinds = (_native if engine == "native" else _detectron2)(file)
    imported = time.perf_counter()
    model, optimizer = build()
    built = time.perf_counter()
    model.train()
    sum(model(_batch(kinds, height, width)).values()).backward()
    optimizer.step()
    stepped = time.perf_counter()
    seconds = {"import": imported - _STARTED, "build": built - imported, "first step": stepped - built}
    print(json.dumps(seconds))


def _native(file: str) -> Any:
    from sn2fpn.program import import_quickly

    import_quickly("sn2fpn.engine.native")  # as train_net.py does

    from sn2fpn import structures
    from sn2fpn.config import get_cfg
    from sn2fpn.engine import build_optimizer
    from sn2fpn.modeling import build_model

    def build() -> Any:
        cfg = get_cfg()
        cfg.merge_from_file(file)
        cfg.merge_from_list(["MODEL.DEVICE", "cpu"])
        model = build_model(cfg)
        return model, build_optimizer(cfg, model)

    return build, structures


def _detectron2(_: str) -> Any:
    from detectron2 import model_zoo, structures
    from detectron2.modeling import build_model
    from detectron2.solver import build_optimizer
    from detectron2.utils.events import EventStorage

    def build() -> Any:
        cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
        cfg.MODEL.DEVICE = "cpu"
        EventStorage(0).__enter__()
        model = build_model(cfg)
        return model, build_optimizer(cfg, model)

    return build, structures


def _batch(kinds: Any, height: int, width: int) -> list[dict[str, Any]]:
    import torch

    target = kinds.Instances((height, width))
    target.gt_boxes = kinds.Boxes(torch.tensor([[0.1 * width, 0.1 * height, 0.6 * width, 0.7 * height]]))
    target.gt_classes = torch.tensor([1])
    return [{"image": torch.randint(256, (3, height, width), dtype=torch.uint8), "instances": target}]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
