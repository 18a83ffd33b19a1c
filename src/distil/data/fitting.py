"""What does not fit in memory is refused before it is read."""

from distil.errors import DistilError
from distil.memory import free_memory


def check_fits(needed: int, what: str, remedy: str, field: str = "") -> None:
    """Raises: DistilError if `needed` bytes are more than there are. what: plural or singular with its verb, as "the
    images of photos need"; remedy: a whole sentence. field: the
    argument that the remedy refers to."""
    available = free_memory()
    if available is not None and needed > available:
        told = f"{what} {in_bytes(needed)} of memory, and {in_bytes(available)} are available. {remedy}"
        raise DistilError(told, field=field or ())


def in_bytes(count: int) -> str:
    """A count of bytes for a reader: "1.4 GB", "12.0 MB" or "812 bytes"."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,} bytes"
