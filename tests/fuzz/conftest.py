"""How many cases the fuzzers of this folder try: few by default, 10,000 each with the profile "long".

pytest tests/fuzz --hypothesis-profile=long

The fuzzer of reports, which take long to write, tries a fiftieth of that.
"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Lift the limit of a test's time where it tries many cases."""
    if config.getoption("--hypothesis-profile"):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))
