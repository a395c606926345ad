"""Measure the speed and memory of Faster R-CNN R50-FPN in the native engine, torchvision and Detectron2.

    python tools/benchmark.py                       # inference and training, all installed engines
    python tools/benchmark.py --repeats 9 --threads 2 --markdown

All engines take turns in one process, and the table shows medians. All engines get the same weights and images, so that
they do the same work: the weights follow a fixed rule that keeps activations near 1 and produces 1,000 proposals and
100 detections per image, which the tool prints. Peak memory is that of a process that only runs one engine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from sn2fpn.command_line import CommandLineParser
from sn2fpn.study.measure.timing import now, resident_mib
from sn2fpn.study.measure.workload import fill_weights, make_images

ROOT = Path(__file__).resolve().parents[1]
NUM_CLASSES = 80
KEYS = {"MODEL.WEIGHTS": "", "MODEL.RESNETS.STRIDE_IN_1X1": False, "MODEL.PIXEL_STD": [57.375, 57.12, 58.395]}


# ------------------------------------------------------------------ the engines


class Engine:
    """A model whose speed is measured.

    Args:
        model: the detector.
        stages: modules whose forward time is measured, by name.
        feed: calls the model with a batch.
        optimizer: the optimizer of the training step.
    """

    def __init__(
        self, model: nn.Module, stages: dict[str, nn.Module], feed: Callable[..., Any], optimizer: torch.optim.Optimizer
    ) -> None:
        self.model, self.feed, self.optimizer = model, feed, optimizer
        self.times: dict[str, float] = defaultdict(float)
        self.work: dict[str, Any] = {}
        for name, module in stages.items():
            module.register_forward_pre_hook(self._start(name))
            module.register_forward_hook(self._stop(name))

    def _start(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self.times[name] -= now()

        return hook

    def _stop(self, name: str) -> Callable[..., None]:
        def hook(_m: nn.Module, _i: Any, output: Any) -> None:
            self.times[name] += now()
            if name == "RPN":
                self.work["proposals"] = [len(p) for p in output[0]]

        return hook

    def infer(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        self.model.eval()
        self.times.clear()
        with torch.no_grad():
            started = now()
            out = self.feed(self.model, batch)
            total = now() - started
        self.work["detections"] = [len(o["instances"]) if "instances" in o else len(o["boxes"]) for o in out]
        parts = dict(self.times)
        return {"inference": total, **parts, "pre- and post-processing": total - sum(parts.values())}

    def train(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        self.model.train()
        self.times.clear()
        t0 = now()
        loss = sum(self.feed(self.model, batch).values())
        t1 = now()
        loss.backward()
        t2 = now()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        t3 = now()
        return {"training step": t3 - t0, "forward": t1 - t0, "backward": t2 - t1, "optimizer": t3 - t2}


def native(device: str) -> Engine:
    from sn2fpn.config import get_cfg
    from sn2fpn.engine import build_optimizer
    from sn2fpn.modeling import build_model
    from sn2fpn.structures import Boxes, Instances

    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs/faster_rcnn_R50_fpn.yaml"))
    return _detectron2_style(cfg, device, build_model, build_optimizer, Boxes, Instances)


def detectron2(device: str) -> Engine:
    from detectron2 import model_zoo
    from detectron2.modeling import build_model
    from detectron2.solver import build_optimizer
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    EventStorage(0).__enter__()  # its modules write scalars to the current storage
    return _detectron2_style(cfg, device, build_model, build_optimizer, Boxes, Instances)


def _detectron2_style(
    cfg: Any, device: str, build_model: Any, build_optimizer: Any, boxes: Any, instances: Any
) -> Engine:
    cfg.merge_from_list([x for pair in (KEYS | {"MODEL.DEVICE": device, "SOLVER.BASE_LR": 1e-9}).items() for x in pair])
    model = build_model(cfg)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("pixel_")}
    model.load_state_dict(fill_weights(state), strict=False)

    def feed(model: nn.Module, batch: list[dict[str, Any]]) -> Any:
        inputs = []
        for d in batch:
            target = instances(d["image"].shape[1:])
            target.gt_boxes, target.gt_classes = boxes(d["boxes"]), d["classes"]
            inputs.append({"image": d["image"], "height": d["height"], "width": d["width"], "instances": target})
        return model(inputs)

    stages = {"trunk + pyramid": model.backbone, "RPN": model.proposal_generator, "RoI heads": model.roi_heads}
    return Engine(model, stages, feed, build_optimizer(cfg, model))


def torchvision(device: str) -> Engine:
    from torchvision.models import resnet50
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops import FrozenBatchNorm2d

    body = _resnet_fpn_extractor(resnet50(norm_layer=FrozenBatchNorm2d), 3)  # as in fasterrcnn_resnet50_fpn
    model = FasterRCNN(
        body,
        NUM_CLASSES + 1,
        min_size=480,
        max_size=640,
        image_mean=[103.530, 116.280, 123.675],
        image_std=KEYS["MODEL.PIXEL_STD"],
        rpn_post_nms_top_n_train=1000,
    ).to(device)
    model.load_state_dict(_to_torchvision(model.state_dict()))

    def feed(model: nn.Module, batch: list[dict[str, Any]]) -> Any:
        images = [d["image"].to(device) for d in batch]
        targets = [{"boxes": d["boxes"].to(device), "labels": d["classes"].to(device) + 1} for d in batch]
        return model(images, targets if model.training else None)

    stages = {"trunk + pyramid": model.backbone, "RPN": model.rpn, "RoI heads": model.roi_heads}
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=1e-9, momentum=0.9, weight_decay=1e-4, foreach=True)
    return Engine(model, stages, feed, optimizer)


RENAMES = [  # from torchvision's names to Detectron2's
    (r"^backbone\.body\.conv1\.", "backbone.bottom_up.stem.conv1."),
    (r"^backbone\.body\.bn1\.", "backbone.bottom_up.stem.conv1.norm."),
    (r"^backbone\.body\.layer(\d)\.", lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}."),
    (r"(res\d\.\d+)\.bn(\d)\.", r"\1.conv\2.norm."),
    (r"downsample\.0\.", "shortcut."),
    (r"downsample\.1\.", "shortcut.norm."),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.0\.", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.0\.", lambda m: f"backbone.fpn_output{int(m[1]) + 2}."),
    (r"^rpn\.head\.conv\.0\.0\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "roi_heads.box_head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_heads.box_head.fc2."),
]


def _to_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fill the weights under torchvision's names. Its background class is the first, and ours is the last."""
    names = {}
    for name in state:
        theirs = name
        for pattern, new in RENAMES:
            theirs = re.sub(pattern, new, theirs)
        names[name] = theirs
    shapes = {}
    for name, value in state.items():
        drop = 4 if "bbox_pred" in name and name.startswith("roi_heads") else 0  # the background has no deltas
        shapes[names[name]] = value[drop:]
    filled = fill_weights(shapes)
    out = {}
    for name, value in state.items():
        new = filled[names[name]]
        if "roi_heads.box_predictor.cls_score" in name:
            new = torch.cat([new[-1:], new[:-1]])
        elif len(new) != len(value):
            new = torch.cat([torch.zeros_like(value[:4]), new])
        out[name] = new
    return out


