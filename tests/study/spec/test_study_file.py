"""Study files: what they expand to, and the messages about mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sn2fpn.engine import default_argument_parser, prepare
from sn2fpn.errors import UserError
from sn2fpn.pyramids import PYRAMIDS
from sn2fpn.study.folder import CellFolder
from sn2fpn.study.run.beforehand import dry_run
from sn2fpn.study.spec.check import check_study
from sn2fpn.study.spec.study import Cell, Study
from sn2fpn.study.spec.syntax import flatten, nest

WriteStudy = Callable[..., Path]
_STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.yaml"))
_TRUNK = {"plain": {}, "esd1": {"MODEL.ESD.ENABLED": True, "MODEL.ESD.MODE": 1}}


def test_variants_are_the_product_of_the_axes(write_study: WriteStudy) -> None:
    axes = {"pyramid": ["fpn", "sni", "ihp"], "trunk": _TRUNK, "conv": {"usual": None}}
    study = Study.load(write_study(AXES=axes, EXCLUDE=[{"pyramid": "ihp", "trunk": "esd1"}], SEEDS=[7, 3]))
    assert [v.name for v in study.variants] == ["fpn-plain", "fpn-esd1", "sni-plain", "sni-esd1", "ihp-plain"]
    assert study.variants[3].axes == {"pyramid": "sni", "trunk": "esd1", "conv": "usual"}
    assert study.baseline is study.variants[0]  # BASELINE does not name trunk and conv, so they have their first values
    assert [c.name for c in study.cells[:5:4]] == ["fpn-plain/seed7", "ihp-plain/seed7"]
    cfg = study.config(study.variants[3], 7)
    assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.ESD.MODE, cfg.SEED) == ("build_sn2_sni_backbone", 1, 7)
    assert cfg.MODEL.FPN.OUT_CHANNELS == 16  # SET
    assert Study.load(write_study(AXES={"trunk": {"esd1": _TRUNK["esd1"]}}, BASELINE=None)).variants[0].name == "esd1"


def test_variants_may_have_seeds_of_their_own(write_study: WriteStudy, tmp_path: Path) -> None:
    study = Study.load(
        write_study(AXES={"pyramid": ["fpn", "sni", "ihp"]}, SEEDS={"sni": [3], "fpn": [1, 3], "ihp": [1]})
    )
    assert [c.name for c in study.cells] == ["fpn/seed1", "ihp/seed1", "fpn/seed3", "sni/seed3"]
    assert [study.first_cell(v).seed for v in study.variants] == [1, 3, 1] and study.config(study.variants[1]).SEED == 3
    study.save(tmp_path / "study.yaml")
    assert replace(Study.load(tmp_path / "study.yaml"), path=study.path) == study
    same = Study.load(write_study(SEEDS={"fpn": [2, 1], "sni": [2, 1]}))
    assert same.seeds == Study.load(write_study(SEEDS=[2, 1])).seeds
    same.save(tmp_path / "same.yaml")
    assert yaml.safe_load((tmp_path / "same.yaml").read_text())["SEEDS"] == [2, 1]


def test_the_resolved_study_is_the_study(write_study: WriteStudy, tmp_path: Path) -> None:
    study = Study.load(write_study(AXES={"pyramid": ["fpn", "sni"], "trunk": _TRUNK}, IMPORTS=["mine.py"]))
    study.save(tmp_path / "deep/er/study.yaml")
    again = Study.load(tmp_path / "deep/er/study.yaml")
    assert replace(again, path=study.path) == study


def test_a_cell_is_trained_with_the_configuration_that_was_checked(write_study: WriteStudy, tmp_path: Path) -> None:
    odd = {
        "MODEL.SNI.ALPHA": 1,
        "TEST.BEST_METRIC": "",
        "MODEL.WEIGHTS": "'7'",
        "SOLVER.STEPS": [2, 4],
        "SOLVER.BASE_LR": 1e-7,
        "SOLVER.WEIGHT_DECAY_BIAS": None,
    }
    study = Study.load(write_study(AXES={"odd": {"odd": odd}}, BASELINE=None))
    cell = study.cells[0]
    _, cfg = prepare(
        default_argument_parser().parse_args(study.training_arguments(cell, CellFolder(tmp_path, cell).path))
    )
    expected = study.config(cell.variant, cell.seed)
    expected.OUTPUT_DIR = str(tmp_path / "cells/odd/seed1")
    assert cfg == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"BASELIN": {}}, ["unknown key 'BASELIN'", "did you mean 'BASELINE'"]),
        ({"AXES": None}, ["AXES is missing"]),
        ({"SEEDS": [1, 2, 1]}, ["SEEDS", "1 is named twice"]),
        ({"SEEDS": ["one"]}, ["SEEDS", "whole numbers", "one"]),
        ({"SEEDS": [-1]}, ["SEEDS", "-1"]),
        ({"SEEDS": []}, ["SEEDS: expected one or more numbers", "[]"]),
        ({"SEEDS": {"fpn": [1], "snii": [1]}}, ["SEEDS: unknown variant 'snii'", "did you mean 'sni'"]),
        ({"SEEDS": {"fpn": [1]}}, ["SEEDS: expected seeds for every variant, found none for 'sni'"]),
        ({"SEEDS": {"fpn": [1], "sni": 2}}, ["SEEDS.sni: expected one or more numbers", "found 2"]),
        ({"SEEDS": {"fpn": [1], "sni": [2, 2]}}, ["SEEDS.sni: 2 is named twice"]),
        ({"ENGINE": "nativ"}, ["ENGINE", "did you mean 'native'"]),
        ({"METRICS": ["AP"]}, ["METRICS", "bbox/AP", "'AP'"]),
        ({"METRICS": ["segm/AP"]}, ["segm/AP", "MODEL.MASK_ON"]),
        ({"METRICS": ["bbox/AP", "bbox/APP50"]}, ["METRICS: unknown value 'bbox/APP50'", "did you mean 'bbox/AP50'"]),
        (
            {"METRICS": ["bbox/mAP-circle"]},
            ["METRICS: unknown value 'bbox/mAP-circle'", "did you mean 'bbox/AP-circle'"],
        ),
        ({"METRICS": ["bbox/AP-circel"]}, ["METRICS: unknown value 'bbox/AP-circel'", "did you mean 'bbox/AP-circle'"]),
        ({"METRICS": ["bbox/AP50-circle"]}, ["METRICS: unknown value 'bbox/AP50-circle'"]),
        ({"METRICS": ["bbox/AP-traffic light"]}, ["METRICS: unknown value 'bbox/AP-traffic light'"]),
        ({"METRICS": ["bbox/APs"], "SET": {"TEST.EVALUATOR": "voc"}}, ["METRICS: unknown value 'bbox/APs'"]),
        ({"BASELINE": {"pyramid": "ihp"}}, ["BASELINE", "'pyramid' has no value 'ihp'"]),
        ({"BASELINE": {"piramid": "fpn"}}, ["BASELINE", "did you mean 'pyramid'"]),
        ({"EXCLUDE": [{"pyramid": "snni"}]}, ["EXCLUDE", "snni", "did you mean 'sni'"]),
        ({"EXCLUDE": [{"pyramid": "fpn"}]}, ["BASELINE", "EXCLUDE removes"]),
        (
            {"AXES": {"pyramid": ["fpn", "snni"]}},
            ["'snni'", "unknown pyramid", "did you mean 'sni'?", "(IMPORTS names"],
        ),
        ({"AXES": {"pyramid": ["fpn", "fpn"]}}, ["AXES.pyramid", "'fpn' is named twice"]),
        ({"AXES": {"pyramid": ["fpn"], "amp": {True: {}}}}, ["AXES.amp", "on/yes", "quote"]),
        ({"AXES": {"pyramid": ["fpn"], "a": {"x/y": {}, "z": {}}}}, ["'x/y'", "folder"]),
        (
            {"AXES": {"a": {"x": {"MODEL.SNI.ALFA": 1}}}, "BASELINE": None},
            ["AXES.a.x", "MODEL.SNI.ALFA", "did you mean 'MODEL.SNI.ALPHA'"],
        ),
        ({"SET": {"SEED": 3}}, ["SET", "SEED", "SEEDS"]),
        (
            {"AXES": {"pyramid": ["fpn"], "a": {"x": {"SOLVER.MAX_ITER": "many"}}}},
            ["AXES.a.x", "MAX_ITER", "a whole number", "many"],
        ),
        (
            {
                "AXES": {
                    "pyramid": ["fpn"],
                    "trunk": {"r18": {"SOLVER": {"BASE_LR": 0.1}}, "r50": None},
                    "rate": {"high": {"SOLVER.BASE_LR": 0.2}, "low": None},
                }
            },
            ["SOLVER.BASE_LR is set by AXES.trunk.r18 to 0.1 and by AXES.rate.high to 0.2", "leave 'r18-high' out"],
        ),
        ({"SET": {"SOLVER.MAX_ITER": 0}}, ["variant 'fpn'", "SOLVER.MAX_ITER", "at least 1"]),
        ({"BASE": "nowhere.yaml"}, ["BASE", "nowhere.yaml"]),
        ({"IMPORTS": ["nowhere.py"]}, ["IMPORTS", "nowhere.py"]),
        ({"NAME": "../other"}, ["NAME", "'../other'", "another folder"]),
        ({"NAME": "/tmp/other"}, ["NAME", "another folder"]),
        ({"NAME": ".."}, ["NAME", "another folder"]),
        ({"NAME": "a\x1b[31mb"}, ["NAME", r"'a\x1b[31mb'", "control characters"]),
        ({"NAME": "a\nb"}, ["NAME", r"'a\nb'", "control characters"]),
        ({"NAME": "a\u202eb"}, ["NAME", "control characters"]),
        ({"NAME": "é" * 101}, ["NAME", "202 bytes", "200 are allowed"]),
        ({"AXES": {"a": {"x" * 120: {}, "y": {}}, "b": {"z" * 120: {}, "w": {}}}}, ["241 bytes", "200 are allowed"]),
        ({"AXES": {"a": {"..": {}, "y": {}}}}, ["AXES", "'..'", "another folder"]),
        ({"AXES": {f"axis{i}": {str(j): {} for j in range(10)} for i in range(20)}}, ["at most 10000 combinations"]),
        ({"METRICS": ["bbox/AP\x1b[31m"]}, ["METRICS", r"\x1b"]),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], words: list[str], write_study: WriteStudy, tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        check_study(Study.load(write_study(**changes)), tmp_path)
    for word in (str(tmp_path / "tiny.yaml"), *words):
        assert word in str(e.value)


def test_metrics_that_an_evaluator_gives_pass(
    write_study: WriteStudy, tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    check_study(Study.load(write_study(METRICS=["bbox/APs", "bbox/AP-circle"])), tmp_path)
    voc = tiny_study["SET"] | {"TEST.EVALUATOR": "voc"}
    check_study(Study.load(write_study(SET=voc)), tmp_path)  # those that are not named may be missing
    check_study(Study.load(write_study(SET=voc, METRICS=["bbox/AP50-circle"])), tmp_path)


def test_axes_may_share_a_key(write_study: WriteStudy, tmp_path: Path) -> None:
    high, low = {"SOLVER.BASE_LR": 0.2}, {"SOLVER.BASE_LR": 0.1}
    axes = {"pyramid": ["fpn"], "trunk": {"a": {}, "b": high}, "rate": {"high": high, "low": low}}
    study = Study.load(write_study(AXES=axes, EXCLUDE=[{"trunk": "b", "rate": "low"}]))
    check_study(study, tmp_path)
    assert [study.config(v).SOLVER.BASE_LR for v in study.variants] == [0.2, 0.1, 0.2]


def test_a_link_to_the_folder_of_a_study_file(write_study: WriteStudy, tmp_path: Path) -> None:
    """Below a link, ".." is the folder above the one that it leads to."""
    study = Study.load(write_study())
    (real := tmp_path / "real/studies").mkdir(parents=True)
    (tmp_path / "studies").symlink_to(real)
    (tmp_path / "real/base.yaml").write_text(f"_BASE_: {study.base}\n")
    (real / "linked.yaml").write_bytes(write_study(BASE="../base.yaml").read_bytes())
    linked = Study.load(tmp_path / "studies/linked.yaml")
    assert linked.base.is_file() and linked.config(linked.variants[0]) == study.config(study.variants[0])


def test_keys_are_flattened_and_nested() -> None:
    tree = {"SOLVER": {"MAX_ITER": 9, "AMP.ENABLED": True}, "MODEL.DEVICE": "cpu", "EMPTY": {}}
    leaves = {"SOLVER.MAX_ITER": 9, "SOLVER.AMP.ENABLED": True, "MODEL.DEVICE": "cpu"}
    assert flatten(tree) == leaves
    assert nest(leaves) == {"SOLVER": {"MAX_ITER": 9, "AMP": {"ENABLED": True}}, "MODEL": {"DEVICE": "cpu"}}
    with pytest.raises(UserError, match="A is given a value in the same place"):
        nest({"A": 1, "A.B": 2})


def test_files_are_read_safely(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    unsafe = f"NAME: !!python/object/apply:os.mkdir [{tmp_path}/made]"
    for text, words in (
        (unsafe, "line 1"),
        ("SEEDS: [1]\nSEEDS: [2]", "line 2: the key 'SEEDS' is given twice"),
        ("NAME: [", "YAML"),
        ("3", "int"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            Study.load(path)
    assert not (tmp_path / "made").exists()
    with pytest.raises(UserError, match=r"did you mean '.*s\.yaml'"):
        Study.load(tmp_path / "ss.yaml")


@pytest.mark.parametrize("path", _STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_project_are_sound(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert path.read_text().startswith("# ")
    study = Study.load(path)
    tiny = {
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
        "INPUT.MIN_SIZE_TEST": 64,
        "INPUT.MAX_SIZE_TEST": 64,
    }
    known = tuple(v for v in study.variants if v.axes.get("pyramid", "sni") in PYRAMIDS)
    study = replace(study, settings=study.settings | tiny, variants=known)
    check_study(study, tmp_path)
    study = replace(study, variants=(known[0], known[-1]))
    dry_run(study, tmp_path, study.cells, [])
    said = capsys.readouterr().out
    cfg = study.config(known[0])
    for word in ("GFLOPs", "iterations", str(cfg.SOLVER.MAX_ITER), f"{len(study.cells)} cells", known[-1].name):
        assert word in said
    assert Cell(known[0], 1).name == f"{known[0].name}/seed1"


def test_every_pyramid_is_in_the_study_of_all(tmp_path: Path) -> None:
    named = yaml.safe_load((Path(__file__).parents[3] / "studies/quick_shapes_all.yaml").read_text())["AXES"]["pyramid"]
    assert set(PYRAMIDS) <= set(named)
