"""Whatever is in a study file is a study that can be saved and read again, or gives a message that names the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sn2fpn.errors import UserError
from sn2fpn.study.spec.study import Study

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))

_SCALARS = st.none() | st.booleans() | st.integers(-2, 99) | st.floats() | st.text(max_size=5)
_PLAIN = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
_CHANGES = st.dictionaries(
    st.sampled_from(["MODEL.SNI.ALPHA", "MODEL", "SOLVER.MAX_ITER", "SEED", "OUTPUT_DIR", "X", "MODEL.FPN"])
    | st.text(max_size=4),
    _PLAIN,
    max_size=2,
)
_AXIS = st.lists(st.sampled_from(["fpn", "sni", "ihp"]) | _SCALARS, max_size=3) | st.dictionaries(
    st.text(max_size=4), st.none() | _CHANGES | _PLAIN, max_size=3
)
_KEYS = {
    "NAME": st.just("name") | st.sampled_from(["..", "a/b", "/etc", "", "x" * 300]),
    "BASE": st.just(str(ROOT / "configs/quick/Base-Shapes.yaml")) | st.sampled_from(["nowhere.yaml", "", "/dev/null"]),
    "SET": _CHANGES,
    "AXES": st.dictionaries(st.sampled_from(["pyramid", "trunk"]) | st.text(max_size=4), _AXIS, max_size=2),
    "EXCLUDE": st.lists(st.dictionaries(st.sampled_from(["pyramid", "trunk"]), _SCALARS, max_size=2), max_size=2),
    "SEEDS": st.lists(st.integers(-1, 4), max_size=3),
    "BASELINE": st.dictionaries(st.sampled_from(["pyramid", "trunk"]), _SCALARS, max_size=2) | st.none(),
    "METRICS": st.lists(st.sampled_from(["bbox/AP", "segm/AP", "AP"]), max_size=2),
    "ENGINE": st.sampled_from(["native", "auto", "other"]),
    "IMPORTS": st.lists(st.sampled_from(["mine.py", "../x.py", ""]), max_size=1),
    "MISTYPED": _PLAIN,
}
_GOOD = {"BASE": _KEYS["BASE"], "AXES": st.just({"pyramid": ["fpn", "sni"]})}


@st.composite
def _contents(draw: st.DrawFn) -> bytes:
    """Return a file with good and wrong entries, or a real one that is damaged, or noise."""
    kind = draw(st.sampled_from(["entries", "entries", "entries", "damaged", "noise"]))
    if kind == "noise":
        return draw(st.binary(max_size=40))
    if kind == "damaged":
        text = draw(st.sampled_from(STUDIES)).read_bytes()
        start = draw(st.integers(0, len(text)))
        return text[:start] + draw(st.binary(max_size=5)) + text[start + draw(st.integers(0, 20)) :]
    chosen = draw(st.lists(st.sampled_from(sorted(_KEYS)), max_size=4, unique=True))
    entries: dict[str, Any] = {key: draw(strategy) for key, strategy in _GOOD.items()}
    entries |= {key: draw(_KEYS[key] | _KEYS[key] | _PLAIN) for key in chosen}
    return yaml.dump(entries, allow_unicode=True).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@given(content=_contents())
def test_any_study_file(folder: Path, content: bytes) -> None:
    path = folder / "fuzzed.yaml"
    path.write_bytes(content)
    try:
        study = Study.load(path)
    except UserError as error:
        assert "fuzzed.yaml" in str(error)
        return
    study.save(folder / "again.yaml")
    assert repr(replace(Study.load(folder / "again.yaml"), path=path)) == repr(study)  # NaN differs from itself
    for variant in study.variants[:2]:
        try:
            cfg = study.config(variant)
        except UserError as error:
            assert str(error)
        else:
            assert study.first_cell(variant).seed == cfg.SEED
