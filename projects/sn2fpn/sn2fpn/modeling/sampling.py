"""Random choice of the anchors or proposals that a loss is computed on."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sample_labels"]


def sample_labels(labels: Tensor, num_samples: int, positive_fraction: float, background: int) -> tuple[Tensor, Tensor]:
    """Draw up to `num_samples` entries, as far as possible `positive_fraction` of them positive.

    Negatives take the places that positives leave free, never the other way round.

    Args:
        labels: (N,) -1 for ignored, `background` for negative, anything else for positive.
        num_samples: entries to draw; all that qualify if there are fewer.
        positive_fraction: upper limit of the share of positives.
        background: the negative label.

    Returns:
        Indices of the positives and of the negatives drawn, int64, in random order (global generator of the
        labels' device).
    """
    positive = ((labels != -1) & (labels != background)).nonzero().squeeze(1)
    negative = (labels == background).nonzero().squeeze(1)
    num_positive = min(len(positive), int(num_samples * positive_fraction))
    num_negative = min(len(negative), num_samples - num_positive)
    pick_positive = torch.randperm(len(positive), device=labels.device)[:num_positive]
    pick_negative = torch.randperm(len(negative), device=labels.device)[:num_negative]
    return positive[pick_positive], negative[pick_negative]
