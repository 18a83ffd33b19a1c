"""The one exception."""

from distil.errors import LONGEST, DistilError


def test_an_endless_message_keeps_its_beginning_and_its_remedy():
    message = str(DistilError(f"names.json: the name {'x' * 100_000!r} is too long. Shorten it."))
    assert message.startswith("names.json: the name 'xxx")
    assert message.endswith("is too long. Shorten it.")
    assert len(message) < LONGEST + 10


def test_a_message_is_kept_as_it_is():
    assert str(DistilError("cat.png is missing.")) == "cat.png is missing."
    assert str(DistilError()) == ""
