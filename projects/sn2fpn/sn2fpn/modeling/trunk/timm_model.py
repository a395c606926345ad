"""Any image classifier of timm as a trunk, for convolutional networks and for transformers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ArgumentError, UserError, check_choice, did_you_mean
from ...structures import ShapeSpec

__all__ = ["PREFIX", "SimpleFeaturePyramid", "TimmTrunk", "import_timm"]

logger = logging.getLogger(__name__)

PREFIX = "timm/"
"""What the names of timm's models begin with in `MODEL.BACKBONE.TRUNK`."""

_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def import_timm() -> Any:
    """Return the module timm, which is an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(f"trunks and weights of timm need timm ({error}); type: pip install 'sn2fpn[timm]'") from None
    return timm


class TimmTrunk(nn.Module):
    """A model of timm without its classifier, from images to maps of the strides 4, 8, 16 and 32.

    The maps have the names of a ResNet's, res2 to res5, so that every pyramid reads them. A plain vision transformer
    has maps of stride 16 only, and a `SimpleFeaturePyramid` makes the four maps from its last one. The parameters have
    timm's names after `net.`, so that its pretrained weights fit.

    Args:
        name: the name of the model, such as "convnext_tiny".
        in_channels: number of channels of the images.
        out_features: names of the maps to return.
        freeze_at: number of frozen parts: 0 for none, 1 for all that comes before the stage of res2, 2 for all up to
            res2, and so on. Of a plain vision transformer, 1 freezes what comes before its first block, and more
            freezes all of it. Batch norms in frozen parts replay their statistics.

    Raises:
        ArgumentError: there is no such model or map, it has no maps of these strides, `freeze_at` is not from 0 to 5,
            or the model does not tell which parameters come before a stage.
        UserError: timm is not installed.
    """

    def __init__(
        self, name: str, *, in_channels: int = 3, out_features: Sequence[str] = tuple(_STRIDES), freeze_at: int = 0
    ) -> None:
        super().__init__()
        check_choice("freeze_at", freeze_at, range(6))
        for feature in out_features:
            check_choice("out_features", feature, tuple(_STRIDES))
        self.name = name
        self.net = _create(name, in_channels)
        stages = [(s["num_chs"], s["reduction"], s["module"]) for s in self.net.feature_info]
        plain = {stride for _, stride, _ in stages} == {16}
        self._indices = [len(stages) - 1] if plain else _indices(name, [stride for _, stride, _ in stages])
        self.net.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)
        channels = [stages[i][0] for i in self._indices]
        self.pyramid = SimpleFeaturePyramid(channels[0]) if plain else None
        if self.pyramid is not None:
            channels = self.pyramid.out_channels
        self.out_features = tuple(name for name in _STRIDES if name in out_features)
        self._shapes = {n: ShapeSpec(channels=c, stride=s) for (n, s), c in zip(_STRIDES.items(), channels)}
        ends = [stages[0 if plain else self._indices[0]][2]]  # before this one, 1 freezes all
        ends += [stages[i][2] for i in self._indices] * (4 if plain else 1)
        self._frozen_norms = self._freeze(ends, freeze_at)
        if plain and freeze_at > 1:
            logger.warning(
                "freeze_at %d freezes all of %s, because its four maps come from its last block", freeze_at, name
            )
        self.train(self.training)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (Tensor[N, C, H, W]) to the maps named in `out_features`, from high to low resolution.

        Raises:
            UserError: the model does not take images of this size.
        """
        try:
            maps = self.net.forward_intermediates(x, indices=self._indices, intermediates_only=True)
        except (AssertionError, RuntimeError, ValueError) as error:
            own = self.net.pretrained_cfg["input_size"][1:]
            if "memory" in str(error) or not self._takes(x.new_zeros(*x.shape[:2], *own)):
                raise
            raise UserError(
                f"timm's model {self.name!r} takes images of its own size {own}, but none of (height, width) "
                f"{tuple(x.shape[2:])}: {error}. Choose a model without a fixed input size, or other image sizes"
            ) from error
        if self.pyramid is not None:
            maps = self.pyramid(maps[0])
        return {name: m for name, m in zip(_STRIDES, maps) if name in self.out_features}

    def _takes(self, x: Tensor) -> bool:
        """Return whether the model computes its maps of images without an error."""
        try:
            self.net.forward_intermediates(x, indices=self._indices, intermediates_only=True)
        except (AssertionError, RuntimeError, ValueError):
            return False
        return True

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the channels and the stride of each returned map."""
        return {name: self._shapes[name] for name in self.out_features}

    @property
    def size_divisibility(self) -> int:
        """The number whose multiples the sides of images must be."""
        return 32

    @property
    def padding_constraints(self) -> Mapping[str, int]:
        """Further constraints on image padding in Detectron2's form; there are none."""
        return {}

    def train(self, mode: bool = True) -> TimmTrunk:
        """Set the mode of all parts but the batch norms of frozen ones, which stay in evaluation mode."""
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def _freeze(self, ends: Sequence[str], freeze_at: int) -> list[nn.Module]:
        """Stop the gradients of all parameters up to a stage, and return the batch norms among them.

        timm's models list their parameters in the order of their use.

        Args:
            ends: the module before which 1 freezes all, and the module that gives each of the four maps.
            freeze_at: see the class.
        """
        if not freeze_at:
            return []
        names = [name for name, _ in self.net.named_parameters()]
        inside = [i for i, name in enumerate(names) if name.startswith(f"{ends[freeze_at - 1]}.")]
        if not inside:
            problem = f"timm's model {self.name!r} does not tell which parameters belong to its stages; expected 0"
            raise ArgumentError("freeze_at", f"{problem}, found {freeze_at}")
        stop = inside[0] if freeze_at == 1 else inside[-1] + 1
        for parameter in list(self.net.parameters())[:stop]:
            parameter.requires_grad_(False)
        norms = [m for m in self.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        return [m for m in norms if m.weight is not None and not m.weight.requires_grad]


class SimpleFeaturePyramid(nn.Module):
    """Four maps of the strides 4, 8, 16 and 32 from one of stride 16 (Li et al., ECCV 2022, section 3).

    They are made by two transposed convolutions with a layer norm and GELU between them, by one transposed convolution,
    by nothing, and by a max-pool of stride 2.

    Args:
        channels: number of channels of the map; a multiple of 4.

    Attributes:
        out_channels: number of channels of each output, from fine to coarse.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = [channels // 4, channels // 2, channels, channels]
        self.up1 = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.norm = nn.LayerNorm(channels // 2)
        self.up2 = nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)
        self.up = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map Tensor[N, C, H, W] to four maps, of which the first has 4 times its height and width."""
        fine = self.norm(self.up1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [self.up2(F.gelu(fine)), self.up(x), x, F.max_pool2d(x, 2)]


def _create(name: str, in_channels: int) -> Any:
    """Return timm's model with random weights, without a classifier, for images of any size where it can be."""
    timm = import_timm()
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models()) or "; timm.list_models() lists the names"
        raise ArgumentError("name", f"timm {timm.__version__} has no model {name!r}{hint}")
    options: dict[str, Any] = dict(pretrained=False, in_chans=in_channels, num_classes=0)
    try:
        net = timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:  # The model has no such argument, and most of these take any size.
        net = timm.create_model(name, **options)
    for method in ("forward_intermediates", "prune_intermediate_layers"):
        if not hasattr(net, method):
            raise ArgumentError("name", f"timm's model {name!r} gives no maps of its stages (it has no {method})")
    return net


def _indices(name: str, strides: Sequence[int]) -> list[int]:
    """Return which of a model's maps have the strides 4, 8, 16 and 32; of several the last one.

    Raises:
        ArgumentError: a stride is missing.
    """
    last = {stride: i for i, stride in enumerate(strides)}
    wanted = list(_STRIDES.values())
    if not last.keys() >= set(wanted):
        raise ArgumentError(
            "name",
            f"expected a model with maps of the strides {wanted}, but timm's {name!r} has {sorted(last)}; "
            "choose one such as convnext_tiny or swin_tiny_patch4_window7_224, or a ViT with patches of 16 pixels",
        )
    return [last[stride] for stride in wanted]
