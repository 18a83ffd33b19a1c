import pytest

from distil.errors import DistilError
from distil.sources import available_memory as module
from distil.sources.available_memory import available_memory, check_fits, in_bytes


@pytest.fixture
def system(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(module, "CGROUP", tmp_path / "cgroup")
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def test_the_kernel_says_what_is_available(system):
    assert available_memory() == 5000 * 1024


def test_a_container_may_leave_less(system):
    (system / "cgroup" / "memory.max").write_text("max\n")
    (system / "cgroup" / "memory.current").write_text("900000\n")
    assert available_memory() == 5000 * 1024
    (system / "cgroup" / "memory.max").write_text("1000000\n")
    assert available_memory() == 100_000
    (system / "cgroup" / "memory.stat").write_text("anon 5\ninactive_file 40000\n")
    assert available_memory() == 140_000


def test_without_either_the_machine_is_asked(system):
    (system / "meminfo").unlink()
    found = available_memory()
    assert found is None or found > 1 << 20


def test_what_does_not_fit_is_refused(system):
    check_fits(5000 * 1024, "the images need", "Take fewer.")
    with pytest.raises(DistilError) as caught:
        check_fits(12_345_678_901, "the images need", "Take fewer.")
    assert str(caught.value) == "the images need 12.3 GB of memory, and 5.1 MB are available. Take fewer."


def test_counts_of_bytes_for_a_reader():
    assert [in_bytes(count) for count in (999, 1_500_000, 2 * 10**12)] == ["999 bytes", "1.5 MB", "2.0 TB"]
