"""Tests of Python configurations: loading, relative imports, building, printing, and the messages for mistakes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from sn2fpn.config import LazyCall, LazyConfig, instantiate, locate
from sn2fpn.config.calls import target_of
from sn2fpn.errors import ArgumentError, UserError

Write = Callable[..., Path]


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass
class Size:
    width: int
    height: int = 1


def collect(*, items: list[object], **rest: object) -> dict[str, object]:
    return {"items": items, **rest}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("a/b.py", text)` writes a config file under a temporary folder and returns its path."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return make


@pytest.mark.parametrize("text", ["a: '???'", "a: '${nope}'", "a: {b: '${a}'}", "a: [1, '${nope}', {b: null}]"])
def test_yaml_with_open_values_is_read_as_it_is(text: str, write: Write) -> None:
    """What a reference leads to is looked up when it is used."""
    file = write("open.yaml", text)
    for trust in (False, True):
        assert OmegaConf.to_container(LazyConfig.load(file, trust=trust), resolve=False) == yaml.safe_load(text)


def test_files_import_each_other_relatively_and_share_nothing(write: Write) -> None:
    write("common/train.py", "train = dict(max_iter=90, nested=dict(a=[1, 2]))")
    write(
        "common/parts/model.py",
        (
            "from fractions import Fraction\n"
            "from sn2fpn.config import LazyCall as L\n"
            "from ..train import train as _train\n"
            "model = L(Fraction)(numerator=_train.max_iter, denominator='${train.max_iter}')\n"
            "def half(n): return L(Fraction)(numerator=n, denominator=2)\n"
            "number, _hidden = 3, dict(a=1)"
        ),
    )
    write("sub/other.py", "from ..common.train import train\ntrain.max_iter = -1")
    path = write(
        "sub/main.py",
        (
            "from .other import train as _changed\n"
            "from ..common.parts.model import half, model, number\n"
            "from ..common.train import train\n"
            "from sn2fpn.config import LazyConfig\n"
            "assert isinstance(train, dict) is False and train.nested.a[1] == 2\n"
            "again = LazyConfig.load_rel('../common/train.py', 'train')\n"
            "third = half(number)"
        ),
    )
    cfg = LazyConfig.load(path)
    assert isinstance(cfg, DictConfig)
    assert sorted(cfg) == ["again", "model", "third", "train"]  # neither functions, numbers nor _names
    assert cfg.train.max_iter == 90  # other.py changed its own
    cfg.train.max_iter = 30
    assert instantiate(cfg.model) == 3 and instantiate(cfg.third) == Fraction(3, 2)
    assert LazyConfig.load(path, "number") == 3
    train, half = LazyConfig.load(path, ("train", "half"))
    assert train.max_iter == 90 and instantiate(half(5)) == Fraction(5, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = 1 / 0", ["main.py: line 2", "ZeroDivisionError"]),
        ("def f(:", ["main.py: line 1", "SyntaxError"]),
        ("from .commno import train", ["main.py: line 1", "commno.py", "did you mean 'common.py'"]),
        ("from .common import trian", ["main.py: line 1", "common.py", "'trian'", "did you mean 'train'"]),
        ("from . import common", ["main.py: line 1", "config files by name"]),
        ("from .folder import x", ["main.py: line 1", "is a folder"]),
        ("\nfrom .broken import x", ["broken.py: line 3", "NameError", "nothing"]),
        ("from .main import x", ["circle"]),
        ("import no_such_package", ["main.py: line 1", "no_such_package"]),
        ("from sn2fpn.data import register_custom\nregister_custom([{}])", ["main.py: line 2", "DATASETS.CUSTOM[0]"]),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(write: Write, text: str, words: list[str]) -> None:
    write("common.py", "train = {}")
    write("folder/x.py", "x = {}")
    write("broken.py", "x = {}\n\nnothing")
    with pytest.raises(UserError) as e:
        LazyConfig.load(write("main.py", text))
    for word in words:
        assert word in str(e.value)
    assert str(e.value).count("line ") <= 1


def test_missing_files_and_keys_suggest_the_nearest(write: Write) -> None:
    path = write("faster.py", "model = {}")
    with pytest.raises(UserError, match=r"(?s)not found.*fastr\.py.*did you mean.*faster\.py"):
        LazyConfig.load(path.with_name("fastr.py"))
    with pytest.raises(UserError, match=r"faster\.py has no 'modl'; did you mean 'model'"):
        LazyConfig.load(path, "modl")
    with pytest.raises(UserError, match=r"expected a \.py or \.yaml file"):
        LazyConfig.load(path.with_suffix(".json"))


def test_instantiate_builds_arguments_first_and_leaves_the_rest_alone() -> None:
    marker = object()
    node = LazyCall(collect)(
        items=[LazyCall(Fraction)(numerator=1, denominator="${...n}"), {"plain": 1}, (1, 2)],
        n=4,
        by_name=LazyCall("fractions.Fraction")(numerator=7),
        size=LazyCall(Size)(width=3),
        thing=marker,
        built=LazyCall(LazyCall(locate)(name="fractions.Fraction"))(numerator=9),
        none=None,
    )
    node.n = 5
    out = instantiate(node)
    assert type(out["items"]) is list and out["items"][0] == Fraction(1, 5) and out["items"][2] == [1, 2]
    assert out["items"][1] == {"plain": 1}
    assert (out["by_name"], out["size"], out["built"]) == (7, Size(3), 9)
    assert out["thing"] is marker and out["none"] is None
    for value in (3, "x", Point(1), {"a": 1}):
        assert instantiate(value) == value
    with pytest.raises(TypeError, match="LazyCall takes a callable"):
        LazyCall(3)


@pytest.mark.parametrize(
    ("target", "arguments", "words"),
    [
        (Size, {"widht": 3}, ["a.b", "Size", "takes no argument 'widht'", "did you mean 'width'"]),
        (Size, {}, ["a.b", "missing", "'width'"]),
        ("fractions.Fracton", {}, ["a.b._target_", "did you mean 'Fraction'"]),
        ("sn2fpn.pyramids.PAFNP", {}, ["a.b._target_", "did you mean 'PAFPN'"]),  # and not the module 'pafpn'
        ("sn2fpn.pyramid.PAFPN", {}, ["a.b._target_", "did you mean 'pyramids'"]),
        ("no_such_module.f", {}, ["a.b._target_", "cannot import 'no_such_module.f'"]),
        ("not a name", {}, ["a.b._target_: expected a dotted name", "'not a name'"]),
        ("math.pi", {}, ["expected something that can be called", "3.14"]),
        ("sn2fpn.pyramids.SNIFPN", {"input_shape": [8, 16], "alpha": "aera"}, ["a.b", "SNIFPN", "did you mean 'area'"]),
        (Size, {"width": "${nowhere.x}"}, ["a.b", "nowhere.x"]),
    ],
)
def test_a_node_that_cannot_be_built_is_named(target: object, arguments: dict, words: list[str], write: Write) -> None:
    cfg = LazyConfig.load(write("a.py", "a = dict(b=None)"))
    cfg.a.b = LazyCall(target)(**arguments)
    with pytest.raises(UserError) as e:
        instantiate(cfg.a.b)
    for word in words:
        assert word in str(e.value)


class Refuses:
    """Raises an error for its argument, or for its own kind of mistake."""

    def __init__(self, alpha: object = 0, *, inner: object = None, count: int = 1) -> None:
        if alpha == "aera":
            raise ArgumentError("alpha", "unknown value 'aera'; did you mean 'area'?")
        if alpha == "both":
            raise UserError("the sizes do not fit")
        if count < 0:
            raise ValueError("negative count")


class RefusesToo(Refuses):
    """Passes arguments on to its base class."""

    def __init__(self, *levels: object, norm: str = "", **shared: object) -> None:
        super().__init__(*levels, **shared)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": "aera"}, "a.b.alpha ({name}): unknown value 'aera'; did you mean 'area'?"),
        ({"inner": {"alpha": "aera"}}, "a.b.inner.alpha ({name}): unknown value 'aera'; did you mean 'area'?"),
        ({"alpha": "both"}, "a.b ({name}): the sizes do not fit"),
        ({"count": -1}, "a.b ({name}): ValueError: negative count"),
        ({"cuont": 1}, "a.b ({name}): takes no argument 'cuont'; did you mean 'count'?"),
    ],
)
def test_instantiate_names_the_argument_that_a_class_refuses(arguments: dict, message: str) -> None:
    if inner := arguments.get("inner"):
        arguments = {"inner": LazyCall(RefusesToo)(**inner)}
    cfg = DictConfig({"a": {"b": LazyCall(RefusesToo)(**arguments)}}, flags={"allow_objects": True})
    with pytest.raises(UserError) as e:
        instantiate(cfg.a.b)
    assert str(e.value) == message.format(name=f"{__name__}.RefusesToo")
    with pytest.raises(ArgumentError, match=r"^alpha \(.*RefusesToo\): unknown value"):
        instantiate(LazyCall(RefusesToo)(alpha="aera"))


def test_saved_yaml_is_plain_and_builds_the_same(tmp_path: Path) -> None:
    cfg = LazyConfig.apply_overrides(DictConfig({}, flags={"allow_objects": True}), ["+n=4"])
    cfg.node = LazyCall(collect)(
        items=[Point(1, 2), Size(5), Fraction], half=LazyCall(Fraction)(numerator=1, denominator="${n}")
    )
    LazyConfig.save(cfg, tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text()
    yaml.safe_load(text)
    assert "fractions.Fraction" in text and "${n}" in text
    again = LazyConfig.load(tmp_path / "c.yaml", trust=True)
    assert again.n == 4
    again.n = 2
    assert instantiate(again.node) == {"items": [Point(1, 2), Size(5), Fraction], "half": Fraction(1, 2)}
    (tmp_path / "bad.yaml").write_text("x: !!python/object/apply:os.system ['touch executed']")
    with pytest.raises(UserError, match=r"bad\.yaml: not readable"):
        LazyConfig.load(tmp_path / "bad.yaml")


_NAMES_OTHERS = """
system: {_target_: os.system, command: touch executed}
through_module: {_target_: sn2fpn.modeling.build.torch.hub.load, repo_or_dir: x}
through_globals: {_target_: torch.nn.Linear.__init__.__globals__.clear}
located: {_target_: {_target_: sn2fpn.config.locate, name: os.system}, command: touch executed}
argument: {_target_: torch.nn.Module.apply, self: 1, fn: {_target_: sn2fpn.config.locate, name: os.system}}
reference: {_target_: "${system._target_}", command: touch executed}
runs_files: {_target_: sn2fpn.imports.import_files, files: [evil.py]}
loads_files: {_target_: sn2fpn.config.LazyConfig.load, filename: evil.py}
unpickles: {_target_: torch.load, f: evil.pth, weights_only: false}
writes_files: {_target_: sn2fpn.data.check.main, argv: [shapes_val, --plot, executed]}
analyses: {_target_: sn2fpn.evaluation.analysis.__main__.main, argv: [--import, evil.py]}
in_list: [null, {_target_: os.system, command: touch executed}]
"""


@pytest.mark.parametrize("name", yaml.safe_load(_NAMES_OTHERS))
def test_a_yaml_file_names_building_blocks_only(name: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("c.yaml", f"{_NAMES_OTHERS}\nlinear: {{_target_: torch.nn.Linear, in_features: 2, out_features: 3}}")
    monkeypatch.chdir(path.parent)
    cfg = LazyConfig.load(path)
    other = DictConfig({"system": cfg.system, "moved": cfg[name]}, flags={"allow_objects": True})
    for node in (cfg[name], copy.deepcopy(cfg)[name], other.moved, OmegaConf.merge({}, cfg)[name]):
        with pytest.raises(UserError, match=r"'[\w.]+' is refused, .* trust=True"):
            instantiate(node)
    with pytest.raises(UserError, match="is refused"):
        LazyConfig.apply_overrides(cfg, ["linear._target_=os.system", "linear.command=ls"])
    assert instantiate(LazyConfig.load(path).linear).out_features == 3
    assert not (path.parent / "executed").exists()
    if name == "system":
        assert instantiate(LazyConfig.load(path, trust=True).system) == 0
        assert (path.parent / "executed").exists()


def test_a_file_that_names_classes_by_their_former_modules_builds_the_same() -> None:
    """The file was saved when `sn2fpn.modeling` had no packages and IHP's argument `filter` was `filter_name`."""
    small = (
        ["model.backbone.out_channels=16", "model.roi_heads.box_head.fc_dims=[32,32]"]
        + [f"model.backbone.bottom_up.{change}" for change in ("depth=18", "norm=BN", "freeze_at=0")]
        + [f"model.roi_heads.mask_head.{change}" for change in ("conv_dims=[16]", "deconv_dim=16")]
    )
    root = Path(__file__).parents[2]
    new = LazyConfig.apply_overrides(LazyConfig.load(root / "configs/lazy/mask_rcnn_R50_ihp.py"), small)
    old = LazyConfig.load(Path(__file__).with_name("saved_mask_rcnn_R50_ihp.yaml"))
    assert old.model.proposal_generator.head._target_ == "sn2fpn.modeling.rpn_head.RPNHead"
    theirs, mine = (instantiate(cfg.model).state_dict() for cfg in (old, new))
    assert {name: w.shape for name, w in theirs.items()} == {name: w.shape for name, w in mine.items()}
    for key in ("dataloader.train", "dataloader.test", "dataloader.evaluator", "optimizer.params", "lr_multiplier"):
        assert target_of(OmegaConf.select(old, key)) is target_of(OmegaConf.select(new, key))


