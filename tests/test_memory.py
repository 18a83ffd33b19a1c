"""Freed memory is kept inside the block, given back after it, and changes no result."""

import json
import os
import platform
import subprocess
import sys

import pytest

from distil.memory import freed_memory_kept

MEASURE = """
import json, resource
import torch
from distil.memory import freed_memory_kept


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def faults_of_a_large_block():
    fewest = 1 << 62
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(40 << 20, dtype=torch.uint8)
        fewest = min(fewest, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return fewest


found = {"without": faults_of_a_large_block(), "start": resident()}
with freed_memory_kept() as took:
    with freed_memory_kept():
        blocks = [torch.ones(16 << 20, dtype=torch.uint8) for _ in range(8)]
        del blocks
    found |= {"took": took, "held": resident(), "within": faults_of_a_large_block()}
found |= {"end": resident()}
print(json.dumps(found))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or "LD_PRELOAD" in os.environ, reason="needs glibc's allocator")
def test_large_blocks_stay_inside_the_outermost_block_and_go_back_after_it():
    """In a process of its own: the free memory of a long-lived one would serve the blocks anyway."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["took"]
    assert found["within"] < 100
    assert found["without"] > 5000
    assert found["held"] - found["start"] > 100 << 20
    assert found["end"] - found["start"] < 40 << 20


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept() as took:
        assert not took


def test_the_block_ends_on_an_error():
    import distil.memory

    with pytest.raises(KeyError), freed_memory_kept():
        raise KeyError
    assert distil.memory._depth == 0
