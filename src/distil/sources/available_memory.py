"""How much memory there is for images, asked before they are read."""

import os
from pathlib import Path

from distil.errors import DistilError

MEMORY_INFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that this process can still take without swapping; None where the system does not say.

    Linux: what the kernel counts as available, and no more than the container's limit leaves. Elsewhere: the machine's
    memory.
    """
    known = [amount for amount in (_memory_available(), _left_in_cgroup()) if amount is not None]
    if known:
        return min(known)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def check_fits(needed: int, what: str, remedy: str) -> None:
    """Raises: DistilError if `needed` bytes are more than there are. what: plural or singular with its verb, as "the
    images of photos need"; remedy: a whole sentence."""
    available = available_memory()
    if available is not None and needed > available:
        raise DistilError(f"{what} {in_bytes(needed)} of memory, and {in_bytes(available)} are available. {remedy}")


def in_bytes(count: int) -> str:
    """A count of bytes for a reader: "1.4 GB", "12.0 MB" or "812 bytes"."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,} bytes"


def _memory_available() -> int | None:
    return _field(MEMORY_INFO, "MemAvailable:", 1024)


def _left_in_cgroup() -> int | None:
    """What a container's limit leaves; the files that it caches can be dropped, so they do not count."""
    for folder, limit, used, cached in (
        (CGROUP, "memory.max", "memory.current", "inactive_file"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            free = int((folder / limit).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return max(0, free + (_field(folder / "memory.stat", cached, 1) or 0))
    return None


def _field(file: Path, name: str, unit: int) -> int | None:
    try:
        return next(int(line.split()[1]) * unit for line in file.read_text().splitlines() if line.split()[0] == name)
    except (OSError, ValueError, IndexError, StopIteration):
        return None
