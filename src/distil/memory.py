"""Freed memory kept for the next allocation, for as long as a computation runs on the CPU."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
DEFAULTS = {M_MMAP_MAX: 65536, M_TOP_PAD: 128 << 10, M_TRIM_THRESHOLD: 128 << 10, M_MMAP_THRESHOLD: 32 << 20}
KEPT = {M_MMAP_MAX: 0, M_TOP_PAD: 64 << 20, M_TRIM_THRESHOLD: -1}

_depth = 0


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Within the block, memory that tensors free stays with the process; yields whether the allocator took it.

    glibc hands every large block back to the system when it is freed, and the system clears the pages of the next one:
    with activations of tens of megabytes, allocated and freed layer by layer, that takes about as long as the
    arithmetic (docs/speed.md). Results do not change by a bit. The process keeps the most that it held at any time;
    at the end of the outermost block the unused part goes back to the system. Without glibc (macOS, Windows, musl) or
    under another allocator this does nothing.
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
