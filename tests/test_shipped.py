"""Tests of the files that come with the package, and of how names lead to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sn2fpn.config import LazyConfig, get_cfg
from sn2fpn.errors import UserError
from sn2fpn.shipped import find_file, shipped_files
from sn2fpn.study.spec.study import Study

_ROOT = Path(__file__).parents[1]
_QUICK = "quick/faster_rcnn_R18_sni_shapes.yaml"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in an empty folder, as a user is who has no clone of the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", ["configs", "studies"])
def test_all_files_of_the_checkout_are_shipped(kind: str) -> None:
    on_disk = {p.relative_to(_ROOT / kind).as_posix() for p in (_ROOT / kind).rglob("*.*") if p.suffix != ".pyc"}
    assert set(shipped_files(kind)) == on_disk
    assert all(path.samefile(_ROOT / kind / name) for name, path in shipped_files(kind).items())


def test_a_name_leads_to_the_file_with_and_without_its_folder() -> None:
    for name in (_QUICK, f"configs/{_QUICK}"):
        assert find_file(name, "configs").samefile(_ROOT / "configs" / _QUICK)
    assert not find_file(f"../configs/{_QUICK}", "configs").exists()
    assert not find_file(_QUICK, "studies").exists()


def test_a_file_of_the_users_own_comes_first(tmp_path: Path) -> None:
    own = tmp_path / _QUICK
    own.parent.mkdir()
    own.write_text("SEED: 77\n")
    cfg = get_cfg()
    cfg.merge_from_file(_QUICK)
    assert cfg.SEED == 77 and cfg.MODEL.BACKBONE.NAME == get_cfg().MODEL.BACKBONE.NAME


def test_a_configuration_of_ones_own_names_a_shipped_base(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own.yaml", get_cfg()
    own.write_text(f"_BASE_: {_QUICK}\nSEED: 77\n")
    cfg = get_cfg()
    cfg.merge_from_file(str(own))
    shipped.merge_from_file(_QUICK)
    shipped.SEED = 77
    assert cfg == shipped
    (tmp_path / "quick").mkdir()
    (tmp_path / _QUICK).write_text("SOLVER: {MAX_ITER: 5}\n")  # beside it, this file comes first
    cfg = get_cfg()
    cfg.merge_from_file(str(own))
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER) == (77, 5)


def test_python_configurations_and_studies_have_names(tmp_path: Path) -> None:
    assert LazyConfig.load("lazy/quick_shapes.py").train.max_iter == 780
    study = Study.load("quick_shapes.yaml")
    assert study.name == "quick_shapes" and study.config(study.baseline, 1).MODEL.ROI_HEADS.NUM_CLASSES == 6
    own = tmp_path / "own.yaml"
    own.write_text("BASE: quick/Base-Shapes.yaml\nAXES: {pyramid: [fpn]}\n")
    assert Study.load(own).base.samefile(_ROOT / "configs/quick/Base-Shapes.yaml")
    study.save(tmp_path / "study.yaml")  # as a run does, for others to read
    assert Study.load(tmp_path / "study.yaml").base.samefile(study.base)


def test_a_name_that_is_neither_is_answered_with_the_nearest(tmp_path: Path) -> None:
    near = r"config file not found: quick/faster_rcnn_R18_snii_shapes.yaml; did you mean 'quick/faster_rcnn_R18_sni_sh"
    with pytest.raises(UserError, match=near):
        get_cfg().merge_from_file("quick/faster_rcnn_R18_snii_shapes.yaml")
    with pytest.raises(UserError, match=r"not found: lazy/quik_shapes.py; did you mean 'lazy/quick_shapes.py'\?"):
        LazyConfig.load("lazy/quik_shapes.py")
    with pytest.raises(UserError, match=r"not found: quick_shape.yaml; did you mean 'quick_shapes.yaml'\?"):
        Study.load("quick_shape.yaml")
    (tmp_path / "quick_shap.yaml").write_text("")
    with pytest.raises(UserError, match=r"did you mean 'quick_shap.yaml'\?"):
        Study.load("quick_sha.yaml")
    (tmp_path / "own.yaml").write_text("_BASE_: quick/Base-Shape.yaml\n")
    with pytest.raises(UserError, match=r"own.yaml: _BASE_ names a missing file: .*; did you mean 'quick/Base-Shapes"):
        get_cfg().merge_from_file("own.yaml")
