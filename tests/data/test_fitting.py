import pytest

from distil.data import fitting as module
from distil.data.fitting import check_fits, in_bytes
from distil.errors import DistilError


def test_what_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 5000 * 1024)
    check_fits(5000 * 1024, "the images need", "Take fewer.")
    with pytest.raises(DistilError) as caught:
        check_fits(12_345_678_901, "the images need", "Take fewer.")
    assert str(caught.value) == "the images need 12.3 GB of memory, and 5.1 MB are available. Take fewer."


def test_what_the_system_does_not_tell_is_tried(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: None)
    check_fits(1 << 60, "the images need", "Take fewer.")


def test_counts_of_bytes_for_a_reader():
    assert [in_bytes(count) for count in (999, 1_500_000, 2 * 10**12)] == ["999 bytes", "1.5 MB", "2.0 TB"]
