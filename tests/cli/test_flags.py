"""The first look at a command's words."""

import pytest

from distil.cli.flags import scan

SEVERAL = {"--scale": 2, "--arms": None}


@pytest.mark.parametrize(
    ("words", "positional", "values"),
    [
        ("a --lr 1 b --fast c", ["a", "b", "c"], {"--lr": "1", "--fast": ""}),
        ("--check_points=3 a", ["a"], {"--check-points": "3"}),
        ("--seed -1 a --lr", ["a"], {"--seed": "-1", "--lr": ""}),
        ("--scale 0.8 1.2 a b", ["a", "b"], {"--scale": "0.8"}),
        ("--scale=0.8 1.2 a b", ["a", "b"], {"--scale": "0.8"}),
        ("--arms x y --lr 1 a b", ["a", "b"], {"--arms": "x", "--lr": "1"}),
        ("--arms x y a b", ["a", "b"], {"--arms": "x"}),
        ("a --arms x y b", ["a", "b"], {"--arms": "x"}),
        ("a b --arms x y", ["a", "b"], {"--arms": "x"}),
        ("a b --arms", ["a", "b"], {"--arms": ""}),
    ],
)
def test_positional_words_and_values_are_told_apart(words, positional, values):
    assert scan(words.split(), {"--fast"}, SEVERAL, wanted=2) == (positional, values)
