"""evaluate: the score of a distilled set, in one call."""

from dataclasses import replace
from typing import Any

import pytest

import distil
from distil import DistilError, evaluate, open_source, protocol_for
from distil.data.images.image_set import Source

from .conftest import distilled_set, image_set

SMALL: Any = {"width": 8, "runs": 2}


@pytest.fixture
def quick():
    return replace(protocol_for("quick", "custom"), max_updates=3)


def test_the_public_name_is_the_function():
    assert callable(distil.evaluate)
    assert distil.evaluate is evaluate


def test_a_set_and_its_file_get_the_score_that_evaluate_distilled_gives(tmp_path, quick):
    made, test = distilled_set(), image_set()
    made.save(tmp_path / "set.safetensors")
    expected = distil.evaluate_distilled(made, test, quick, **SMALL)
    source = Source(train=test, test=test, name="stripes", key="custom")
    assert evaluate(made, test, quick, **SMALL).accuracies == expected.accuracies
    assert evaluate(tmp_path / "set.safetensors", source, quick, **SMALL).accuracies == expected.accuracies


def test_a_name_becomes_the_protocol_of_the_test_images():
    digits = open_source("digits")
    made = distil.distil_dataset(digits, "random", ipc=1)
    scores = evaluate(made, "digits", "quick", width=8, runs=1)
    assert scores.protocol == protocol_for("quick", "digits")
    assert scores.test_images == 500


def test_a_source_without_test_images_is_refused(quick):
    source = Source(train=image_set(), test=None, name="stripes", key="custom")
    with pytest.raises(DistilError, match=r"^stripes has no test images to evaluate on: give a source that has a test"):
        evaluate(distilled_set(), source, quick)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(DistilError, match=r"^unknown protocol 'quik'\. Did you mean quick\? Choose from idc"):
        evaluate(distilled_set(), image_set(), "quik")