ENGINES = {"native": native, "torchvision": torchvision, "detectron2": detectron2}


# ------------------------------------------------------------------ measuring


def measure(
    engines: dict[str, Engine], mode: str, batch: list[dict[str, Any]], repeats: int
) -> dict[str, dict[str, float]]:
    """Return the median seconds of each stage. The engines take turns, and the first two rounds do not count."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for i in range(repeats + 2):
        for name, engine in engines.items():
            result = getattr(engine, mode)(batch)
            if i >= 2:
                rounds[name].append(result)
    return {name: {k: median(r[k] for r in results) for k in results[0]} for name, results in rounds.items()}


def peak_memory(name: str, mode: str, args: argparse.Namespace) -> float:
    """Return the peak memory in MiB of a process that only runs this engine."""
    flags = {
        "--engines": name,
        "--memory-of": mode,
        "--device": args.device,
        "--threads": args.threads,
        "--size": args.size,
    }
    command = [sys.executable, __file__, *(str(word) for pair in flags.items() for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["mib"]


def memory_of(name: str, mode: str, args: argparse.Namespace, batch: list[dict[str, Any]]) -> None:
    engine = ENGINES[name](args.device)
    for _ in range(3):
        getattr(engine, mode)(batch)
    mib = torch.cuda.max_memory_allocated() / 2**20 if args.device.startswith("cuda") else resident_mib(peak=True)
    print(json.dumps({"mib": mib}))


def main() -> None:
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--engines", nargs="+", choices=list(ENGINES), help="engines to measure (default: all that are installed)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="number of measurements (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--size", default="480x640", help="HEIGHTxWIDTH of the images (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--modes", nargs="+", choices=["infer", "train"], default=["infer", "train"], help="default: both"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--memory-of", choices=["infer", "train"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    height, width = map(int, args.size.split("x"))
    batches = {"infer": make_images(1, height, width), "train": make_images(2, height, width)}
    names = args.engines or [n for n in ENGINES if n == "native" or importlib.util.find_spec(n)]
    if args.memory_of:
        memory_of(names[0], args.memory_of, args, batches[args.memory_of])
        return
    engines = {name: ENGINES[name](args.device) for name in names}
    rows = _rows(args, engines, batches)
    headers = ["", *names, *(f"{n} / {names[0]}" for n in names[1:])]
    print(tabulate(rows, headers, tablefmt="github" if args.markdown else "simple"))
    for name, engine in engines.items():
        work = engine.work
        print(f"{name}: proposals per image {work['proposals']}, detections per image {work['detections']}")


def _rows(args: argparse.Namespace, engines: dict[str, Engine], batches: dict[str, Any]) -> list[list[str]]:
    """Measure all engines, and return the rows of the table."""
    names, rows = list(engines), []
    for mode in args.modes:
        result = measure(engines, mode, batches[mode], args.repeats)
        memory = {} if args.no_memory else {n: peak_memory(n, mode, args) for n in names}
        for stage in result[names[0]]:
            rows.append(_row(stage, [result[n][stage] for n in names], "{:.3f} s"))
        if memory:
            rows.append(_row("peak memory", [memory[n] for n in names], "{:.0f} MiB"))
    return rows


def _row(name: str, values: list[float], unit: str) -> list[str]:
    """Format the values of all engines, and the ratios to the first one."""
    return [name, *(unit.format(v) for v in values), *(f"{v / values[0]:.2f}x" for v in values[1:])]


if __name__ == "__main__":
    main()
