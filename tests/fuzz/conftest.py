"""How many cases the fuzzers of this folder try: few by default, 10,000 each with the profile "long".

pytest tests/fuzz --hypothesis-profile=long

The fuzzer of reports, which take long to write, tries a fiftieth of that.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

_SHARED = dict(
    deadline=None,  # the machines of tests differ in speed
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.register_profile("short", max_examples=40, derandomize=True, database=None, **_SHARED)
settings.register_profile("long", max_examples=10_000, **_SHARED)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("short")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Lift the limit of a test's time where it tries many cases."""
    if config.getoption("--hypothesis-profile"):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))
