"""Files that are whole or not there: atomic writes, tensors with a header and a checksum, JSON. Nothing is pickled."""

import contextlib
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distil.errors import DistilError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

DEEPEST = 64
"""Levels of a JSON text, one object or list within another; what distil writes has fewer than ten."""
PART = ".part"
"""How the names of unfinished files end."""
CHECKSUM = "sha256:"
"""How the header's "checksum" begins."""
UNREADABLE = (OSError, ValueError, RuntimeError, TypeError)
"""What reading a damaged safetensors file raises."""


def write_atomic(path: Path | str, write: Callable[[Path], object], *, previous: Path | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place: readers see the old file or the new.

    The temporary file has a name that cannot be guessed and is new, so that no link is followed. A file that is
    replaced keeps its permissions. File and folder are on the disk when this returns. Unfinished files that a dead
    process left for the same path are removed.

    previous: where the file that is replaced is kept.

    Raises: DistilError that names the path, when the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path.parent, path.name)
        temporary, descriptor = _new_temporary(path)
        try:
            write(temporary)
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            if previous is not None and path.exists():
                _keep(path, previous)
            os.replace(temporary, path)
        finally:
            if descriptor is not None:
                os.close(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        raise DistilError(
            f"cannot write {path}: {error.strerror or error}. Free space there, or choose another place; what was "
            "saved before is untouched."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove the unfinished files of dead processes from a folder; a living process holds a lock on its files.

    name: of the file that they were to become; "" for all.
    """
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if (
                entry.name.endswith(PART)
                and entry.name.startswith(f".{name}." if name else ".")
                and entry.is_file(follow_symlinks=False)
            ):
                _remove_if_dead(entry.path)


def _remove_if_dead(path: str) -> None:
    assert fcntl is not None
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(descriptor)


def _new_temporary(path: Path) -> tuple[Path, int | None]:
    """A new empty file beside `path`, and the descriptor that holds its lock, if there are locks."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if fcntl is None:
            os.close(descriptor)
            return temporary, None
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # 0: removed as unfinished before it was locked
            return temporary, descriptor
        os.close(descriptor)


def _keep(path: Path, previous: Path) -> None:
    """Make `previous` the file that `path` is now, without a moment in which neither is there."""
    if previous.exists() and previous.samefile(path):  # a process died between this and the move
        return
    link = previous.with_name(f".{previous.name}.{secrets.token_hex(8)}{PART}")
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        os.replace(path, previous)
        return
    os.replace(link, previous)


def sync_folder(folder: Path) -> None:
    """Make a rename last; where folders cannot be synced (Windows, some network file systems) this does nothing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder beside `path`, to be filled and moved there; what is left of it is removed after the block.

    Its name cannot be guessed. Those that dead processes left for the same path are removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 16}{PART}"):
        if other.is_dir() and not other.is_symlink():
            _remove_folder_if_dead(other)
    folder = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART}")
    folder.mkdir()
    descriptor = None if fcntl is None else os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None and descriptor is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _remove_folder_if_dead(folder: Path) -> None:
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def save_tensors(
    path: Path | str, tensors: Mapping[str, Any], header: Mapping[str, Any], *, previous: Path | None = None
) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically. Equal content gives equal bytes.

    The header is kept under the metadata key "distil". Its entry "checksum" is added here: a SHA-256 of the header and
    of all tensors (names, types, shapes and values), which load_tensors checks.

    tensors: name -> torch tensor, on any device. header: what JSON can hold. previous: see write_atomic.
    Raises: DistilError as write_atomic does, and if JSON cannot hold the header.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        text = _canonical({**header, "checksum": checksum(plain, header)})
    except (TypeError, ValueError, RecursionError) as error:
        raise DistilError(f"cannot write {path}: its header is not what JSON can hold ({error}).") from error
    data = save(plain, metadata={"distil": text})  # one entry: the order of several is not fixed
    write_atomic(path, lambda temporary: temporary.write_bytes(data), previous=previous)


def checksum(tensors: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    """CHECKSUM and the SHA-256 in hexadecimal of a header and of tensors on the CPU."""
    import torch

    digest = hashlib.sha256(_canonical(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return CHECKSUM + digest.hexdigest()


def _canonical(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, allow_nan=False)


def load_tensors(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what save_tensors wrote: tensors that own their memory, and the header. Files of before have no checksum.

    Raises: DistilError that names the file when it is missing, a folder, truncated, not one of ours, or when a bit of
        it has changed since it was written.
    """
    path = Path(path)
    if not path.is_file():
        raise DistilError(
            f"{path} is a folder: give a file." if path.is_dir() else f"no such file: {path}. Check the path."
        )
    try:
        tensors, metadata = read_safetensors(path)
    except UNREADABLE as error:
        raise DistilError(
            f"{path} is not a whole safetensors file ({error}). It is corrupt or was cut short: make it again."
        ) from error
    if "distil" not in metadata:
        raise DistilError(f"{path} is a safetensors file, but distil did not write it: its header is missing.")
    header, _ = checked_header(tensors, metadata["distil"], path)
    return tensors, header


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of a safetensors file, which own their memory, and its metadata. Raises: one of UNREADABLE."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name).clone() for name in file.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def checked_header(tensors: Mapping[str, Any], text: str, path: Path) -> tuple[dict[str, Any], bool]:
    """The header that a file's "distil" entry holds, and whether it has a checksum; if so, it is that of the content.

    Raises: DistilError that names the file if the header is damaged or the checksum is another.
    """
    header = _header_of(text, path)
    written = header.pop("checksum", None)
    if written is None and f'"{CHECKSUM}' not in text:
        return header, False  # a file of distil 0.1 before it wrote checksums
    if written != checksum(tensors, header):
        raise DistilError(
            f"{path} is damaged: its checksum is not that of its content. Copy the file again, or make it again."
        )
    return header, True


def _header_of(text: str, path: Path) -> dict[str, Any]:
    try:
        header = parse_json(text)
    except ValueError as error:
        raise DistilError(f"{path}: its header is damaged ({error}). Copy or make the file again.") from error
    if not isinstance(header, dict):
        raise DistilError(f"{path}: its header is damaged (not a JSON object). Copy or make the file again.")
    return header


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds. Raises: ValueError with a short reason, also for NaN, infinities and deep nesting."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise ValueError(f"{number[:20]} is too large for a number")
        return value

    try:
        value = json.loads(text, parse_constant=refuse, parse_float=finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    layer = [value]
    for _ in range(DEEPEST):
        layer = [part for some in layer for part in _parts(some)]
        if not layer:
            return value
    raise ValueError("it is nested too deeply")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises: FileNotFoundError if there is none; DistilError that names the file if it cannot be read.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DistilError(f"{path} cannot be read as JSON ({reason}). Copy or make the file again.") from error
