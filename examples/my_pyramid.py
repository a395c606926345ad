"""GatedFPN, a pyramid of one's own: every level decides, pixel by pixel, how much of the coarse map it takes.

T_5 = L_5,  T_i = L_i + sigmoid(conv1x1(L_i)) * nearest(T_{i+1}),  P_i = conv3x3(T_i),  L_i = conv1x1(C_i)
"""

import math
from functools import partial

from torch import nn

from sn2fpn.layers import upsample
from sn2fpn.pyramids import Pyramid, register_pyramid


class GatedFPN(Pyramid):
    """FPN with a learned gate on each top-down step; it starts at 1/4, SNI's factor.

    Args:
        input_shape, out_channels, in_features, bottom_up: as in every pyramid.
        norm: of laterals and output convs, as in FPN.
        per_channel: a gate for each channel of each pixel; False: one per pixel.
    """

    def __init__(
        self, input_shape=None, out_channels=256, *, in_features=(), bottom_up=None, norm="", per_channel=False
    ):
        super().__init__(input_shape, out_channels, in_features=in_features, bottom_up=bottom_up)
        coarsest = len(self.levels) - 1
        self.add_laterals(
            norm,
            gate=lambda i: _gate(out_channels, per_channel) if i < coarsest else None,
            fpn_output=lambda i: self.conv(out_channels, 3, norm),
        )

    def fuse(self, features):
        """Trunk maps, fine to coarse -> output maps, fine to coarse."""
        outputs, coarse = [], None
        levels = zip(self.laterals(features), self.per_level("gate"), self.per_level("fpn_output"))
        for fused, gate, output in reversed(list(levels)):
            if coarse is not None:
                fused = fused + gate(fused).sigmoid() * upsample(coarse, fused.shape[2:])
            outputs.append(output(fused))
            coarse = fused
        return outputs[::-1]


def _gate(channels, per_channel):
    conv = nn.Conv2d(channels, channels if per_channel else 1, 1)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, -math.log(3))  # sigmoid(-log 3) = 1/4
    return conv


def build(cfg, input_shape, **options):
    fpn = cfg.MODEL.FPN
    return GatedFPN(input_shape, fpn.OUT_CHANNELS, in_features=fpn.IN_FEATURES, norm=fpn.NORM, **options)


register_pyramid("mine")(build)  # MODEL.BACKBONE.NAME build_sn2_mine_backbone
register_pyramid("mine_per_channel")(partial(build, per_channel=True))
