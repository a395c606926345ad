"""Tests of YAML configurations: defaults are Detectron2's, files are read safely, and messages name the key."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from sn2fpn.config import CfgNode, LazyConfig, get_cfg
from sn2fpn.errors import UserError

_ROOT = Path(__file__).parents[2]
_CONFIGS = sorted((_ROOT / "configs").rglob("*.yaml"))


def _get(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def test_defaults_equal_detectron2(golden: Path) -> None:
    text = (golden / "detectron2/defaults.yaml").read_text()
    cfg = get_cfg()
    defaults = yaml.safe_load(text)
    assert len(defaults) == 152
    for key, value in defaults.items():
        mine = _get(cfg, key)
        is_tuple = re.search(rf"^{re.escape(key)}: .*# tuple$", text, re.M) is not None
        assert isinstance(mine, tuple) == is_tuple, key
        assert (list(mine) if is_tuple else mine) == value, key


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda p: str(p.relative_to(_ROOT)))
def test_every_shipped_config_merges(path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    again = get_cfg()
    again.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))  # a run's config.yaml restores its configuration
    assert again == cfg


def test_bases_are_merged_in_order_and_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text("SOLVER: {MAX_ITER: 1, BASE_LR: 1}\nSEED: 3")
    (tmp_path / "b.yaml").write_text("SOLVER: {MAX_ITER: 2}")
    (tmp_path / "sub/c.yaml").write_text("_BASE_: [../a.yaml, ../b.yaml]\nSOLVER: {STEPS: [5]}")
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "sub/c.yaml"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS, cfg.SEED) == (2, 1.0, (5,), 3)


def test_numbers_written_like_people_write_them() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", "1e-3", "MODEL.SNI.ALPHA", "0.25", "SOLVER.WEIGHT_DECAY", 0])
    assert (cfg.SOLVER.BASE_LR, cfg.MODEL.SNI.ALPHA, cfg.SOLVER.WEIGHT_DECAY) == (0.001, 0.25, 0.0)
    cfg.merge_from_list(["MODEL.SNI.ALPHA", "area"])
    assert cfg.MODEL.SNI.ALPHA == "area"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["MODEL.SNI.ALPA", "1"], ["command line", "MODEL.SNI.ALPA", "did you mean 'MODEL.SNI.ALPHA'"]),
        (["SLOVER.MAX_ITER", "1"], ["SLOVER.MAX_ITER", "did you mean 'SOLVER.MAX_ITER'"]),
        (["INPUT.COPYPASTE.PROB", "1"], ["'INPUT.COPYPASTE.PROB'", "did you mean 'INPUT.COPY_PASTE.PROB'"]),
        (["INPUT.MOSAIC_PROB", "1"], ["'INPUT.MOSAIC_PROB'", "did you mean 'INPUT.MOSAIC.PROB'"]),
        (["MODEL.ROI_HEADS.MINE", "1"], ["'MODEL.ROI_HEADS.MINE'; choose from: MODEL.ROI_HEADS.BATCH_SIZE_PER"]),
        (["SOLVER.MAX_ITER", "many"], ["SOLVER.MAX_ITER expects a whole number (such as 40000), found 'many'"]),
        (["SOLVER.MAX_ITER", "1.5"], ["SOLVER.MAX_ITER expects a whole number", "found 1.5"]),
        (["MODEL.SNI.ALPHA", "(1,)"], ["MODEL.SNI.ALPHA expects text or a number or null, found (1,)"]),
        (["SOLVER.MAX_ITER"], ["KEY VALUE", "SOLVER.MAX_ITER"]),
        (["SOLVER.MAX_ITER=20"], ["command line: ", "write SOLVER.MAX_ITER 20 instead of SOLVER.MAX_ITER=20"]),
        (["SEED", "1", "MODEL.WEIGHTS=a b.pth", "x"], ["write MODEL.WEIGHTS 'a b.pth' instead of"]),
        (["SEED=", "1"], ["write SEED 1 instead of SEED="]),
        (["OUTPUT_DIR.X", "1"], ["OUTPUT_DIR.X"]),
    ],
)
def test_wrong_overrides_name_key_and_right_form(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as e:
        get_cfg().merge_from_list(overrides)
    for word in words:
        assert word in str(e.value)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("DATASETS.TRAIN a", """DATASETS.TRAIN '["a"]'"""),
        ("DATASETS.TRAIN a,b", """DATASETS.TRAIN '["a", "b"]'"""),
        ("DATASETS.TRAIN [a,b[:16]]", """DATASETS.TRAIN '["a", "b[:16]"]'"""),
        ("DATASETS.TRAIN [b[:16]", """DATASETS.TRAIN '["b[:16]"]'"""),
        ("DATASETS.TRAIN [a, b]", """DATASETS.TRAIN '["a", "b"]'"""),
        ("DATASETS.TRAIN [a b] SEED 3", """DATASETS.TRAIN '["a", "b"]'"""),
        ("DATASETS.TRAIN a b c SOLVER.MAX_ITERS 3", """DATASETS.TRAIN '["a", "b", "c"]'"""),
        ("SOLVER.STEPS [10, 20]", "SOLVER.STEPS '[10, 20]'"),
        ("SOLVER.STEPS 10 20", "SOLVER.STEPS '[10, 20]'"),
        ("MODEL.ANCHOR_GENERATOR.SIZES [[32], [64]]", "MODEL.ANCHOR_GENERATOR.SIZES '[[32], [64]]'"),
        ("OUTPUT_DIR my folder SEED 3", "OUTPUT_DIR 'my folder'"),
    ],
)
def test_values_that_a_shell_has_changed_are_shown_in_quotes(given: str, right: str) -> None:
    with pytest.raises(UserError) as e:
        get_cfg().merge_from_list(given.split(" "))
    assert str(e.value).startswith("command line: ") and str(e.value).endswith(right)
    get_cfg().merge_from_list(shlex.split(right))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MODEL: {FPN: {OUT_CHANELS: 1}}", ["MODEL.FPN.OUT_CHANELS", "MODEL.FPN.OUT_CHANNELS"]),
        ("SOLVER: {MAX_ITER: plenty}", ["SOLVER.MAX_ITER", "a whole number", "plenty"]),
        ("SOLVER: 3", ["SOLVER", "group of keys"]),
        ("MODEL: {RETINANET: {NUM_CLASSES: 6}}", ["c.yaml: MODEL.RETINANET", "--engine detectron2"]),
        ("_BASE_: nowhere.yaml", ["_BASE_", "nowhere.yaml"]),
        ("_BASE_: c.yaml", ["circle"]),
        ("OUTPUT_DIR: !!python/object/apply:os.system ['touch sn2fpn_yaml_executed']", ["os.system", "line 1"]),
        ("- a list", ["mapping", "list"]),
        ("a: [", ["YAML"]),
    ],
)
def test_wrong_files_name_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError) as e:
        get_cfg().merge_from_file(str(tmp_path / "c.yaml"))
    for word in ["c.yaml", *words]:
        assert word in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


_WHOLE = """
VERSION: 2
GLOBAL: {HACK: 1.0}
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  KEYPOINT_ON: false
  PANOPTIC_FPN: {INSTANCE_LOSS_WEIGHT: 1.0}
  RETINANET: {NUM_CLASSES: 80}
  ROI_KEYPOINT_HEAD: {NUM_KEYPOINTS: 17}
  SEM_SEG_HEAD: {NUM_CLASSES: 54}
  ROI_HEADS: {NUM_CLASSES: 6}
