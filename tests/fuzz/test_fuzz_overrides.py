"""Whatever stands after the flags changes the configuration or gives a message for the user."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sn2fpn.config import get_cfg
from sn2fpn.config.overrides import apply_overrides
from sn2fpn.errors import UserError

PYTHON = {
    "train": {"max_iter": 90, "device": "cpu", "amp": {"enabled": False}, "note": None, "steps": [30, 40]},
    "model": {"_target_": "sn2fpn.data.augmentation.ResizeShortestEdge", "short_edges": [800], "max_size": 1333},
    "copies": "${train.max_iter}",
    "rate": 0.1,
}
_PARTS = [
    "train",
    "max_iter",
    "amp",
    "enabled",
    "steps",
    "0",
    "-1",
    "7",
    "model",
    "short_edges",
    "_target_",
    "copies",
    "x",
]
_VALUES = [
    "",
    "1",
    "-0.5",
    "true",
    "null",
    "[1,2]",
    "[",
    "{a: 1}",
    "{a: ",
    "${train.x}",
    "${",
    "*a",
    "&a 1",
    "!!x",
    "1e400",
]
_KEYS = st.lists(st.sampled_from(_PARTS) | st.text(max_size=3), min_size=0, max_size=4).map(".".join)
_TEXTS = st.builds(
    lambda plus, key, equals, value: plus + key + equals + value,
    st.sampled_from(["", "", "+", "++"]),
    _KEYS,
    st.sampled_from(["=", "=", "=", "", "=="]),
    st.sampled_from(_VALUES) | st.text(max_size=8),
)


@given(texts=st.lists(_TEXTS | st.text(max_size=12), min_size=1, max_size=3))
def test_changes_of_a_python_configuration(texts: list[str]) -> None:
    cfg = OmegaConf.create(copy.deepcopy(PYTHON))
    try:
        changed = apply_overrides(cfg, texts)
    except UserError as error:
        assert str(error).startswith("command line: ")
        return
    assert changed is cfg and {"train", "model", "rate"} <= set(cfg)


def _leaves(node: Any, path: str = "") -> list[str]:
    """Return the full keys of a configuration."""
    if not isinstance(node, dict):
        return [path[1:]]
    return [leaf for key, value in node.items() for leaf in _leaves(value, f"{path}.{key}")]


_YAML_KEYS = st.sampled_from(_leaves(get_cfg())) | st.sampled_from(
    ["MODEL", "MODEL.", "", ".", "MODEL.FPN.X", "SEED.A"]
)
_YAML_VALUES = st.sampled_from(
    [*_VALUES, "(1, 2)", "((1,), (2,))", "'a'", "__import__('os')", "0x" + "f" * 99, "9" * 5000]
)
_YAML_VALUES |= st.text(max_size=8) | st.none() | st.booleans() | st.integers() | st.floats() | st.lists(st.integers())


@given(
    pairs=st.lists(_YAML_KEYS | st.text(max_size=6) | _YAML_VALUES, max_size=1).flatmap(
        lambda odd: st.lists(st.tuples(_YAML_KEYS | st.text(max_size=6), _YAML_VALUES), max_size=3).map(
            lambda pairs: [*(x for pair in pairs for x in pair), *odd]
        )
    )
)
def test_changes_of_a_yaml_configuration(pairs: list[Any]) -> None:
    cfg = get_cfg()
    before = set(_leaves(cfg))
    try:
        cfg.merge_from_list(pairs)
    except UserError as error:
        assert str(error)
        return
    assert set(_leaves(cfg)) == before
