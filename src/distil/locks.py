"""One writer a folder, and one at a time a file: locks that die with their process."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from distil.errors import DistilError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
WAITED = 60.0
"""Seconds after which a file that others keep writing is given up."""
TRIES = 20
"""Times that a folder is made which others keep removing."""

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
    folder = Path(folder)

    def refuse(holder: str) -> None:
        raise DistilError(
            f"another run is writing to {folder}{f' ({holder})' if holder else ''}: wait until it ends, stop it, or "
            "choose another folder."
        )

    with _counted(key), _locked(folder / LOCK, folder, refuse, "another place ({out})", "out"):
        yield


@contextlib.contextmanager
def one_at_a_time(path: Path | str, *, seconds: float = WAITED) -> Iterator[None]:
    """Within the block no other process or thread can enter it for the same file: to read, change and write it.

    Waits its turn. The lock is the system's (flock) on .NAME.lock beside the file, which is removed afterwards. On a
    system or file system without locks this does nothing.

    Raises: DistilError that names the file, after `seconds`; or if its folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = Path(path)
    until = time.monotonic() + seconds

    def wait(holder: str) -> None:
        if time.monotonic() > until:
            raise DistilError(
                f"cannot write {path}: another process{f' ({holder})' if holder else ''} has been writing it for "
                f"{seconds:.0f} seconds. Stop it, or choose another place."
            )
        time.sleep(0.05)

    with _locked(path.with_name(f".{path.name}{LOCK}"), path, wait, "another place"):
        yield


@contextlib.contextmanager
def _counted(key: tuple[str, int]) -> Iterator[None]:
    _held[key] = _held.get(key, 0) + 1
    try:
        yield
    finally:
        _held[key] -= 1
        if not _held[key]:
            del _held[key]


@contextlib.contextmanager
def _locked(path: Path, target: Path, taken: Callable[[str], None], instead: str, field: str = "") -> Iterator[None]:
    """Hold the lock of a lock file, which is made and in the end removed; so are folders made for it that stay empty.

    target: what is locked, for the error if the lock file cannot be made, and `instead` for its remedy, which
    refers to `field`. taken: called with what is known of the holder as often as another holds the lock; returns to try
    again.
    """
    path = path.parent.resolve() / path.name  # so that it is found again from another working folder
    made = [folder for folder in path.parents if not folder.exists()]
    descriptor = _acquired(path, target, taken, instead, field)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)
        with contextlib.suppress(OSError):  # those that are not empty stay
            for folder in made:
                folder.rmdir()


def _acquired(path: Path, target: Path, taken: Callable[[str], None], instead: str, field: str) -> int | None:
    """The descriptor of the locked file; None where there are no locks."""
    assert fcntl is not None
    tries = 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            tries += 1
            if isinstance(error, FileNotFoundError) and tries < TRIES:
                continue  # another process has just removed the folder that it had made
            raise DistilError(
                f"cannot write {target}: {error.strerror or error}. Free space there, or choose {instead}.",
                field=field or (),
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            taken(holder)
            continue
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if os.fstat(descriptor).st_nlink:  # 0: the holder of before has just removed it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return descriptor
        os.close(descriptor)
