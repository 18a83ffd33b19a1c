"""Memory of the machine: how much is free, and freed memory kept while a computation runs on the CPU."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
DEFAULTS = {M_MMAP_MAX: 65536, M_TOP_PAD: 128 << 10, M_TRIM_THRESHOLD: 128 << 10, M_MMAP_THRESHOLD: 32 << 20}
KEPT = {M_MMAP_MAX: 0, M_TOP_PAD: 64 << 20, M_TRIM_THRESHOLD: -1}

LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Files of a control group, of version 2 and 1: its limit in bytes, and what it uses."""

_depth = 0


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Within the block, memory that tensors free stays with the process; yields whether the allocator took it.

    glibc hands every large block back to the system when it is freed, and the system clears the pages of the next one:
    with activations of tens of megabytes, allocated and freed layer by layer, that takes about as long as the
    arithmetic (docs/results/speed.md). Results do not change by a bit. The process keeps the most that it held at any
    time; at the end of the outermost block the unused part goes back to the system. The setting is the whole process's,
    so the command line enters this and no function of the library does: a program of one's own may. Without glibc
    (macOS, Windows, musl) or under another allocator this does nothing.
    """
    global _depth
    libc = _glibc()
    took = libc is not None and (_depth > 0 or all(libc.mallopt(name, value) for name, value in KEPT.items()))
    _depth += 1
    try:
        yield took
    finally:
        _depth -= 1
        if libc is not None and _depth == 0:
            for name, value in DEFAULTS.items():
                libc.mallopt(name, value)
            libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def free_memory(device: str = "cpu") -> int | None:
    """Bytes that this process can still take on a device; None where that cannot be told.

    On the CPU: what the system can give without swapping, and not more than what its control groups (containers, jobs
    of a scheduler) still allow. On a CUDA device what the driver has and torch holds unused.
    """
    if device.partition(":")[0] == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    known = [size for size in (available(), *left_in_groups()) if size is not None]
    return max(0, min(known)) if known else None


def available() -> int | None:
    """Bytes that the system can give without swapping; None where it does not tell."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def left_in_groups() -> Iterator[int]:
    """What each control group of this process that has a limit still allows; files that it caches can be dropped."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory") or "memory" in controllers.split(","):
                yield from left_in_group(Path("/sys/fs/cgroup") / ("memory" if controllers else ""), path)


def left_in_group(root: Path, path: str) -> Iterator[int]:
    """What a control group and those above it still allow, in bytes, of those that have a limit.

    root: where control groups are mounted. path: of the group, as /proc/self/cgroup tells it.
    """
    group = root / path.lstrip("/")
    for folder in (group, *(above for above in group.parents if above.is_relative_to(root))):
        for limit, used in LIMITS:
            with suppress(OSError, ValueError):  # "max" is no number: no limit
                most, taken = (int((folder / name).read_text()) for name in (limit, used))
                yield most - taken + _cached(folder / "memory.stat")


def _cached(path: Path) -> int:
    with suppress(OSError, ValueError):
        rows = dict(line.split() for line in path.read_text().splitlines())
        return int(rows.get("inactive_file", rows.get("total_inactive_file", 0)))
    return 0