"""


def test_groups_of_a_whole_configuration_of_detectron2_that_its_model_does_not_read(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(_WHOLE)
    cfg = get_cfg()
    cfg.merge_from_file(str(file))
    expected = get_cfg()
    expected.MODEL.ROI_HEADS.NUM_CLASSES = 6
    assert cfg == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("GeneralizedRCNN", "RetinaNet"),
        ("KEYPOINT_ON: false", "KEYPOINT_ON: true"),
        ("  META_ARCHITECTURE: GeneralizedRCNN\n", ""),
        ("RETINANET:", "RETINANETT:"),
    ],
)
def test_groups_that_another_model_reads_are_refused(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "c.yaml").write_text(_WHOLE.replace(old, new))
    with pytest.raises(UserError, match=r"c\.yaml: (GLOBAL is for a model that only Detectron2 has|.*RETINANETT)"):
        get_cfg().merge_from_file(str(tmp_path / "c.yaml"))


def test_a_base_alone_does_not_make_groups_of_another_model_acceptable(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("MODEL: {META_ARCHITECTURE: GeneralizedRCNN}")
    (tmp_path / "c.yaml").write_text("_BASE_: base.yaml\nMODEL: {RETINANET: {NUM_CLASSES: 6}}")
    with pytest.raises(UserError, match=r"c\.yaml: MODEL\.RETINANET .*--engine detectron2"):
        get_cfg().merge_from_file(str(tmp_path / "c.yaml"))


def test_python_configurations_and_their_records_are_known(tmp_path: Path) -> None:
    lazy = Path(__file__).parents[2] / "configs/lazy/quick_shapes.py"
    with pytest.raises(UserError, match=r"quick_shapes\.py: expected a YAML configuration, found a Python"):
        get_cfg().merge_from_file(str(lazy))
    LazyConfig.save(LazyConfig.load(str(lazy)), str(tmp_path / "config.yaml"))
    with pytest.raises(
        UserError, match=r"config\.yaml: .* the record of a Python .*; give the Python file .* same key=value"
    ):
        get_cfg().merge_from_file(str(tmp_path / "config.yaml"))


def test_missing_file_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "faster_sni.yaml").write_text("")
    with pytest.raises(UserError, match=r"(?s)faster_snii.yaml.*did you mean.*faster_sni.yaml"):
        get_cfg().merge_from_file(str(tmp_path / "faster_snii.yaml"))


def test_bad_corpus(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in sorted((shared_data / "bad/configs").glob("*.yaml")):
        with pytest.raises(UserError, match=path.name):
            get_cfg().merge_from_file(str(path))
    assert not list(tmp_path.iterdir())


# Detectron2's RetinaNet configurations compute their anchor sizes.


def test_arithmetic_in_configs_is_worked_out_not_executed(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    text = "[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64]]"
    file.write_text(f'MODEL: {{ANCHOR_GENERATOR: {{SIZES: !!python/object/apply:eval ["{text}"]}}}}')
    cfg = get_cfg()
    cfg.merge_from_file(str(file))
    expected = [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in (32, 64)]
    assert expected == cfg.MODEL.ANCHOR_GENERATOR.SIZES


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "open('x')",
        "[].append",
        "9**9**9",
        "2**0.5**-9999",
        "x",
        "1 if 1 else 2",
        "'a' * 3",
        "[1] * 3",
        "1 / 0",
        "[x for x in 3]",
        "(lambda: 1)()",
        "1 +",
        "1 + " * 80 + "1",
    ],
)
def test_anything_else_in_that_tag_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f'SEED: !!python/object/apply:eval ["{text}"]')
    with pytest.raises(UserError, match=r"c\.yaml: line 1: .*only arithmetic"):
        get_cfg().merge_from_file(str(file))
