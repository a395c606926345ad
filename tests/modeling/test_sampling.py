"""Test the random choice of positives and negatives."""

from __future__ import annotations

import torch

from sn2fpn.modeling.sampling import sample_labels


def test_shares_and_sources() -> None:
    labels = torch.tensor([7] * 30 + [2] * 5 + [0] * 5 + [-1] * 10)  # 7 is the background.
    cases = ((20, 0.25, 5, 15), (40, 0.5, 10, 30), (16, 1.0, 10, 6), (8, 1.0, 8, 0))
    for number, fraction, positives, negatives in cases:
        pos, neg = sample_labels(labels, number, fraction, background=7)
        assert (len(pos), len(neg)) == (positives, negatives)
        assert len({*pos.tolist(), *neg.tolist()}) == positives + negatives
        assert all(30 <= i < 40 for i in pos) and all(i < 30 for i in neg)


def test_seed_decides_and_every_entry_is_drawn() -> None:
    labels = torch.tensor([0] * 6 + [1] * 4)
    draws = []
    for seed in (*range(200), 0):
        torch.manual_seed(seed)
        draws.append([t.tolist() for t in sample_labels(labels, 4, 0.5, background=0)])
    assert draws[0] == draws[-1]
    counts = torch.bincount(torch.tensor(draws).flatten(), minlength=10)
    assert counts[:6].min() > 40 and counts[6:].min() > 70  # expected: 67 and 100


def test_nothing_to_draw() -> None:
    pos, neg = sample_labels(torch.full((5,), -1), 4, 0.5, background=0)
    assert len(pos) == len(neg) == 0