def test_what_yaml_cannot_hold_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = DictConfig({"a": {"f": lambda: 1, "x": [object()]}}, flags={"allow_objects": True})
    logging.getLogger("sn2fpn").propagate = True  # a run of the engine turns this off
    with caplog.at_level(logging.WARNING):
        LazyConfig.save(cfg, tmp_path / "c.yaml")
    assert "a.f, a.x.0" in caplog.text
    assert set(yaml.safe_load((tmp_path / "c.yaml").read_text())["a"]) == {"f", "x"}


def test_python_text_reads_like_the_config() -> None:
    long = list(range(60))
    cfg = DictConfig({"n": 4, "train": {"lr": 0.1, "name": "x"}}, flags={"allow_objects": True})
    cfg.node = LazyCall(Fraction)(numerator=LazyCall(Fraction)(numerator=1), denominator="${n}")
    cfg.long = LazyCall(Fraction)(numerator=long, denominator={"a": Fraction})
    lines = LazyConfig.to_py(cfg, prefix="c.").splitlines()
    assert lines[:4] == [
        "c.n = 4",
        "c.train.lr = 0.1",
        "c.train.name = 'x'",
        "c.node = fractions.Fraction(numerator=fractions.Fraction(numerator=1), denominator=4)",
    ]
    assert lines[4:6] == ["c.long = fractions.Fraction(", "    numerator=["]
    assert lines[-2:] == ["    denominator={'a': fractions.Fraction}", ")"]
    compile("\n".join(lines), "text", "exec")
