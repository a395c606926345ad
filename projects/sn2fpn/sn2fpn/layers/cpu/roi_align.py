"""RoIAlign as products of a sparse matrix and the pixel vectors of the maps.

`ROIPooler` takes this kernel for maps on a CPU, because torchvision's kernel there works channel by channel and sample
by sample on one core: for 1000 boxes of a 256-channel pyramid it takes 4 times as long forward and 10 times backward.

RoIAlign (Mask R-CNN, He et al., 2017, section 3) averages bilinear samples in each bin of a box. That is linear in the
map and separable: the weight of pixel (y, x) in bin (i, j) is wy[i, y] * wx[j, x], and few weights are not zero. This
kernel computes wy and wx first, which merges samples that share pixels. Each bin is then one weighted sum of contiguous
channel vectors, for which PyTorch's `embedding_bag` uses vector instructions and all cores. The results are those of
torchvision up to float rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["roi_align_pyramid"]

_BOXES_PER_PASS = 64  # the bins of this many boxes fit into the cache


def roi_align_pyramid(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Return the RoIAlign features of each box from the map that was chosen for it.

    The result is differentiable once with respect to the maps.

    Args:
        features (Tensor[N, C, H, W] per level): the maps. Channels-last maps are read without a copy.
        rois (Tensor[K, 5]): index of the image and finite corners `(image, x1, y1, x2, y2)` in input pixels.
        levels (Tensor[K]): index of each box's map in `features`.
        strides: strides of the maps.
        output_size, sampling_ratio, aligned: as in `torchvision.ops.roi_align`.

    Returns:
        Tensor[K, C, output_size, output_size] in channels-last layout and with the dtype of the maps. Half-precision
        maps are computed in float32.
    """
    dtype = features[0].dtype
    maps = [f.float() if f.dtype in (torch.float16, torch.bfloat16) else f for f in features]
    sampling = _Sampling(rois.detach().float(), levels, tuple(strides), output_size, sampling_ratio, aligned)
    return _RoIAlign.apply(sampling, dtype, *maps)


class _RoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sampling, dtype, *maps):  # type: ignore[no-untyped-def]
        ctx.sampling, ctx.dtype, ctx.shapes = sampling, maps[0].dtype, [m.shape for m in maps]
        channels, size = maps[0].shape[1], sampling.size
        out = maps[0].new_empty(len(sampling.rois), size * size, channels, dtype=dtype)
        for level, x in enumerate(maps):
            vectors = x.permute(0, 2, 3, 1).reshape(-1, channels).contiguous()  # channels-last maps need no copy
            for which, pixel, weight in sampling.passes(level, *x.shape[2:]):
                bins = F.embedding_bag(pixel, vectors, mode="sum", per_sample_weights=weight.to(x.dtype))
                out[which] = bins.view(-1, size * size, channels).to(dtype)
        return out.view(-1, size, size, channels).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        grad = grad.permute(0, 2, 3, 1).flatten(1, 2)  # (K, size * size, C), without a copy if channels-last
        grad_maps = []
        for level, (images, channels, height, width) in enumerate(ctx.shapes):
            vectors = grad.new_zeros(images * height * width, channels, dtype=ctx.dtype)
            for which, pixel, weight in ctx.sampling.passes(level, height, width):
                bins = grad[which].reshape(-1, channels).to(ctx.dtype)
                # The transposed product has one bag per pixel, which holds the bins that read the pixel.
                pixels, order = pixel.flatten().sort()
                pixels, counts = torch.unique_consecutive(pixels, return_counts=True)
                vectors[pixels] += F.embedding_bag(
                    order // pixel.shape[1],
                    bins,
                    counts.cumsum(0) - counts,
                    mode="sum",
                    per_sample_weights=weight.flatten()[order].to(ctx.dtype),
                )
            grad_maps.append(vectors.view(images, height, width, channels).permute(0, 3, 1, 2))
        return None, None, *grad_maps


@dataclass(frozen=True)
class _Sampling:
    """The sparse matrix of RoIAlign. The fields are arguments of `roi_align_pyramid`."""

    rois: Tensor
    levels: Tensor
    strides: tuple[int, ...]
    size: int
    ratio: int
    aligned: bool

    def passes(self, level: int, height: int, width: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the matrix rows of one level's boxes, a few boxes at a time.

        Yields:
            Indices of the boxes (Tensor[B]), then the pixels of each of their bins
            (int32 Tensor[B * size * size, L], counted over all images) and the weights of these pixels. Weights are
            0 where a bin has fewer pixels than L.
        """
        here = (self.levels == level).nonzero().squeeze(1)
        image, box = self.rois[here].split([1, 4], dim=1)
        box = box / self.strides[level] - (0.5 if self.aligned else 0.0)
        start, extent = box[:, :2], box[:, 2:] - box[:, :2]
        extent = extent if self.aligned else extent.clamp(min=1.0)
        samples = torch.full_like(extent, self.ratio) if self.ratio > 0 else (extent / self.size).ceil()
        first_pixel = image.to(torch.int32)[..., None] * (height * width)
        # Boxes with bins of similar size go together, because L is that of the largest bin of a pass.
        order = (samples[:, 0].clamp(max=1000) * 1000 + samples[:, 1]).argsort()
        for some in order.split(_BOXES_PER_PASS) if len(order) else ():
            x, weight_x = _axis(start[some, 0], extent[some, 0], samples[some, 0], width, self.size)
            y, weight_y = _axis(start[some, 1], extent[some, 1], samples[some, 1], height, self.size)
            pixel = (first_pixel[some] + y * width)[:, :, None, :, None] + x[:, None, :, None, :]
            weight = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
            yield here[some], pixel.flatten(3).flatten(0, 2), weight.flatten(3).flatten(0, 2)


def _axis(first: Tensor, extent: Tensor, samples: Tensor, length: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the pixels that each bin reads along one axis, and their bilinear weights.

    Args:
        first, extent (Tensor[K]): start and length of each box in map pixels.
        samples (Tensor[K]): number of samples per bin.
        length: length of the map.
        size: number of bins.

    Returns:
        Consecutive pixels, limited to the map (int32 Tensor[K, size, L]), and their weights (Tensor[K, size, L]).
    """
    first, extent, samples = (t[:, None, None] for t in (first, extent, samples))
    each = torch.arange(max(int(samples.max()), 1), device=first.device, dtype=first.dtype)
    used = each < samples
    step = extent / size
    bin_start = first + torch.arange(size, device=first.device, dtype=first.dtype)[:, None] * step
    position = bin_start + (each + 0.5) * step / samples.clamp(min=1)
    share = (used & (position >= -1) & (position <= length)) / samples.clamp(min=1)
    position = position.clamp(0, length - 1)  # (K, size, samples)
    low = position.floor()
    upper_share = (position - low) * share
    low = low.to(torch.int64)
    start = low[..., :1]
    offset = torch.where(used, low - start, 0)
    weight = position.new_zeros(*position.shape[:2], int(offset.max()) + 2)
    weight.scatter_add_(2, offset, share - upper_share)
    weight.scatter_add_(2, offset + 1, upper_share)
    pixel = (start + torch.arange(weight.shape[2], device=first.device)).clamp(max=length - 1)
    return pixel.to(torch.int32), weight
