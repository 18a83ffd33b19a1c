"""Names, means, spreads and seeds that files and Python objects may have."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distil.checks import check_class_names, check_seed, check_statistics, check_text, is_finite, is_integer, shown
from distil.dataset.config import Selection
from distil.dataset.distil import distil_dataset
from distil.errors import DistilError

from .dataset.conftest import make_images


@pytest.mark.parametrize("names", [["a"], ("cat", "dog"), ["été", "日本", "नमस्ते", "👩‍👩‍👧", "a b", "x/y", "<b>"]])
def test_names_that_can_be_shown(names):
    assert check_class_names(names) == tuple(names)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00", "\x9b31m", "\ud800", "a\u202eb", "a\u2028b", "b" * 1001])
def test_names_that_cannot(name):
    with pytest.raises(DistilError, match="class 1 has "):
        check_class_names(["a", name])


def test_a_name_given_twice_is_named():
    with pytest.raises(DistilError, match="the class name 'a' is given twice"):
        check_class_names(["a", "b", "a"])
    assert check_class_names(["N/A", "b", "N/A"], repeatable=("N/A",)) == ("N/A", "b", "N/A")


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor, lambda x: np.array(x, "f4"), lambda x: x * 1])
def test_statistics_of_any_kind_become_floats(make):
    assert check_statistics(make([0.5, -1.0]), make([0.25, 2.0]), 2) == ((0.5, -1.0), (0.25, 2.0))


def test_a_value_is_shown_on_one_short_line():
    assert shown("a\nb\x1b\ud800") == "'a\\nb\\x1b\\ud800'"
    assert shown(10**5000) == "a number of thousands of digits"
    assert len(shown("x" * 10**6)) < 210
    deep: list = []
    for _ in range(10**5):
        deep = [deep]
    assert shown(deep) == "a value that is nested too deeply"
    while deep:  # so that freeing it does not recurse either
        deep = deep.pop()


def test_numbers():
    assert is_integer(np.int64(3))
    assert not is_integer(True)
    assert not is_integer(3.0)
    assert is_finite(np.float32(0.5))
    assert not any(map(is_finite, (float("nan"), float("inf"), 10**400, "1", None, False)))
    assert check_seed(-3) == -3
    with pytest.raises(DistilError, match="--seed is 9223372036854775808: give a number of at most 63 bits"):
        check_seed(2**63, "--seed")
    with pytest.raises(DistilError, match="method is 5: it must be text"):
        check_text(5, "method")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a", "b\n", "c")}, r"class 1 has the name 'b\\n'"),
        ({"name": "my\x1bimages"}, "the name of the images is .*cannot be printed"),
    ],
)
def test_images_that_no_file_could_describe_are_refused_before_the_first_step(changes, message):
    events = []
    with pytest.raises(DistilError, match=message):
        distil_dataset(
            replace(make_images(), **changes), Selection(), events=lambda name, **fields: events.append(name)
        )
    assert events == []
