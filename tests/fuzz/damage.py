"""Ways of damaging a file of JSON, which the fuzzers share."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

__all__ = ["damaged_json"]

_NUMBERS = st.integers(-5, 200) | st.floats() | st.sampled_from([0, 10**18, 10**400, -(10**400), 1e308, 1e-320])
_TEXTS = st.text(max_size=6) | st.sampled_from(
    ["../../x", "\ud800", "$\\frac{", "<b>", "a\nb", "\x00", "x" * 300, "nan"]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=6,
)


@st.composite
def damaged_json(draw: st.DrawFn, content: Any) -> bytes:
    """Draw a JSON file in which a few values or keys are replaced or removed, or some bytes are."""
    changed = copy.deepcopy(content)
    for _ in range(draw(st.integers(0, 3))):
        changed = _change(draw, changed)
    text = json.dumps(changed).encode()
    if draw(st.integers(0, 3)) == 0:
        start = draw(st.integers(0, len(text)))
        text = (
            text[:start]
            + draw(st.binary(max_size=5) | st.just(b"[" * 100_000))
            + text[start + draw(st.integers(0, 9)) :]
        )
    return text


def _change(draw: st.DrawFn, value: Any) -> Any:
    """Return a value with one change at a random place inside it."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(_VALUES)
    key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    kind = draw(st.sampled_from(["change", "change", "change", "change", "remove", "rename"]))
    if kind == "change":
        value[key] = _change(draw, value[key])
    elif kind == "remove":
        del value[key]
    elif isinstance(value, dict):
        value[draw(_TEXTS)] = value.pop(key)
    return value
