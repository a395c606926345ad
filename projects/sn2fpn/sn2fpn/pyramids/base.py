"""What all pyramids share: inputs from a trunk, laterals, level names, p6 and p7, sizes, initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..layers import Conv2d, c2_xavier_fill
from ..layers.norm import Norm
from ..structures import ShapeSpec

__all__ = ["InputShape", "P6P7", "Pyramid", "subsample"]

InputShape = Mapping[str, ShapeSpec] | Sequence[int]
"""A trunk's maps: description by name, or just the channels of res2, res3, … at strides 4, 8, …"""


class Pyramid(nn.Module):
    """Base of the pyramids: maps of a trunk in, maps p2, p3, … of equal width out.

    A subclass adds its modules in the constructor and says in `fuse` what its paper says, or, where p6 and p7 take
    part, in `refine`, which sees all levels. Level l is the
    map with stride 2^l: trunk map C_l, output p_l. Per-level modules are named `<prefix><l>` ("fpn_lateral2")
    as in Detectron2's state dicts. One more level than the trunk has (p6) is subsampled from the coarsest
    output, unless `fuse` returns it; `add_p6_p7` replaces it by RetinaNet's two.

    It is called with a dict of maps or, with a trunk (`bottom_up`, which may also be set later), with images.

    Args:
        input_shape: the trunk's output description, or the channel counts of res2, res3, … (strides 4, 8, …).
        out_channels: width W of every output map.
        in_features: the trunk maps to use, fine to coarse; their strides must double. Empty: all.
        bottom_up: a trunk to attach; its `output_shape()` then is the input shape.

    Attributes:
        levels: log2 strides of the used maps, fine to coarse, e.g. (2, 3, 4, 5).
        in_channels: their channels.
        out_features: names of the outputs, high to low resolution, e.g. ("p2", …, "p6").

    Raises:
        UserError: a feature that the trunk does not have, strides that do not double, or no input shape.
    """

    def __init__(
        self,
        input_shape: InputShape | None = None,
        out_channels: int = 256,
        *,
        in_features: Sequence[str] = (),
        bottom_up: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if bottom_up is not None:
            input_shape = bottom_up.output_shape()
        if input_shape is None:
            raise UserError("a pyramid needs the channels of a trunk's maps (input_shape), or a trunk (bottom_up)")
        if not isinstance(input_shape, Mapping):
            specs = [ShapeSpec(channels=c, stride=2**i) for i, c in enumerate(input_shape, start=2)]
            input_shape = {f"res{i}": spec for i, spec in enumerate(specs, start=2)}
        for name in in_features:
            if name not in input_shape:
                hint = did_you_mean(name, input_shape)
                raise UserError(
                    f"MODEL.FPN.IN_FEATURES: the trunk has no output {name!r}{hint}"
                    " (MODEL.RESNETS.OUT_FEATURES lists its outputs)"
                )
        self.in_features = tuple(in_features) or tuple(input_shape)
        specs = [input_shape[name] for name in self.in_features]
        strides = [spec.stride for spec in specs]
        self.levels = tuple(int(math.log2(stride)) for stride in strides)
        if not specs or strides != [2 ** (self.levels[0] + i) for i in range(len(specs))]:
            found = dict(zip(self.in_features, strides))
            raise UserError(f"a pyramid needs maps whose strides double, fine to coarse; found {found}")
        self.in_channels = tuple(spec.channels for spec in specs)
        self.out_channels = out_channels
        self._input_shape = dict(input_shape)
        self._name_outputs(extra_levels=1)
        self.top_block: P6P7 | None = None
        self.bottom_up = bottom_up

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Trunk maps by name (or, with a trunk attached, images Tensor[N, 3, H, W]) -> the output maps.

        Returns:
            Tensor[N, W, H_l, W_l] for each name in `out_features`, high to low resolution; the sizes are
            those of the maps, and halved, rounded up, for each extra level.

        Raises:
            ValueError: a map is missing.
        """
        if self.bottom_up is not None:
            x = self.bottom_up(x)
        if not isinstance(x, Mapping):
            raise ValueError("without a trunk (`bottom_up`) a pyramid takes a dict of maps, found a tensor")
        missing = [name for name in self.in_features if name not in x]
        if missing:
            raise ValueError(f"the pyramid needs the maps {self.in_features}; missing: {missing}")
        maps = self.fuse([x[name] for name in self.in_features])
        if self.top_block is not None:
            maps += self.top_block({**x, **dict(zip(self.out_features, maps))})
        while len(maps) < len(self.out_features):
            maps.append(subsample(maps[-1]))
        return dict(zip(self.out_features, self.refine(maps)))

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """The pyramid itself: trunk maps, fine to coarse -> a new list of output maps, fine to coarse."""
        raise NotImplementedError

    def refine(self, maps: list[Tensor]) -> list[Tensor]:
        """What follows once p6 (or p6 and p7) exist: all levels, fine to coarse -> the outputs; here they are."""
        return maps

    def add_p6_p7(self, source: str = "res5") -> None:
        """Two more levels than the trunk has, by learned convs instead of one by subsampling (`P6P7`).

        Args:
            source: the map that p6 is made of: the trunk's coarsest, "res5", or the coarsest output, "p5".

        Raises:
            UserError: no such map, or one with another stride.
        """
        known = self._input_shape | self.output_shape()
        stride = 2 ** self.levels[-1]
        if source not in known or known[source].stride != stride:
            raise UserError(
                f"p6 and p7 need {source!r} with stride {stride}; found the trunk's {list(self._input_shape)}"
                f" (MODEL.RESNETS.OUT_FEATURES) and the pyramid's {list(self.out_features)} (MODEL.FPN.IN_FEATURES)"
            )
        self.top_block = P6P7(known[source].channels, self.out_channels, source)
        self._name_outputs(extra_levels=2)

    def _name_outputs(self, extra_levels: int) -> None:
        self.out_levels = tuple(range(self.levels[0], self.levels[-1] + 1 + extra_levels))
        self.out_features = tuple(f"p{level}" for level in self.out_levels)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output."""
        return {
            name: ShapeSpec(channels=self.out_channels, stride=2**level)
            for name, level in zip(self.out_features, self.out_levels)
        }

    @property
    def size_divisibility(self) -> int:
        """Image sides are padded to multiples of this, so that the trunk's maps halve exactly."""
        return 2 ** self.levels[-1]

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further wishes on image padding, as Detectron2 states them; `square_size` 0: none."""
        return {"square_size": 0}

    def add_parts(self, **parts: nn.Module | None) -> None:
        """Add modules by name. The trunk stays last, as in Detectron2: an optimizer's state goes by the order."""
        for name, part in parts.items():
            self.add_module(name, part)
        if self.bottom_up is not None:
            self._modules["bottom_up"] = self._modules.pop("bottom_up")

    def add_per_level(self, **parts: Callable[[int], nn.Module | None]) -> None:
        """Add `make(i)` as `<prefix><l>` for the i-th level l and each `prefix=make`, level by level as Detectron2.

        None: the level has no such part.
        """
        for i, level in enumerate(self.levels):
            self.add_parts(**{f"{prefix}{level}": make(i) for prefix, make in parts.items()})

    def per_level(self, prefix: str) -> list[nn.Module]:
        """The modules `<prefix><l>`, fine to coarse."""
        return [getattr(self, f"{prefix}{level}") for level in self.levels]

    def add_laterals(self, norm: Norm = "", **parts: Callable[[int], nn.Module]) -> None:
        """Add per level the 1x1 conv `fpn_lateral<l>` (C_l -> W channels) and, after it, `parts`."""
        self.add_per_level(fpn_lateral=lambda i: self.conv(self.in_channels[i], 1, norm), **parts)

    def laterals(self, features: list[Tensor]) -> list[Tensor]:
        """L_l = conv1x1(C_l), a new list."""
        return [conv(x) for conv, x in zip(self.per_level("fpn_lateral"), features)]

    def conv(self, in_channels: int, kernel_size: int, norm: Norm = "", stride: int = 1) -> Conv2d:
        """A neck conv to W channels as in FPN: no activation, a bias only without norm, Xavier fill."""
        conv = Conv2d(in_channels, self.out_channels, kernel_size, stride, kernel_size // 2, norm=norm)
        c2_xavier_fill(conv)
        return conv


class P6P7(nn.Module):
    """RetinaNet's coarse levels (Lin et al., ICCV 2017): p6 = conv3x3(C5), p7 = conv3x3(relu(p6)), both of stride 2.

    Args:
        in_channels: of the map `source`.
        out_channels: width W.
        source: its name, "res5" (as in the paper and in Detectron2) or "p5".
    """

    def __init__(self, in_channels: int, out_channels: int, source: str = "res5") -> None:
        super().__init__()
        self.source = source
        self.p6 = Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            c2_xavier_fill(conv)

    def forward(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        """Maps by name -> [p6, p7]: Tensor[N, W, …] of half and a quarter of the source's size, rounded up."""
        p6 = self.p6(maps[self.source])
        return [p6, self.p7(F.relu(p6))]


def subsample(x: Tensor) -> Tensor:
    """Every second pixel, starting at index 0: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
    return F.max_pool2d(x, kernel_size=1, stride=2)
