"""Soft nearest-neighbour interpolation (SNI), alone and fused into a top-down addition.

    Y = alpha * nearest(X),  alpha = (h * w) / (H * W)

Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024 (arXiv 2505.12820): the coarse map
is damped by the ratio of resolutions (pixel counts; 1/4 at zoom 2), so that it assists the fine map it is fused
with. The paper's factor and the released code's 1/s^2 agree; on odd sizes alpha follows the actual sizes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, did_you_mean

__all__ = ["SNI", "soft_nearest", "soft_nearest_add"]

_MODES = ("nearest", "bilinear")


class SNI(nn.Module):
    """Soft nearest-neighbour interpolation: upsample and scale by alpha. No parameters.

    See `soft_nearest` for the rule.

    Args:
        scale_factor: zoom s of both axes, used when no size is given.
        alpha: "area" (h*w / (H*W), so 1 / s^2), or a fixed factor.
        mode: "nearest" (the paper), or "bilinear" with half-pixel centres (`align_corners=False`).

    Raises:
        UserError: unknown `alpha` or `mode`.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import SNI
        >>> SNI()(torch.ones(1, 8, 5, 6)).shape
        torch.Size([1, 8, 10, 12])
        >>> SNI()(torch.ones(1, 8, 5, 6), size=(9, 12))[0, 0, 0, 0]  # 30 / 108
        tensor(0.2778)
    """

    def __init__(self, scale_factor: int = 2, alpha: float | str = "area", mode: str = "nearest") -> None:
        super().__init__()
        _check_options(alpha, mode)
        self.scale_factor = scale_factor
        self.alpha = alpha
        self.mode = mode

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """`x` (Tensor[N, C, h, w]) -> Tensor[N, C, H, W], by default (H, W) = s * (h, w)."""
        if size is None:
            size = (x.shape[2] * self.scale_factor, x.shape[3] * self.scale_factor)
        return soft_nearest(x, size, self.alpha, self.mode)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, alpha={self.alpha!r}, mode={self.mode!r}"


def soft_nearest(x: Tensor, size: tuple[int, int], alpha: float | str = "area", mode: str = "nearest") -> Tensor:
    """Upsample and scale: alpha * f(x), f = nearest-neighbour interpolation (see the module's head).

    Args:
        x (Tensor[N, C, h, w]): the coarse map.
        size: (H, W), each at least the input's.
        alpha: "area" for (h*w) / (H*W), or a fixed factor.
        mode: "nearest", or "bilinear" with half-pixel centres.

    Returns:
        Tensor[N, C, H, W], dtype of x.

    Raises:
        ValueError: a target smaller than the input, unknown `alpha` or `mode`.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import soft_nearest
        >>> soft_nearest(torch.ones(1, 8, 5, 6), (9, 12)).shape
        torch.Size([1, 8, 9, 12])
    """
    _check_options(alpha, mode)
    # alpha goes in at the coarse size: nearest and bilinear interpolation are linear.
    return F.interpolate(x * _factor(x, size, alpha), size=tuple(size), mode=mode)


def soft_nearest_add(lateral: Tensor, x: Tensor, alpha: float | str = "area", mode: str = "nearest") -> Tensor:
    """One top-down step, lateral + alpha * f(x), f = interpolation to the lateral's size.

    Where the lateral has twice the size of x (2n or 2n - 1 pixels: every step of a pyramid), the upsampled map is
    never made: each pixel of x is added to the pixels of the lateral that it covers, and backward sums over them.
    `tools/benchmark_sni.py` measures this against interpolating, multiplying and adding. (A compiler fuses
    these three by itself, so compiling and tracing see the plain form.)

    Args:
        lateral (Tensor[N, C, H, W]): the fine map.
        x (Tensor[N, C, h, w]): the coarse map.
        alpha: "area" for (h*w) / (H*W), or a fixed factor; 1.0 gives FPN's step.
        mode: "nearest", or "bilinear" with half-pixel centres.

    Returns:
        Tensor[N, C, H, W].

    Raises:
        ValueError: batch or channels differ, the lateral is smaller than x, unknown `alpha` or `mode`.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import soft_nearest_add
        >>> soft_nearest_add(torch.zeros(1, 8, 9, 12), torch.ones(1, 8, 5, 6)).shape
        torch.Size([1, 8, 9, 12])
    """
    _check_options(alpha, mode)
    if lateral.shape[:2] != x.shape[:2]:
        raise ValueError(f"batch and channels must agree: lateral {tuple(lateral.shape)}, x {tuple(x.shape)}")
    (h, w), size = x.shape[2:], tuple(lateral.shape[2:])
    doubles = (size[0] + 1) // 2 == h and (size[1] + 1) // 2 == w
    if mode != "nearest" or not doubles or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return lateral + soft_nearest(x, size, alpha, mode)
    dtype = torch.promote_types(lateral.dtype, x.dtype)
    return _DoubleAndAdd.apply(lateral.to(dtype), x.to(dtype), _factor(x, size, alpha))


class _DoubleAndAdd(torch.autograd.Function):
    """lateral + alpha * nearest(x) for a lateral of 2n or 2n - 1 rows and columns; saves no map for backward."""

    @staticmethod
    def forward(ctx, lateral: Tensor, x: Tensor, alpha: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.alpha, ctx.shape = alpha, x.shape
        (rows, odd_row), odd_column = divmod(lateral.shape[2], 2), lateral.shape[3] % 2
        channels_inside = lateral.is_contiguous(memory_format=torch.channels_last)
        if not (odd_row or odd_column) and (channels_inside or lateral.device.type != "cpu"):
            out = torch.empty_like(lateral)  # in the lateral's layout; an `add` of squares would choose its own
            squares, totals = (t.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)) for t in (lateral, out))
            torch.add(squares, x[:, :, :, None, :, None], alpha=alpha, out=totals)
            return out
        # The even, then the odd columns, x broadcast over pairs of rows: over squares, a CPU's inner loop would
        # run along pairs of columns, which does not vectorise.
        out = torch.empty_like(lateral)
        for column in (0, 1):
            fine, total = lateral[..., column::2], out[..., column::2]
            coarse = x[..., : fine.shape[3]]
            pairs = fine[:, :, : 2 * rows].unflatten(2, (rows, 2))
            pair_totals = total[:, :, : 2 * rows].unflatten(2, (rows, 2))
            torch.add(pairs, coarse[:, :, :rows].unsqueeze(3), alpha=alpha, out=pair_totals)
            if odd_row:  # the last row of x covers one row
                torch.add(fine[:, :, -1], coarse[:, :, -1], alpha=alpha, out=total[:, :, -1])
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[no-untyped-def]
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = torch.ops.aten.upsample_nearest2d_backward(grad, grad.shape[2:], ctx.shape).mul_(ctx.alpha)
        return grad if ctx.needs_input_grad[0] else None, grad_x, None


def _factor(x: Tensor, size: tuple[int, int], alpha: float | str) -> float:
    (h, w), (height, width) = x.shape[2:], size
    if height < h or width < w:
        raise ValueError(f"SNI upsamples: the target size {tuple(size)} is smaller than the input's {(h, w)}")
    return (h * w) / (height * width) if alpha == "area" else float(alpha)


def _check_options(alpha: float | str, mode: str) -> None:
    if isinstance(alpha, str) and alpha != "area":
        raise UserError(f"SNI alpha: expected 'area' or a number, found {alpha!r}")
    if mode not in _MODES:
        raise UserError(f"SNI interpolation: unknown mode {mode!r}{did_you_mean(mode, _MODES)}")
