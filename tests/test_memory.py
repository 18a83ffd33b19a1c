"""Freed memory is kept inside the block, given back after it, and changes no result."""

import sys

import pytest
import torch

from distil.memory import freed_memory_kept

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def page_faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def faults_of_a_large_block(times: int) -> int:
    """Fewest page faults that one of several large blocks, each freed before the next, takes."""
    fewest = 1 << 62
    for _ in range(times):
        before = page_faults()
        torch.ones(40 << 20, dtype=torch.uint8)
        fewest = min(fewest, page_faults() - before)
    return fewest


@LINUX
def test_a_large_block_is_not_fetched_from_the_system_again():
    with freed_memory_kept() as took:
        if not took:
            pytest.skip("another allocator is in use")
        assert faults_of_a_large_block(8) < 100
    assert faults_of_a_large_block(8) > 5000


@LINUX
def test_memory_goes_back_at_the_end_of_the_outermost_block():
    start = resident()
    with freed_memory_kept() as took:
        if not took:
            pytest.skip("another allocator is in use")
        with freed_memory_kept():
            blocks = [torch.ones(16 << 20, dtype=torch.uint8) for _ in range(8)]
            del blocks
        held = resident()
    assert held - start > 100 << 20
    assert resident() - start < 40 << 20


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept() as took:
        assert not took


def test_the_block_ends_on_an_error():
    import distil.memory

    with pytest.raises(KeyError), freed_memory_kept():
        raise KeyError
    assert distil.memory._depth == 0
