"""Tests of tools/draw_pyramids.py: costs against hooks on all convolutions, and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import draw_pyramids
from pyramid_drawing import graph_in_drawing


@pytest.mark.parametrize("name", ["sni", "ihp"])
def test_multiply_adds_are_those_of_the_definition(name: str) -> None:
    pyramid = draw_pyramids.build(name, ["MODEL.FPN.OUT_CHANNELS", "16"])
    found = draw_pyramids.cost(pyramid, (64, 96))
    counted = 0

    def count(conv: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel() * conv.weight[0].numel()

    for module in pyramid.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    pyramid({n: torch.zeros(1, s.channels, 64 // s.stride, 96 // s.stride) for n, s in draw_pyramids.R50.items()})
    assert found == (sum(p.numel() for p in pyramid.parameters()), counted)


def test_one_picture_with_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw_pyramids.main(["--output", str(tmp_path), "sni", "MODEL.SNI.ALPHA", "0.5"]) == 0
    graph = graph_in_drawing((tmp_path / "sni.svg").read_text(encoding="utf-8"))
    assert ["× 1/2", "nearest"] in [link["steps"] for link in graph["links"]]
    assert "3,344,384 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["snj"], "did you mean 'build_sn2_sni_backbone'"),
        (["sni", "MODEL.SNI.ALPA", "1"], "did you mean 'MODEL.SNI.ALPHA'"),
        (["--import", "nowhere.py", "sni"], "nowhere.py"),
    ],
)
def test_mistakes(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw_pyramids.main(arguments) == 2
    assert words in capsys.readouterr().err
