"""The memory layout that suits the CPU.

The detector converts its input images, and the mask head its input features, to channels-last on a CPU. All later maps
inherit the layout; convolutions and RoIAlign are faster in it there (the mask head by a quarter). The exception is
training in float32 with norms that compute statistics: the maps of the backbone stay contiguous then, see
`GeneralizedRCNN`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["channels_last_on_cpu"]


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Return the map (Tensor[N, C, H, W]) in channels-last layout if it lies on a CPU, otherwise unchanged."""
    return x.contiguous(memory_format=torch.channels_last) if x.is_cpu else x
