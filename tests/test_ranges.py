"""Test the checks of ranges, by properties that hold for all numbers and by things that are no numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sn2fpn.errors import ArgumentError, argument_names, keys_of
from sn2fpn.ranges import check_count, check_each, check_number, check_odd

BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "at_least": (operator.ge, "of at least"),
    "above": (operator.gt, "above"),
    "at_most": (operator.le, "of at most"),
    "below": (operator.lt, "below"),
}
numbers = st.one_of(st.floats(), st.integers(), st.integers(-(10**400), 10**400))
no_numbers = st.one_of(st.none(), st.booleans(), st.text(), st.lists(st.integers()), st.complex_numbers(), st.binary())


def accepts(check: Callable[..., Any], found: Any, **bounds: Any) -> bool:
    """Return whether a check returns what it was given; otherwise it must name the argument and the value."""
    try:
        result = check("argument", found, **bounds)
    except ArgumentError as e:
        assert e.argument == "argument" and e.problem.endswith(f"found {found!r}")
        return False
    assert result is found
    return True


@settings(deadline=None)
@given(numbers, st.dictionaries(st.sampled_from(sorted(BOUNDS)), st.floats(allow_nan=False)))
def test_a_number_is_accepted_within_its_bounds_only(found: float, bounds: dict[str, float]) -> None:
    finite = isinstance(found, int) or math.isfinite(found)
    expected = finite and all(BOUNDS[name][0](found, bound) for name, bound in bounds.items())
    assert accepts(check_number, found, **bounds) == expected


@settings(deadline=None)
@given(numbers, st.integers(-5, 5))
def test_a_count_is_a_whole_number_from_its_least_value_on(found: float, least: int) -> None:
    assert accepts(check_count, found, at_least=least) == (isinstance(found, int) and found >= least)


@settings(deadline=None)
@given(numbers)
def test_an_odd_number_is_positive(found: float) -> None:
    assert accepts(check_odd, found) == (isinstance(found, int) and found > 0 and found % 2 == 1)


@settings(deadline=None)
@given(no_numbers)
def test_what_is_no_number_is_refused(found: Any) -> None:
    assert not any(accepts(check, found) for check in (check_number, check_count, check_odd))


def test_numbers_of_numpy_are_numbers() -> None:
    assert (
        accepts(check_count, np.int64(3)) and accepts(check_odd, np.int32(3)) and accepts(check_number, np.float32(0.5))
    )
    assert not accepts(check_number, np.bool_(True)) and not accepts(check_number, np.float64("nan"))


@settings(deadline=None)
@given(st.lists(st.integers(-2, 3)), st.none() | st.integers(0, 4))
def test_the_first_item_at_fault_is_named(items: list[int], length: int | None) -> None:
    wrong = [i for i, item in enumerate(items) if item < 1]
    if length is not None and len(items) != length:
        expected = "sizes"
    elif wrong:
        expected = f"sizes[{wrong[0]}]"
    else:
        assert check_each("sizes", tuple(items), check_count, length=length) == items
        return
    with pytest.raises(ArgumentError) as caught:
        check_each("sizes", items, check_count, length=length)
    assert caught.value.argument == expected


@pytest.mark.parametrize("found", [3, None, "abc", b"abc", {"a": 1}])
def test_what_is_no_list_is_refused(found: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^sizes: expected a list, found "):
        check_each("sizes", found, check_count)


def test_messages_name_all_bounds() -> None:
    with pytest.raises(ArgumentError, match=r"^share: expected a number above 0 and of at most 1, found 7$"):
        check_number("share", 7, above=0, at_most=1)
    with pytest.raises(ArgumentError, match=r"^beta: expected a number that is finite, found nan$"):
        check_number("beta", math.nan)


def test_items_keep_their_index_under_the_name_of_the_caller() -> None:
    names = keys_of("MODEL.RPN", sizes="MODEL.ANCHORS.SIZES", **{"topk[1]": "MODEL.RPN.TOPK_TEST"})
    for argument, expected in (
        ("sizes[0][1]", "MODEL.ANCHORS.SIZES[0][1]"),
        ("conv_dims[2]", "MODEL.RPN.CONV_DIMS[2]"),
        ("topk[0]", "MODEL.RPN.TOPK[0]"),
        ("topk[1]", "MODEL.RPN.TOPK_TEST"),
        ("MODEL.X.SIZES[0]", "MODEL.X.SIZES[0]"),
    ):
        with pytest.raises(ArgumentError) as caught, argument_names(names):
            raise ArgumentError(argument, "too small")
        assert caught.value.argument == expected
    with pytest.raises(ArgumentError, match=r"^SIZES\[3\]: too small"), argument_names({"sizes": "SIZES"}):
        raise ArgumentError("sizes[3]", "too small")
