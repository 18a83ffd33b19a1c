"""One writer a folder: a lock that dies with its process."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from distil.errors import DistilError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"

_held: dict[tuple[str, int], int] = {}
"""How often this process's threads hold each folder; a lock of one thread may be taken again by it."""


@contextlib.contextmanager
def only_writer(folder: Path | str) -> Iterator[None]:
    """Within the block no other process or thread can enter it for the same folder, which is made if need be.

    The lock is the system's (flock) on FOLDER/.lock and goes with the process, however that ends. The thread that holds
    it may enter again. On a system or file system without locks this does nothing.

    Raises: DistilError that names the other process, when there is one; or if the folder cannot be written.
    """
    key = (os.path.realpath(folder), threading.get_ident())
    if fcntl is None or _held.get(key):
        with _counted(key):
            yield
        return
    path = Path(folder) / LOCK
    descriptor = _locked(path)
    try:
        with _counted(key):
            yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


@contextlib.contextmanager
def _counted(key: tuple[str, int]) -> Iterator[None]:
    _held[key] = _held.get(key, 0) + 1
    try:
        yield
    finally:
        _held[key] -= 1
        if not _held[key]:
            del _held[key]


def _locked(path: Path) -> int | None:
    """The descriptor of the locked file; None where there are no locks."""
    assert fcntl is not None
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise DistilError(
                f"cannot write {path.parent}: {error.strerror or error}. Choose another folder with --out."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise DistilError(
                f"another run is writing to {path.parent}{f' ({holder})' if holder else ''}: wait until it ends, stop "
                "it, or choose another folder."
            ) from error
        except OSError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:  # 0: the holder of before has just removed it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return descriptor
        os.close(descriptor)
