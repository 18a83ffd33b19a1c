"""The first look at a command's words."""

import pytest

from distil.cli.flags import scan

SEVERAL = {"--scale": 2, "--losses": None}


@pytest.mark.parametrize(
    ("words", "positional", "values"),
    [
        ("a --lr 1 b --fast c", ["a", "b", "c"], {"--lr": "1", "--fast": ""}),
        ("--check_points=3 a", ["a"], {"--check-points": "3"}),
        ("--seed -1 a --lr", ["a"], {"--seed": "-1", "--lr": ""}),
        ("--scale 0.8 1.2 a b", ["a", "b"], {"--scale": "0.8"}),
        ("--scale=0.8 1.2 a b", ["a", "b"], {"--scale": "0.8"}),
        ("--losses x y --lr 1 a b", ["a", "b"], {"--losses": "x", "--lr": "1"}),
        ("--losses x y a b", ["a", "b"], {"--losses": "x"}),
        ("a --losses x y b", ["a", "b"], {"--losses": "x"}),
        ("a b --losses x y", ["a", "b"], {"--losses": "x"}),
        ("a b --losses", ["a", "b"], {"--losses": ""}),
    ],
)
def test_positional_words_and_values_are_told_apart(words, positional, values):
    assert scan(words.split(), {"--fast"}, SEVERAL, wanted=2) == (positional, values)
