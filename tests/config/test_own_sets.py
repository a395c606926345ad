"""Tests of the forms that the value of `DATASETS.CUSTOM` may have, and of the messages for torn or mistyped ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sn2fpn.config import LazyConfig, get_cfg
from sn2fpn.config.overrides import apply_overrides
from sn2fpn.errors import UserError

SHORT = "{my_train: {IMAGES: a b, ANNOTATIONS: c}, 7: {ANNOTATIONS: d, CLASSES: [x, y]}}"
LIST = [
    {"NAME": "my_train", "IMAGES": "a b", "ANNOTATIONS": "c"},
    {"NAME": "7", "ANNOTATIONS": "d", "CLASSES": ["x", "y"]},
]


def test_all_forms_give_the_same_list(tmp_path: Path) -> None:
    for value in (SHORT, str(LIST), repr(yaml.safe_load(SHORT)), LIST, yaml.safe_load(SHORT)):
        cfg = get_cfg()
        cfg.merge_from_list(["DATASETS.CUSTOM", value])
        assert cfg.DATASETS.CUSTOM == LIST
    cfg = get_cfg()
    cfg.DATASETS.CUSTOM = yaml.safe_load(SHORT)
    assert cfg.DATASETS.CUSTOM == LIST
    file = tmp_path / "own.yaml"
    file.write_text(f"DATASETS:\n  CUSTOM: {SHORT}\n")
    cfg = get_cfg()
    cfg.merge_from_file(str(file))
    assert cfg.DATASETS.CUSTOM == LIST
    file.write_text(cfg.dump())
    again = get_cfg()
    again.merge_from_file(str(file))
    assert again.DATASETS.CUSTOM == LIST


def test_python_configurations(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("dataloader = dict(custom=[])\n")
    cfg = LazyConfig.load(str(tmp_path / "own.py"))
    assert apply_overrides(cfg, [f"dataloader.custom={SHORT}"]).dataloader.custom == LIST
    with pytest.raises(UserError, match=r"dataloader\.custom=\{my:.*not readable as YAML.*in single quotes"):
        apply_overrides(cfg, ["dataloader.custom={my:", "{IMAGES:"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{my:", "{IMAGES:", "a}}"], r"not readable as YAML: .* found '\{my:'; in a shell, the whole value stands in"),
        (["{my:", "{IMAGES:", "a,", "ANNOTATIONS:", "b}}"], r"not readable as YAML: .*stands in single quotes, as in"),
        (["{my: {IMAGES: a}"], r"not readable as YAML: .* at character 17, found '\{my: \{IMAGES: a\}'"),
        (["{my: {IMAGES:a, ANNOTATIONS: b}}"], "expected a space after the colon in 'IMAGES:a'"),
        (["{my: 'a}"], "not readable as YAML: .*end of stream"),
        (["my_train"], "expects a list or mapping of data sets, found my_train;"),
        (["{my: data.yaml}"], r"expected a mapping from names to entries .*, found my: 'data\.yaml'"),
        (["{my: {NAME: a}}"], "expected a mapping from names to entries"),
        (["3"], "expects a list or mapping of data sets, found 3;"),
    ],
)
def test_mistyped_values(words: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"^command line: DATASETS\.CUSTOM:? {message}"):
        get_cfg().merge_from_list(["DATASETS.CUSTOM", *words])
