"""Tests of the exceptions for user mistakes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from sn2fpn.errors import (
    ArgumentError,
    UserError,
    argument_names,
    check_choice,
    counted,
    counted_of,
    did_you_mean,
    keys_of,
    nearby_files,
)


def test_an_argument_error_names_the_argument_until_a_caller_knows_a_better_name() -> None:
    with pytest.raises(UserError, match=r"^alpha: expected a positive number, found -1$"):
        raise ArgumentError("alpha", "expected a positive number, found -1")
    with (
        pytest.raises(ArgumentError, match=r"^MODEL\.SNI\.ALPHA: too small$") as caught,
        argument_names({"alpha": "MODEL.SNI.ALPHA"}),
    ):
        raise ArgumentError("alpha", "too small")
    assert caught.value.argument == "MODEL.SNI.ALPHA"


def test_names_that_are_not_in_the_mapping_stay() -> None:
    with pytest.raises(ArgumentError, match=r"^alpha: too small$"), argument_names({"order": "MODEL.SNI.ORDER"}):
        raise ArgumentError("alpha", "too small")


def test_keys_of_a_group_do_not_touch_names_that_are_keys_or_flags_already() -> None:
    key = keys_of("MODEL.RPN", labels="MODEL.RPN.IOU_LABELS")
    for argument, expected in (
        ("conv_dims", "MODEL.RPN.CONV_DIMS"),
        ("labels", "MODEL.RPN.IOU_LABELS"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.SIZES"),
        ("--weights", "--weights"),
    ):
        with pytest.raises(ArgumentError) as caught, argument_names(key):
            raise ArgumentError(argument, "too small")
        assert caught.value.argument == expected


def test_numbers_go_with_their_words() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "class has", "classes have") for n in (1, 2)] == ["1 class has", "2 classes have"]
    assert counted_of(1, 1, "image", "is/are") == "1 of 1 image is"
    assert counted_of(0, 2, "class/classes", "has/have") == "0 of 2 classes have"


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(UserError, match=r"^file.json is empty$"), argument_names({"alpha": "MODEL.SNI.ALPHA"}):
        raise UserError("file.json is empty")


def test_an_argument_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ArgumentError("alpha", "too small")))
    assert (str(error), error.argument, error.problem) == ("alpha: too small", "alpha", "too small")


def test_check_choice_suggests_the_nearest_choice() -> None:
    assert check_choice("order", "pass_sum", ("pass_sum", "pass_smoothed")) == "pass_sum"
    with pytest.raises(ArgumentError, match=r"^order: unknown value 'pass_sun'; did you mean 'pass_sum'\?$"):
        check_choice("order", "pass_sun", ("pass_sum", "pass_smoothed"))


def test_did_you_mean_lists_a_few_choices_when_none_is_close() -> None:
    assert did_you_mean("x", "abcdefghij", limit=2) == "; choose from: a, b, … (10 in all)"
    assert did_you_mean("19", ["101", "18", "34"], limit=3) == "; choose from: 18, 34, 101"  # in the order of numbers
    assert did_you_mean("x", []) == ""


def test_of_choices_that_are_equally_close_the_one_with_the_same_beginning_is_suggested() -> None:
    for found, near in (("AP51", "AP50"), ("AP74", "AP75"), ("ap5", "AP50")):
        assert did_you_mean(found, ["AP", "AP50", "AP75", "APs"]) == f"; did you mean {near!r}?"


def test_a_gpu_is_called_cuda() -> None:
    for found in ("gpu", "GPU:0", "cudda"):
        assert did_you_mean(found, ("cpu", "cuda")) == "; did you mean 'cuda'?"
    assert did_you_mean("gpu", ("cpu", "gpus")) == "; did you mean 'gpus'?"


def test_files_of_the_whole_machine_are_no_suggestions() -> None:
    assert nearby_files(Path("/no/such/folder/x.json"), "*.json") == ""
