"""The one exception."""

import pickle

import pytest

from distil import open_source
from distil.cli.flags import flag_of
from distil.cli.main import main
from distil.errors import LONGEST, DistilError


def test_an_endless_message_keeps_its_beginning_and_its_remedy():
    message = str(DistilError(f"names.json: the name {'x' * 100_000!r} is too long. Shorten it."))
    assert message.startswith("names.json: the name 'xxx")
    assert message.endswith("is too long. Shorten it.")
    assert len(message) < LONGEST + 10


def test_a_message_is_kept_as_it_is():
    assert str(DistilError("cat.png is missing.")) == "cat.png is missing."
    assert str(DistilError()) == ""


def test_a_field_is_called_by_its_name_in_python_and_by_its_flag_on_the_command_line():
    error = DistilError("{fix_boxes} is off: give {fix_boxes=True} or {size=64}.", field=("fix_boxes", "size"))
    assert str(error) == "fix_boxes is off: give fix_boxes=True or size=64."
    assert error.told(flag_of) == "--fix-boxes is off: give --fix-boxes or --size 64."
    assert error.fields == ("fix_boxes", "size")


def test_only_the_fields_of_an_error_are_references():
    error = DistilError("{size} is 0 for the class '{root}'.", field="size")
    assert error.told(flag_of) == "--size is 0 for the class '{root}'."
    assert str(DistilError("the class '{root}' is empty.")) == "the class '{root}' is empty."


def test_a_backslash_in_a_value_is_kept():
    error = DistilError(r"Give {out=C:\1\g<0>}.", field="out")
    assert str(error) == r"Give out=C:\1\g<0>."


def test_words_around_an_error_keep_its_fields():
    error = DistilError("cannot write {out}.", field="out").within("here: ", " Or give {json}.", field="json")
    assert (str(error), error.told(flag_of)) == (
        "here: cannot write out. Or give json.",
        "here: cannot write --out. Or give --json.",
    )
    assert error.fields == ("out", "json")


def test_an_error_from_another_process_keeps_its_fields():
    error = pickle.loads(pickle.dumps(DistilError("{size} is 0.", field="size")))
    assert (str(error), error.told(flag_of)) == ("size is 0.", "--size is 0.")


def test_the_command_line_names_the_flag_where_the_library_names_the_field(capsys):
    with pytest.raises(DistilError) as caught:
        open_source("digits", size=0)
    assert str(caught.value) == "size is 0: give the side of the images in pixels, 1 or more."
    assert main(["evaluate", "whole", "digits", "--size", "0"]) == 2
    told = "distil: --size is 0: give the side of the images in pixels, 1 or more.\n"
    assert capsys.readouterr().err.endswith(told)
