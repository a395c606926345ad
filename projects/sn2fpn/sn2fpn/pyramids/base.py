"""What all pyramids share: inputs from a trunk, laterals, level names, p6 and p7, sizes and initialisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, UserError, did_you_mean
from ..layers import Conv2d, c2_xavier_fill
from ..layers.norm import Norm
from ..signatures import keyword_parameters
from ..structures import ShapeSpec
from .levels import InputShape, Levels, check_maps, check_sizes, named_maps

__all__ = ["P6P7", "Pyramid", "subsample"]


class Pyramid(nn.Module):
    """Base class of the pyramids, which turn the maps of a trunk into maps p2, p3, … of equal width.

    A subclass adds its modules in the constructor and computes the equation of its paper in `fuse`. A pyramid in
    which p6 (or p6 and p7) take part computes that part in `refine`, which receives all levels. Level l is the map
    of stride 2^l: C_l of the trunk and p_l of the output. Modules of a level are named `<prefix><l>`, for instance
    "fpn_lateral2", as in Detectron2's state dicts. The pyramid has one level more than the trunk. This level is
    subsampled from the coarsest output, unless `fuse` returns it; `add_p6_p7` replaces it by RetinaNet's two levels.

    The module is called with a dict of maps or, when a trunk is attached, with images. The attribute `bottom_up`
    may also be set after construction. The constructor of a subclass passes what it does not use itself on to this one:

        def __init__(self, *inputs, norm="", **shared):
            super().__init__(*inputs, **shared)

    Args:
        input_shape: the description of the trunk's maps, or the channels of res2, res3, … (strides 4, 8, …).
        out_channels: width W of every output map.
        in_features: names of the trunk maps to use, from fine to coarse; their strides must double. All maps are
            used when it is empty.
        bottom_up: a trunk to attach; its `output_shape()` then takes the place of `input_shape`.

    Attributes:
        inputs: the `Levels` that the pyramid reads.
        in_features, in_channels: names and channels of these maps.
        levels: their base-2 logarithms of strides, from fine to coarse, e.g. (2, 3, 4, 5).
        out_channels: width W.
        out_levels, out_features: the levels and names of the outputs, e.g. (2, …, 6) and ("p2", …, "p6").

    Raises:
        ArgumentError: neither maps nor a trunk, a feature that the trunk does not have, or strides that do not double.
        TypeError: an argument that the pyramid does not take.
    """

    def __init__(
        self,
        input_shape: InputShape | None = None,
        out_channels: int = 256,
        *,
        in_features: Sequence[str] = (),
        bottom_up: nn.Module | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        for name in unknown:  # what no constructor of a subclass took
            choices = did_you_mean(name, keyword_parameters(type(self)))
            raise TypeError(f"{type(self).__name__} takes no argument {name!r}{choices}")
        if bottom_up is not None:
            if not hasattr(bottom_up, "output_shape"):
                problem = f"expected a trunk with a method `output_shape`, found {type(bottom_up).__name__}"
                raise ArgumentError("bottom_up", problem)
            input_shape = bottom_up.output_shape()
        if input_shape is None:
            raise ArgumentError("input_shape", "expected the channels of a trunk's maps, or a trunk as `bottom_up`")
        self._input_shape = named_maps(input_shape)
        self.inputs = Levels.of(self._input_shape, out_channels, in_features)
        self.in_features, self.in_channels = self.inputs.names, self.inputs.channels
        self.levels, self.out_channels = self.inputs.numbers, out_channels
        self._name_outputs(extra_levels=1)
        self.top_block: P6P7 | None = None
        self.bottom_up = bottom_up

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the output maps from the trunk's maps or, with a trunk attached, from images.

        Args:
            x: the trunk's maps by name, or images Tensor[N, 3, H, W].

        Returns:
            Tensor[N, W, H_l, W_l] for each name in `out_features`, from high to low resolution. The sizes are those
            of the trunk's maps; each extra level halves them and rounds up.

        Raises:
            ValueError: a map is missing or has the wrong channels, or an error arises and the sizes do not halve.
            UserError (a ValueError): `fuse` or `refine` of a subclass returns something else than a list of its maps.
        """
        if self.bottom_up is not None:
            x = self.bottom_up(x)
        if not isinstance(x, Mapping):
            raise ValueError(
                f"a pyramid without a trunk (`bottom_up`) expects a dict of maps, but found a {type(x).__name__}"
            )
        missing = [name for name in self.in_features if name not in x]
        if missing:
            raise ValueError(f"the pyramid needs the maps {self.in_features}; missing: {missing}, found: {list(x)}")
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # Neither needs the checks in its graph.
            return self._outputs(x)
        maps = {name: x[name] for name in self.in_features}
        check_maps(maps, self.in_channels)
        try:
            return self._outputs(x)
        except RuntimeError as e:
            check_sizes(maps, e)
            raise

    def _outputs(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the output maps from the trunk's maps."""
        used, all_levels = len(self.levels), len(self.out_features)
        counts = (used, all_levels) if self.top_block is None else (used,)
        maps = self._checked("fuse", self.fuse([x[name] for name in self.in_features]), *counts)
        if self.top_block is not None:
            maps += self.top_block({**x, **dict(zip(self.out_features, maps))})
        while len(maps) < all_levels:
            maps.append(subsample(maps[-1]))
        return dict(zip(self.out_features, self._checked("refine", self.refine(maps), all_levels)))

    def _checked(self, method: str, maps: Any, *counts: int) -> list[Tensor]:
        """Return the maps that a method of a subclass has made, if their number is right."""
        if not isinstance(maps, (list, tuple)) or len(maps) not in counts:
            found = f"{len(maps)} maps" if isinstance(maps, (list, tuple)) else f"a {type(maps).__name__}"
            expected = f"the first {' or '.join(map(str, counts))} of the maps {self.out_features}"
            raise UserError(f"{type(self).__name__}.{method}: expected a list of {expected}; found {found}")
        return list(maps)

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Compute a new list of output maps from the trunk's maps, both from fine to coarse."""
        raise NotImplementedError

    def refine(self, maps: list[Tensor]) -> list[Tensor]:
        """Compute the outputs from all levels, p6 (or p6 and p7) included; the base class returns them unchanged."""
        return maps

    def add_p6_p7(self, source: str = "res5") -> None:
        """Add two levels by learned convolutions (`P6P7`) in place of one by subsampling.

        Args:
            source: name of the map that p6 is computed from: the trunk's coarsest map, "res5", or the coarsest
                output, "p5".

        Raises:
            ArgumentError: there is no such map, or its stride is not that of the coarsest level.
        """
        known = self._input_shape | self.output_shape()
        stride = self.inputs.strides[-1]
        if source not in known or known[source].stride != stride:
            raise ArgumentError(
                "source",
                f"p6 and p7 need a map {source!r} with the stride {stride} of the coarsest level that is used;"
                f" the trunk has {list(self._input_shape)} and the pyramid {list(self.out_features)}",
            )
        self.top_block = P6P7(known[source].channels, self.out_channels, source)
        self.add_parts()  # the trunk stays the last module
        self._name_outputs(extra_levels=2)

    def _name_outputs(self, extra_levels: int) -> None:
        self.out_levels = tuple(range(self.levels[0], self.levels[-1] + 1 + extra_levels))
        self.out_features = tuple(f"p{level}" for level in self.out_levels)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the channels and the stride of each output."""
        return {
            name: ShapeSpec(channels=self.out_channels, stride=2**level)
            for name, level in zip(self.out_features, self.out_levels)
        }

    @property
    def size_divisibility(self) -> int:
        """The number whose multiples the sides of images are padded to, so that the trunk's maps halve exactly."""
        return self.inputs.strides[-1]

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further wishes on image padding in Detectron2's form; a `square_size` of 0 stands for none."""
        return {"square_size": 0}

    def add_parts(self, **parts: nn.Module | nn.Parameter | None) -> None:
        """Add modules and parameters by name, before the trunk.

        The trunk stays the last module, as in Detectron2, because an optimizer's state follows the order.

        Raises:
            ArgumentError: a part is neither, for instance a plain tensor, which would not be trained.
        """
        for name, part in parts.items():
            if part is not None and not isinstance(part, (nn.Module, nn.Parameter)):
                raise ArgumentError(name, f"expected a module, an nn.Parameter or None, found a {type(part).__name__}")
            add = self.register_parameter if isinstance(part, nn.Parameter) else self.add_module
            add(name, part)
        if self.bottom_up is not None:
            self._modules["bottom_up"] = self._modules.pop("bottom_up")

    def add_per_level(self, **parts: Callable[[int], nn.Module | nn.Parameter | None]) -> None:
        """Add the module or parameter `make(i)` as `<prefix><l>` for the i-th level l and each `prefix=make`.

        All parts of one level are added before those of the next, as in Detectron2. `make` returns None for a level
        that does not have the part.
        """
        for i, level in enumerate(self.levels):
            self.add_parts(**{f"{prefix}{level}": make(i) for prefix, make in parts.items()})

    def per_level(self, prefix: str) -> list[Any]:
        """Return the modules or parameters `<prefix><l>`, from fine to coarse."""
        return [getattr(self, f"{prefix}{level}") for level in self.levels]

    def add_laterals(self, norm: Norm = "", **parts: Callable[[int], nn.Module | nn.Parameter | None]) -> None:
        """Add the 1x1 convolution `fpn_lateral<l>` (C_l -> W channels) to each level, followed by `parts`."""
        self.add_per_level(fpn_lateral=lambda i: self.conv(self.in_channels[i], 1, norm), **parts)

    def laterals(self, features: list[Tensor]) -> list[Tensor]:
        """Compute L_l = conv1x1(C_l) for each level; the list is new."""
        return [conv(x) for conv, x in zip(self.per_level("fpn_lateral"), features)]

    def conv(self, in_channels: int, kernel_size: int, norm: Norm = "", stride: int = 1) -> Conv2d:
        """Make a convolution to W channels as FPN has it: Xavier fill, no activation, a bias only without a norm."""
        conv = Conv2d(in_channels, self.out_channels, kernel_size, stride, kernel_size // 2, norm=norm)
        c2_xavier_fill(conv)
        return conv


class P6P7(nn.Module):
    """RetinaNet's two coarse levels (Lin et al., ICCV 2017): p6 = conv3x3(C5), p7 = conv3x3(relu(p6)), of stride 2.

    Args:
        in_channels: channels of the map `source`.
        out_channels: width W.
        source: name of the map that p6 is computed from, "res5" (as in the paper and in Detectron2) or "p5".
    """

    def __init__(self, in_channels: int, out_channels: int, source: str = "res5") -> None:
        super().__init__()
        self.source = source
        self.p6 = Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            c2_xavier_fill(conv)

    def forward(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        """Return [p6, p7], Tensor[N, W, …] with half and a quarter of the source's size, rounded up."""
        p6 = self.p6(maps[self.source])
        return [p6, self.p7(F.relu(p6))]


def subsample(x: Tensor) -> Tensor:
    """Return every second pixel, starting at index 0: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
    return F.max_pool2d(x, kernel_size=1, stride=2)
