"""GatedFPN, a pyramid of your own: every level decides, pixel by pixel, how much of the coarse map it takes.

T_5 = L_5,  T_i = L_i + sigmoid(conv1x1(L_i)) * nearest(T_{i+1}),  P_i = conv3x3(T_i),  L_i = conv1x1(C_i)
"""

import math

from torch import nn

from sn2fpn.pyramids import FPN, register_pyramid


@register_pyramid("mine")  # MODEL.BACKBONE.NAME build_sn2_mine_backbone
class GatedFPN(FPN):
    """A feature pyramid network (FPN) with a learned gate on each top-down step; it starts at 1/4, the factor of SNI.

    Args:
        inputs, shared: as in `FPN`.
        per_channel: whether there is a gate for each channel of a pixel instead of one for the pixel.
    """

    def __init__(self, *inputs, per_channel=False, **shared):
        super().__init__(*inputs, **shared)
        coarsest = len(self.levels) - 1
        self.add_per_level(gate=lambda i: _gate(self.out_channels, per_channel) if i < coarsest else None)

    def step(self, level, fine, coarse):
        gate, upsample = (getattr(self, f"{part}{level}") for part in ("gate", "fpn_upsample"))
        return fine + gate(fine).sigmoid() * upsample(coarse, fine.shape[2:])


def _gate(channels, per_channel):
    conv = nn.Conv2d(channels, channels if per_channel else 1, 1)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, -math.log(3))  # sigmoid(-log 3) = 1/4
    return conv


register_pyramid("mine_per_channel", per_channel=True)(GatedFPN)
