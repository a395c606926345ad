"""ResNet as a trunk, from images to the maps res2 to res5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ...structures import ShapeSpec
from .blocks import TrunkPart

__all__ = ["ResNet"]


class ResNet(nn.Module):
    """A residual network: a stem and stages of residual blocks (He et al., CVPR 2016).

    The names of the parameters are Detectron2's.

    Args:
        stem: the first layers.
        stages: the blocks of each stage by its name ("res2", ...), from fine to coarse. Stages after the last one
            that is returned are left out.
        out_features: names of the maps to return: "stem" or names of stages.
        freeze_at: number of frozen parts: 0 for none, 1 for the stem, 2 for the stem and res2, and so on.

    Example:
        >>> import torch
        >>> from sn2fpn.modeling.trunk import BasicBlock, BasicStem, ResNet
        >>> trunk = ResNet(BasicStem(), {"res2": [BasicBlock(64, 64)]}, ["res2"])
        >>> trunk(torch.randn(1, 3, 64, 96))["res2"].shape
        torch.Size([1, 64, 16, 24])
    """

    def __init__(
        self,
        stem: TrunkPart,
        stages: Mapping[str, Sequence[TrunkPart]],
        out_features: Sequence[str],
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        names = list(stages)
        last = max((names.index(name) for name in out_features if name in names), default=-1)
        self.stem = stem
        self.stage_names = tuple(names[: last + 1])
        self.out_features = tuple(out_features)
        self._shapes = {"stem": ShapeSpec(channels=stem.out_channels, stride=stem.stride)}
        stride = stem.stride
        for name in self.stage_names:
            for block in stages[name]:
                stride *= block.stride
            self._shapes[name] = ShapeSpec(channels=stages[name][-1].out_channels, stride=stride)
            self.add_module(name, nn.Sequential(*stages[name]))
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (Tensor[N, 3, H, W]) to the maps named in `out_features`, from high to low resolution."""
        maps = {"stem": self.stem(x)}
        x = maps["stem"]
        for name in self.stage_names:
            x = maps[name] = getattr(self, name)(x)
        return {name: maps[name] for name in maps if name in self.out_features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the channels and the stride of each returned map."""
        return {name: shape for name, shape in self._shapes.items() if name in self.out_features}

    @property
    def size_divisibility(self) -> int:
        """0: a trunk alone takes images of any size without padding."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further constraints on image padding in Detectron2's form; there are none."""
        return {}

    def freeze(self, freeze_at: int) -> None:
        """Freeze the stem and the first `freeze_at - 1` stages, except the parts that ESD adds."""
        for part in self.parts()[:freeze_at]:
            for block in part:
                block.freeze()

    def parts(self) -> list[list[TrunkPart]]:
        """Return the stem and then each stage as lists of blocks."""
        return [[self.stem], *(list(getattr(self, name)) for name in self.stage_names)]
