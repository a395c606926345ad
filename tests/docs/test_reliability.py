"""The page on reliability names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_has_a_test() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("| promise |")]
    promises = [row.split("|") for table in tables for row in table[2:]]
    assert len(promises) > 30
    for row in promises:
        names = re.findall(r"`(tests/[^`]+)`", row[2])
        assert names, f"no test is named for: {row[1]}"
        for name in names:
            path, _, function = name.partition("::")
            assert (ROOT / path).exists(), name
            if function:
                assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), name
