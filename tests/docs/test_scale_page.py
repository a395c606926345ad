"""The tables of the page on many GPUs follow from its model and from the configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.config import get_cfg
from sn2fpn.modeling import build_model

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
BYTES_PER_S = (200e9, 10e9, 2.5e9, 1e9)  # of the columns of the table of throughputs


def test_throughputs_are_those_of_the_model() -> None:
    names: dict[str, Any] = {}
    exec(re.search(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[1], names)
    model, seen = names["images_per_second"], 0
    for gpus, *cells in re.findall(r"^\| (\d+) \|(.*?)\|(.*?)\|(.*?)\|(.*?)\|$", TEXT, re.MULTILINE):
        for cell, speed in zip(cells, BYTES_PER_S):
            if cell.strip():
                expected = model(int(gpus), bytes_per_s=speed)
                assert cell.strip() == f"{expected:.0f} images/s, {expected / model(1) / int(gpus):.0%}"
                seen += 1
    assert seen == 13


@pytest.mark.parametrize(("files", "parameters"), re.findall(r"^\| (`\w+_rcnn_.*?) \| ([\d,]+) \|", TEXT, re.MULTILINE))
def test_bytes_follow_from_the_trainable_parameters(files: str, parameters: str) -> None:
    for name in re.findall(r"`(\w+)`", files):
        cfg = get_cfg()
        cfg.merge_from_file(str(ROOT / f"configs/{name}.yaml"))
        cfg.merge_from_list(["MODEL.DEVICE", "meta"])
        with torch.device("meta"):
            model = build_model(cfg)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert parameters == f"{count:,}"
        assert f"| {parameters} | {4e-6 * count:.0f} MB | {2 * 7 / 8 * 4e-6 * count:.0f} MB |" in TEXT
