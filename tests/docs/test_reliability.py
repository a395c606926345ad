"""The page on reliability names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_has_a_test() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    promises = [row for row in rows if row[1].strip() != "promise" and len(row) == 5]
    assert len(promises) > 30
    for row in promises:
        names = re.findall(r"`(tests/[^`]+)`", row[2])
        assert names, f"no test is named for: {row[1]}"
        for name in names:
            path, _, function = name.partition("::")
            assert (ROOT / path).exists(), name
            if function:
                assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), name
