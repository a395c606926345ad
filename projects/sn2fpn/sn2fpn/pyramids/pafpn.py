"""PAFPN: FPN followed by a bottom-up path. Path Aggregation Network (Liu et al., CVPR 2018, arXiv 1803.01534).

    N_2 = P_2,  N_{i+1} = relu(conv3x3(relu(conv3x3/2(N_i)) + P_{i+1})),  P_i from FPN;  p6 = subsample(N_5)

The variant "openmmlab", the form of a widely used implementation, has no activations and passes the raw sum up:

    S_2 = P_2,  S_{i+1} = conv3x3/2(S_i) + P_{i+1},  N_2 = S_2,  N_i = conv3x3(S_i)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_choice
from ..layers.norm import Norm
from .fpn import FPN
from .registry import register_pyramid

__all__ = ["PAFPN"]


@register_pyramid("pafpn")
class PAFPN(FPN):
    """A path aggregation network: FPN followed by a second path from fine to coarse.

    Each level l but the finest has, in addition to FPN's modules, `pafpn_down<l>` (of stride 2) and
    `pafpn_output<l>` (after the sum), so FPN checkpoints load by name. In the variant "paper" all outputs but the
    finest, and but the p6 and p7 of `add_p6_p7`, end in a ReLU and are >= 0.

    Args:
        inputs, shared: as in `FPN`, with the `fuse_type` and the `upsample` of its top-down path.
        norm: norm of every convolution, see `sn2fpn.layers.get_norm`. Without one ("") the convolutions have biases.
        variant: "paper", or "openmmlab".
        make_down: makes a module that halves a map on the way up, W -> W channels, with sizes rounded up. None makes
            a 3x3 convolution of stride 2.

    Raises:
        ArgumentError: an unknown choice, or what `FPN` refuses.

    Example:
        >>> import torch
        >>> from sn2fpn.pyramids import PAFPN
        >>> pyramid = PAFPN([8, 16, 32, 64], out_channels=16)
        >>> maps = {f"res{i}": torch.randn(1, 2 ** (i + 1), 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
        >>> pyramid(maps)["p5"].shape
        torch.Size([1, 16, 4, 6])
    """

    def __init__(
        self,
        *inputs: Any,
        norm: Norm = "",
        variant: str = "paper",
        make_down: Callable[[], nn.Module] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(*inputs, norm=norm, **shared)
        self.variant = check_choice("variant", variant, ("paper", "openmmlab"))
        width = self.out_channels
        make_down = make_down or (lambda: self.conv(width, 3, norm, stride=2))
        self.add_per_level(
            pafpn_down=lambda i: make_down() if i else None,
            pafpn_output=lambda i: self.conv(width, 3, norm) if i else None,
        )

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Compute FPN's maps, then the bottom-up path from fine to coarse."""
        maps = super().fuse(features)
        passed_up = maps[0]
        levels = zip(self.per_level("pafpn_down"), self.per_level("pafpn_output"))
        for i, (down, output) in list(enumerate(levels))[1:]:
            if self.variant == "paper":
                # Not in place: the gradient of a module that `make_down` made may need the output of that module.
                maps[i] = passed_up = F.relu_(output(F.relu(down(passed_up)) + maps[i]))
            else:
                passed_up = down(passed_up) + maps[i]
                maps[i] = output(passed_up)
        return maps
