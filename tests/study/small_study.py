"""A study of two small pyramids that has what measurements read of a `Study`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.study.spec.variants import Cell

BASE = Path(__file__).parents[2] / "configs/quick/Base-Shapes.yaml"
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 96,
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "INPUT.MAX_SIZE_TRAIN": 96,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 40,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 40,
    "TEST.DETECTIONS_PER_IMAGE": 20,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 4,
    "SOLVER.STEPS": (),
    "DATALOADER.NUM_WORKERS": 0,
    "MODEL.IHP.DEPTHS": (1, 1, 1, 1),
}


@dataclass(frozen=True)
class SmallVariant:
    name: str
    overrides: dict[str, Any]


@dataclass(frozen=True)
class SmallStudy:
    keys: dict[str, Any] = field(default_factory=dict)  # set after `SMALL` in every variant
    variants: tuple[SmallVariant, ...] = tuple(
        SmallVariant(n, {"MODEL.BACKBONE.NAME": f"build_sn2_{n}_backbone"}) for n in ("fpn", "ihp")
    )
    imports: tuple[Path, ...] = ()

    @property
    def baseline(self) -> SmallVariant:
        return self.variants[0]

    @property
    def cells(self) -> list[Cell]:
        return [Cell(variant, 3) for variant in self.variants]

    def config(self, variant: SmallVariant, seed: int = 3) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(str(BASE))
        keys = SMALL | self.keys | variant.overrides | {"SEED": seed}
        cfg.merge_from_list([x for pair in keys.items() for x in pair])
        return cfg
