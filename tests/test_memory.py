"""Freed memory is kept inside the block, given back after it, and changes no result."""

import ctypes
import json
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from distil import memory
from distil.memory import free_memory, freed_memory_kept

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


def test_the_block_ends_on_an_error_and_only_the_outermost_gives_back(monkeypatch):
    calls = []
    glibc = SimpleNamespace(
        gnu_get_libc_version=None,
        mallopt=lambda name, value: calls.append((name, value)) or 1,
        malloc_trim=lambda keep: calls.append("trimmed"),
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: glibc)
    monkeypatch.setattr(sys, "platform", "linux")
    with freed_memory_kept() as took:
        assert took
        with pytest.raises(KeyError), freed_memory_kept():
            raise KeyError
        assert calls == list(memory.KEPT.items())
    assert calls == [*memory.KEPT.items(), *memory.DEFAULTS.items(), "trimmed"]


def test_what_is_free_is_less_than_the_machine_has():
    free = free_memory("cpu")
    assert free is not None
    assert 0 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_control_group_and_those_above_it_limit_what_is_free(tmp_path):
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("50\n")
    (inner.parent / "memory.max").write_text("1000\n")
    (inner.parent / "memory.current").write_text("700\n")
    (inner.parent / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert list(memory.left_in_group(tmp_path, "/job/step")) == [500]
    assert list(memory.left_in_group(tmp_path, "/elsewhere")) == []
    (tmp_path / "memory.limit_in_bytes").write_text("900")
    (tmp_path / "memory.usage_in_bytes").write_text("800")
    assert min(memory.left_in_group(tmp_path, "/job/step")) == 100


def test_the_smallest_limit_counts(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 300)
    monkeypatch.setattr(memory, "left_in_groups", lambda: iter([500, 200]))
    assert free_memory() == 200
    monkeypatch.setattr(memory, "left_in_groups", lambda: iter([]))
    assert free_memory() == 300
    monkeypatch.setattr(memory, "available", lambda: None)
    assert free_memory() is None
