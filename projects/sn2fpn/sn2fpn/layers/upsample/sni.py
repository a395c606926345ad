"""Soft nearest-neighbour interpolation (SNI), alone and fused into a top-down addition.

    Y = alpha * nearest(X),  alpha = (h * w) / (H * W)

Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024 (arXiv 2505.12820): the coarse map is
damped by the ratio of pixel counts, 1/4 at zoom 2, so that it assists the fine map that receives it. The paper's
factor and the 1 / s^2 of the released code agree; on odd sizes alpha follows the actual sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ArgumentError, check_choice, did_you_mean
from ...ranges import check_count, check_number
from ..cpu.fused_add import add_doubled_by_columns
from ..recording import needs_plain_operators
from .base import Upsample, resize

__all__ = ["SNI", "soft_nearest", "soft_nearest_add"]


class SNI(Upsample):
    """Soft nearest-neighbour interpolation: upsampling, scaled by a factor alpha. See `soft_nearest` for the rule.

    Args:
        scale_factor: zoom s of both axes, used when `forward` gets no size.
        alpha: "area" for the ratio of pixel counts (h * w) / (H * W), a fixed positive number, or "learned" for a
            scalar parameter `alpha` that starts at 1/4, the ratio at zoom 2.
        interp: "nearest" as in the paper, or "bilinear" with half-pixel centres.

    Raises:
        ArgumentError: `alpha` or `interp` is none of these, or `scale_factor` is not positive.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import SNI
        >>> SNI()(torch.ones(1, 8, 5, 6)).shape
        torch.Size([1, 8, 10, 12])
        >>> SNI()(torch.ones(1, 8, 5, 6), size=(9, 12))[0, 0, 0, 0]  # 30 / 108
        tensor(0.2778)
    """

    def __init__(self, scale_factor: int = 2, alpha: float | str = "area", interp: str = "nearest") -> None:
        super().__init__()
        _check_options(alpha, interp, ("area", "learned"))
        if not isinstance(alpha, str):
            check_number("alpha", alpha, above=0)
        self.scale_factor = check_count("scale_factor", scale_factor)
        self.alpha = nn.Parameter(torch.tensor(0.25)) if alpha == "learned" else alpha
        self.interp = interp

    def forward(self, coarse: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Return the upsampled and scaled map.

        Args:
            coarse (Tensor[N, C, h, w]): the map to upsample.
            size: height and width (H, W) of the result; by default s * h and s * w. A map that already has this size
                is only scaled, by 1 if alpha is "area".

        Returns:
            Tensor[N, C, H, W].
        """
        if size is None:
            size = (coarse.shape[2] * self.scale_factor, coarse.shape[3] * self.scale_factor)
        if isinstance(self.alpha, str) and coarse.shape[2:] == tuple(size):
            return coarse
        coarse, alpha = self._apply_learned(coarse)
        return soft_nearest(coarse, size, alpha, self.interp)

    def add(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the sum of the fine map and the upsampled, scaled coarse map; see `soft_nearest_add`."""
        coarse, alpha = self._apply_learned(coarse)
        return soft_nearest_add(fine, coarse, alpha, self.interp)

    def _apply_learned(self, coarse: Tensor) -> tuple[Tensor, float | str]:
        """Return the map, scaled by a learned alpha at its own small size, and the factor that is left to apply."""
        return (coarse * self.alpha, 1.0) if isinstance(self.alpha, Tensor) else (coarse, self.alpha)

    def extra_repr(self) -> str:
        alpha = "learned" if isinstance(self.alpha, Tensor) else self.alpha
        return f"scale_factor={self.scale_factor}, alpha={alpha!r}, interp={self.interp!r}"


def soft_nearest(coarse: Tensor, size: Sequence[int], alpha: float | str = "area", interp: str = "nearest") -> Tensor:
    """Return the upsampled map times alpha.

    Args:
        coarse (Tensor[N, C, h, w]): the map to upsample.
        size: height and width (H, W) of the result, each at least the input's.
        alpha: "area" for the ratio of pixel counts (h * w) / (H * W), or a fixed number.
        interp: "nearest", or "bilinear" with half-pixel centres.

    Returns:
        Tensor[N, C, H, W], dtype of the input.

    Raises:
        ArgumentError: `alpha` or `interp` is none of these.
        ValueError: the target size is smaller than the input's.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import soft_nearest
        >>> soft_nearest(torch.ones(1, 8, 5, 6), (9, 12)).shape
        torch.Size([1, 8, 9, 12])
    """
    _check_options(alpha, interp)
    # Interpolation is linear, so alpha is applied to the smaller map.
    return resize(coarse * _factor(coarse, size, alpha), size, interp)


def soft_nearest_add(fine: Tensor, coarse: Tensor, alpha: float | str = "area", interp: str = "nearest") -> Tensor:
    """Return the sum of the fine map and alpha times the upsampled coarse map: one top-down step.

    Where the fine map has twice the size of the coarse one (2n or 2n - 1 pixels, as in every step of a pyramid), and
    with nearest interpolation, the upsampled map is never made: each coarse pixel is added to the fine pixels that it
    covers, and the backward pass sums over them. A compiler fuses interpolation, product and sum by itself, so
    compiling and tracing see the plain form. So do the transforms of `torch.func`, and tensors of the "meta" device, on
    which operators are counted.

    Args:
        fine (Tensor[N, C, H, W]): the map that receives the coarse one.
        coarse (Tensor[N, C, h, w]): the map to upsample.
        alpha: "area" for the ratio of pixel counts (h * w) / (H * W), or a fixed number; 1.0 gives FPN's step.
        interp: "nearest", or "bilinear" with half-pixel centres.

    Returns:
        Tensor[N, C, H, W].

    Raises:
        ArgumentError: `alpha` or `interp` is none of these.
        ValueError: batch size or channels differ, or the fine map is smaller than the coarse one.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import soft_nearest_add
        >>> soft_nearest_add(torch.zeros(1, 8, 9, 12), torch.ones(1, 8, 5, 6)).shape
        torch.Size([1, 8, 9, 12])
    """
    _check_options(alpha, interp)
    if fine.shape[:2] != coarse.shape[:2]:
        raise ValueError(
            f"the fine and the coarse map must agree in batch size and channels, found shapes {tuple(fine.shape)} and"
            f" {tuple(coarse.shape)}"
        )
    (h, w), size = coarse.shape[2:], tuple(fine.shape[2:])
    doubles = (size[0] + 1) // 2 == h and (size[1] + 1) // 2 == w
    if interp != "nearest" or not doubles or fine.is_meta or needs_plain_operators():
        return fine + soft_nearest(coarse, size, alpha, interp)
    dtype = torch.promote_types(fine.dtype, coarse.dtype)
    return _DoubleAndAdd.apply(fine.to(dtype), coarse.to(dtype), _factor(coarse, size, alpha))


class _DoubleAndAdd(torch.autograd.Function):
    """fine + alpha * nearest(coarse) for a fine map of 2n or 2n - 1 rows and columns; saves no map for backward."""

    @staticmethod
    def forward(ctx, fine: Tensor, coarse: Tensor, alpha: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.alpha, ctx.shape = alpha, coarse.shape
        out = torch.empty_like(fine)  # in the layout of the fine map; `torch.add` would choose its own for squares
        odd = fine.shape[2] % 2 or fine.shape[3] % 2
        if odd or (fine.is_cpu and not fine.is_contiguous(memory_format=torch.channels_last)):
            return add_doubled_by_columns(fine, coarse, alpha, out)
        squares, totals = (t.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)) for t in (fine, out))
        torch.add(squares, coarse[:, :, :, None, :, None], alpha=alpha, out=totals)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[no-untyped-def]
        grad_coarse = None
        if ctx.needs_input_grad[1]:
            grad_coarse = torch.ops.aten.upsample_nearest2d_backward(grad, grad.shape[2:], ctx.shape).mul_(ctx.alpha)
        return grad if ctx.needs_input_grad[0] else None, grad_coarse, None


def _factor(coarse: Tensor, size: Sequence[int], alpha: float | str) -> float:
    (h, w), (height, width) = coarse.shape[2:], size
    if height < h or width < w:
        raise ValueError(f"the target size {tuple(size)} is smaller than the size {(h, w)} of the coarse map")
    return (h * w) / (height * width) if alpha == "area" else float(alpha)


def _check_options(alpha: float | str, interp: str, words: tuple[str, ...] = ("area",)) -> None:
    if isinstance(alpha, str) and alpha not in words:
        names = ", ".join(map(repr, words))
        raise ArgumentError("alpha", f"expected a number or {names}, found {alpha!r}{did_you_mean(alpha, words)}")
    check_choice("interp", interp, ("nearest", "bilinear"))
