"""CARAFE: content-aware reassembly of features.

    y[2i + a, 2j + b] = sum_{u, v} softmax_{u, v}(encode(compress(x)))[a, b, u, v](i, j) * x[i + u, j + v]

(a, b) is one of the four fine pixels of a coarse pixel, and (u, v) runs over the k x k window around the coarse pixel;
x is 0 outside. Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019 (arXiv 1905.02188).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...ranges import check_count, check_odd
from ..conv import Conv2d
from .base import Doubling

__all__ = ["CARAFE"]


class CARAFE(Doubling):
    """Upsampling by weighted means of windows, where a small network computes the weights from the coarse map.

    The weights of one fine pixel are all positive, sum to 1 and hold for all channels. A constant map stays constant
    where the window lies inside the map.

    With C channels, C_m compressed channels, encoder kernel e and reassembly kernel k, it has
    (C + 1) C_m + (e^2 C_m + 1) 4 k^2 parameters. The paper counts
    2 (C + 1) C_m + 2 (e^2 C_m + 1) 4 k^2 + 2 * 4 k^2 C operations per coarse pixel. At C = 256 with the defaults these
    are 74,148 parameters and 199,496 operations.

    The windows of all pixels are gathered in memory: k^2 times the coarse map.

    Args:
        channels: number of channels C.
        compressed_channels: number of channels C_m from which the weights are computed.
        encoder_kernel: odd kernel size e of the convolution that computes the weights.
        kernel: odd side k of the window.

    Raises:
        ArgumentError: a kernel size is even, or a number is not positive.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import CARAFE
        >>> CARAFE(8)(torch.ones(1, 8, 5, 6), (9, 12)).shape
        torch.Size([1, 8, 9, 12])
    """

    def __init__(
        self, channels: int, compressed_channels: int = 64, *, encoder_kernel: int = 3, kernel: int = 5
    ) -> None:
        super().__init__()
        check_count("channels", channels)
        check_count("compressed_channels", compressed_channels)
        check_odd("encoder_kernel", encoder_kernel)
        self.kernel = check_odd("kernel", kernel)
        self.channel_compressor = Conv2d(channels, compressed_channels, 1)
        self.content_encoder = nn.Conv2d(
            compressed_channels, 4 * kernel**2, encoder_kernel, padding=encoder_kernel // 2
        )
        nn.init.xavier_uniform_(self.channel_compressor.weight)
        nn.init.normal_(self.content_encoder.weight, std=0.001)
        nn.init.zeros_(self.channel_compressor.bias)
        nn.init.zeros_(self.content_encoder.bias)

    def double_size(self, coarse: Tensor) -> Tensor:
        """Return the map (Tensor[N, C, h, w]) at twice its height and width (Tensor[N, C, 2h, 2w])."""
        (n, channels, h, w), k = coarse.shape, self.kernel
        logits = self.content_encoder(self.channel_compressor(coarse)).reshape(n, k * k, 4, h, w)
        weights = logits.softmax(dim=1).permute(0, 3, 4, 1, 2).reshape(-1, k * k, 4)
        windows = F.pad(coarse, (k // 2,) * 4).unfold(2, k, 1).unfold(3, k, 1)  # (N, C, h, w, k, k)
        fine = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, k * k) @ weights
        return fine.reshape(n, h, w, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, channels, 2 * h, 2 * w)
