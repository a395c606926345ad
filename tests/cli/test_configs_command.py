"""Tests of `sn2fpn configs`, which lists, shows and copies what comes with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sn2fpn.cli.configs import main
from sn2fpn.config import LazyConfig, get_cfg
from sn2fpn.config.printing import to_yaml
from sn2fpn.shipped import KINDS, shipped_files
from sn2fpn.study.spec.study import Study

_ROOT = Path(__file__).parents[2]
_QUICK = "quick/faster_rcnn_R18_sni_shapes.yaml"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_list_says_what_each_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith("  ")}
    assert set(listed) == {name for kind in KINDS for name in shipped_files(kind)}
    assert all(len(words.split()) > 4 and words[-1] in ".?" and '"""' not in words for words in listed.values())
    assert listed[_QUICK].startswith(
        "A small Faster R-CNN with SNI, trained from scratch on synthetic shapes, on a CPU"
    )


def test_a_file_is_shown_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (_QUICK, "lazy/common.py", "studies/quick_shapes.yaml"):
        assert main(["show", name]) == 0
        path = _ROOT / name if name.startswith("studies") else _ROOT / "configs" / name
        assert capsys.readouterr().out == path.read_text()
    assert main(["show", "quick/faster_rcnn_R18_snii_shapes.yaml"]) == 2
    assert "did you mean 'quick/faster_rcnn_R18_sni_shapes.yaml'?" in capsys.readouterr().err


def test_resolved_files_have_all_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("mine.yaml").write_text(f"_BASE_: {_QUICK}\nSEED: 77\n")
    assert main(["show", "--resolved", "mine.yaml"]) == 0
    (tmp_path / "all.yaml").write_text(capsys.readouterr().out)
    whole, mine = get_cfg(), get_cfg()
    whole.merge_from_file(str(tmp_path / "all.yaml"))
    mine.merge_from_file("mine.yaml")
    assert whole == mine and set(yaml.safe_load((tmp_path / "all.yaml").read_text())) == set(get_cfg())
    assert main(["show", "--resolved", "lazy/quick_shapes.py"]) == 0
    (tmp_path / "lazy.yaml").write_text(capsys.readouterr().out)
    assert to_yaml(LazyConfig.load(tmp_path / "lazy.yaml")) == to_yaml(LazyConfig.load("lazy/quick_shapes.py"))
    assert main(["show", "--resolved", "quick_shapes.yaml"]) == 0
    study = yaml.safe_load(capsys.readouterr().out)
    assert study["SEEDS"] == [1, 2, 3] and study["TUNE"] == {} and "bbox/AP50" in study["METRICS"]


def test_resolved_files_are_read_as_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    """Detectron2's configurations compute sizes, and an empty file changes nothing."""
    computed = "!!python/object/apply:eval ['[[x * 2] for x in [4, 8]]']"
    Path("eval.yaml").write_text(f"MODEL: {{ANCHOR_GENERATOR: {{SIZES: {computed}}}}}")
    Path("empty.yaml").touch()
    for name, sizes in (("eval.yaml", [[8], [16]]), ("empty.yaml", get_cfg().MODEL.ANCHOR_GENERATOR.SIZES)):
        assert main(["show", "--resolved", name]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["MODEL"]["ANCHOR_GENERATOR"]["SIZES"] == sizes
    broken = {b"A: [": "not readable as YAML", b"- 1": "expected a mapping", b"\xff": "expected a text"}
    for content, problem in broken.items():
        Path("broken.yaml").write_bytes(content)
        assert main(["show", "--resolved", "broken.yaml"]) == 2
        assert "broken.yaml: " in (said := capsys.readouterr().err) and problem in said


def test_programs_of_others_are_not_run_to_show_them(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = Path("theirs.py")
    theirs.write_text("from pathlib import Path\nPath('executed').touch()\nmodel = dict(a=1)\n")
    theirs.chmod(0o666)
    assert main(["show", "theirs.py"]) == 0
    assert main(["show", "--resolved", "theirs.py"]) == 2
    assert "--trust" in capsys.readouterr().err and not Path("executed").exists()
    assert main(["show", "--resolved", "--trust", "theirs.py"]) == 0
    assert Path("executed").exists()


def test_copies_hold_what_the_shipped_files_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each file is copied to a folder of its own, so that a base that is left behind is missed."""
    for i, name in enumerate(shipped_files("configs")):
        if name == "lazy/detectron2_mask_rcnn_sni.py":  # imports Detectron2
            continue
        assert main(["copy", name, str(i)]) == 0
        copy = tmp_path / str(i) / "configs" / name
        if name.endswith(".py"):
            assert to_yaml(LazyConfig.load(copy)) == to_yaml(LazyConfig.load(name))
            continue
        copied, shipped = get_cfg(), get_cfg()
        copied.merge_from_file(str(copy))
        shipped.merge_from_file(name)
        assert copied == shipped
    for name in shipped_files("studies"):
        assert main(["copy", name, name.removesuffix(".yaml")]) == 0
        base = Study.load(tmp_path / name.removesuffix(".yaml") / "studies" / name).base
        assert base.is_relative_to(tmp_path) and base.read_text() == Study.load(name).base.read_text()


def test_files_that_are_there_already_stay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a clone, the shipped files are those in ./configs."""
    shipped = next(iter(shipped_files("configs").values()))
    root = next(parent for parent in shipped.parents if parent.name == "configs")
    Path("configs").symlink_to(root.resolve())
    before = (root / _QUICK).stat().st_mtime_ns
    assert main(["copy", _QUICK]) == 0
    assert f"configs/{_QUICK}" in capsys.readouterr().out and (root / _QUICK).stat().st_mtime_ns == before


def test_a_file_that_is_no_text_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.pth").write_bytes(b"PK\x03\x04\xff\xfe\x80")
    assert main(["show", "./model.pth"]) == 2
    assert "model.pth: expected a configuration or a study, found a file that is no text" in capsys.readouterr().err


def test_a_copy_is_used_instead_of_the_shipped_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["copy", _QUICK]) == 0
    copy, *bases = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert copy == Path("configs", _QUICK) and Path("configs/quick/Base-Shapes.yaml") in bases
    copy.write_text(copy.read_text() + "SEED: 77\n")
    cfg = get_cfg()
    cfg.merge_from_file(f"configs/{_QUICK}")
    assert cfg.SEED == 77


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([_QUICK, "mine.yaml"], "DEST: expected a folder, in which the file keeps its name, found mine.yaml"),
        (["own.yaml"], "own.yaml is a file of your own"),
        (["nothing.yaml"], "there is no file nothing.yaml"),
        ([_QUICK], f"configs/{_QUICK}: there is another file of this name already"),
    ],
)
def test_wrong_copies_change_nothing(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.yaml").touch()
    mine = Path("configs", _QUICK)
    mine.parent.mkdir(parents=True)
    mine.write_text("SEED: 77\n")
    assert main(["copy", *words]) == 2
    assert problem in capsys.readouterr().err
    assert mine.read_text() == "SEED: 77\n" and {p.name for p in Path().rglob("*.yaml")} == {"own.yaml", mine.name}
