"""Draw the anchors or proposals that a loss is computed from."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..ranges import check_count, check_number

__all__ = ["check_sampling", "sample_labels"]


def check_sampling(batch_size_per_image: int, positive_fraction: float) -> None:
    """Check that samples of this size and share of positives hold at least one positive.

    Raises:
        ArgumentError: a number is out of its range, or the share of positives is less than one sample.
    """
    check_count("batch_size_per_image", batch_size_per_image)
    check_number("positive_fraction", positive_fraction, above=0, at_most=1)
    if int(batch_size_per_image * positive_fraction) < 1:
        raise ArgumentError(
            "positive_fraction",
            f"expected a share that makes at least one positive of {batch_size_per_image} samples, "
            f"found {positive_fraction!r}",
        )


def sample_labels(labels: Tensor, num_samples: int, positive_fraction: float, background: int) -> tuple[Tensor, Tensor]:
    """Draw up to `num_samples` entries, of which up to a share of `positive_fraction` is positive.

    Negatives take the places that positives leave free, but positives never take those of negatives.

    Args:
        labels (Tensor[N]): -1 for ignored entries, `background` for negative ones, anything else for positive ones.
        num_samples: number of entries to draw. If fewer qualify, all of these are drawn.
        positive_fraction: largest share of positives among `num_samples`.
        background: the label of negatives.

    Returns:
        The indices of the positives and of the negatives drawn (int64), each in random order. The global random
        generator of the labels' device draws them.
    """
    positive = ((labels != -1) & (labels != background)).nonzero().squeeze(1)
    negative = (labels == background).nonzero().squeeze(1)
    num_positive = min(len(positive), int(num_samples * positive_fraction))
    num_negative = min(len(negative), num_samples - num_positive)
    pick_positive = torch.randperm(len(positive), device=labels.device)[:num_positive]
    pick_negative = torch.randperm(len(negative), device=labels.device)[:num_negative]
    return positive[pick_positive], negative[pick_negative]
