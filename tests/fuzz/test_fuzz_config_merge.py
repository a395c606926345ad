"""Whatever is in a configuration file is merged or gives a message that names the file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
_REAL = sorted(CONFIGS.rglob("*.yaml"))

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.dates()
_PLAIN = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def _nodes(node: Any) -> st.SearchStrategy[Any]:
    """Return mappings of some keys of a configuration to values of any kind, level by level."""
    if not isinstance(node, dict):
        return st.just(node) | _PLAIN
    keys = st.lists(st.sampled_from(sorted(node)), max_size=3, unique=True)
    return keys.flatmap(lambda chosen: st.fixed_dictionaries({key: _nodes(node[key]) for key in chosen})) | _PLAIN


@st.composite
def _damaged(draw: st.DrawFn) -> tuple[Path, bytes]:
    """Return the folder and the text of a real file, with a part that is removed, repeated or replaced."""
    path = draw(st.sampled_from(_REAL))
    text = path.read_bytes()
    start, length = draw(st.integers(0, len(text))), draw(st.integers(0, 30))
    part = draw(
        st.binary(max_size=6) | st.sampled_from([b"", b"\n", b": ", b"- ", b"{", b"]", b"&a", b"*a", b"<<: ", b"\t"])
    )
    return path.parent, text[:start] + part * draw(st.integers(1, 3)) + text[start + length :]


_FILES = _nodes(get_cfg()).map(lambda content: yaml.dump(content, allow_unicode=True).encode("utf-8", "surrogatepass"))
_FILES |= st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder of configurations, so that the files that `_BASE_` names are found."""
    return shutil.copytree(CONFIGS, tmp_path_factory.mktemp("merge") / "configs")


@given(place=_damaged() | _FILES.map(lambda content: (CONFIGS, content)))
def test_any_configuration_file(folder: Path, place: tuple[Path, bytes]) -> None:
    beside, content = place
    path = folder / beside.relative_to(CONFIGS) / "fuzzed.yaml"
    path.write_bytes(content)
    cfg = get_cfg()
    groups = {key for key, value in cfg.items() if isinstance(value, CfgNode)}
    try:
        cfg.merge_from_file(str(path))
    except UserError as error:
        assert ".yaml" in str(error)  # this file or one that it names as _BASE_
        return
    assert groups == {key for key, value in cfg.items() if isinstance(value, CfgNode)}
