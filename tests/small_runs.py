"""The configuration keys of small runs on drawn shapes, which the tests of the engine and of GPUs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sn2fpn.data.shapes import write_shapes

WHOLE_BATCH = {
    "SEED": 7,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.MAX_ITER": 4,
    "DATASETS.TEST": "()",
    "MODEL.RESNETS.NORM": "GN",
    "MODEL.FPN.NORM": "",
    "DATALOADER.ASPECT_RATIO_GROUPING": False,
    "INPUT.MIN_SIZE_TRAIN": "(96,)",
    "INPUT.MAX_SIZE_TRAIN": 96,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 50000,
    "MODEL.RPN.NMS_THRESH": 1.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 60,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 1.0,
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
}
"""Keys without sampling and without batch statistics, so that losses are means over the processes of a run."""


def small_run(folder: Path, name: str) -> dict[str, Any]:
    """Draw 8 training and 4 test images into a folder, and return the keys of a small run on them.

    Args:
        folder: the folder of the images.
        name: the data sets are called `NAME_train` and `NAME_val`.
    """
    write_shapes(folder, {"train": (8, 1), "val": (4, 2)})
    custom = [
        {
            "NAME": f"{name}_{split}",
            "FORMAT": "coco",
            "JSON": str(folder / f"annotations/instances_{split}.json"),
            "IMAGES": str(folder / split),
        }
        for split in ("train", "val")
    ]
    return {
        "DATASETS.CUSTOM": custom,
        "DATASETS.TRAIN": [f"{name}_train"],
        "DATASETS.TEST": [f"{name}_val"],
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MIN_SIZE_TRAIN": (96,),
        "INPUT.MIN_SIZE_TEST": 96,
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 60,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 40,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.WARMUP_ITERS": 5,
        "SOLVER.MAX_ITER": 8,
        "SOLVER.STEPS": (),
    }
