"""Tests of the example pyramid: the guide shows it, it keeps the promises, and it works in studies and configs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from sn2fpn.config import LazyConfig, get_cfg, instantiate
from sn2fpn.imports import import_files
from sn2fpn.modeling import build_backbone
from sn2fpn.pyramids import PYRAMIDS
from sn2fpn.pyramids.checks import check_pyramid
from sn2fpn.study.spec.check import check_study
from sn2fpn.study.spec.study import Study

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "write_your_own_pyramid.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "my_pyramid.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sys, "path", list(sys.path))
    import_files([EXAMPLE])
    yield sys.modules["my_pyramid"]
    sys.modules.pop("my_pyramid")
    for name in ("mine", "mine_per_channel"):
        PYRAMIDS.remove(name)


@pytest.mark.parametrize("file", ["my_pyramid.py", "my_study.yaml", "my_lazy_config.py"])
def test_the_guide_shows_the_file(file: str) -> None:
    text = (ROOT / "examples" / file).read_text(encoding="utf-8")
    language = {"py": "python", "yaml": "yaml"}[file.rpartition(".")[2]]
    assert f"```{language}\n{text}```" in GUIDE


def test_the_contract(example) -> None:  # type: ignore[no-untyped-def]
    check_pyramid(partial(example.GatedFPN, out_channels=16, per_channel=True))


def test_it_stands_in_a_study(example, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    study = Study.load(ROOT / "examples" / "my_study.yaml")
    check_study(study, tmp_path)
    channels = {}
    for variant in study.variants:
        backbone = build_backbone(study.config(variant, seed=1))
        channels[variant.name] = {
            n.removeprefix("gate"): m.out_channels for n, m in backbone.named_children() if n.startswith("gate")
        }
    assert channels == {
        "fpn": {},
        "sni": {},
        "mine": dict.fromkeys("234", 1),
        "mine_per_channel": dict.fromkeys("234", 64),
    }


def test_it_stands_in_yaml_and_python_configs_alike(example) -> None:  # type: ignore[no-untyped-def]
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs" / "quick" / "Base-Shapes.yaml"))
    cfg.MODEL.BACKBONE.NAME = "build_sn2_mine_backbone"
    lazy = instantiate(LazyConfig.load(str(ROOT / "examples" / "my_lazy_config.py")).model).backbone
    yaml = build_backbone(cfg)
    assert isinstance(lazy, example.GatedFPN)
    assert {n: w.shape for n, w in lazy.state_dict().items()} == {n: w.shape for n, w in yaml.state_dict().items()}
