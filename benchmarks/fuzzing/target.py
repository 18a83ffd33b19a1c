"""What a kind of file needs to be fuzzed, and what the oracles share."""

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from distil.cli.main import main
from distil.errors import DistilError
from distil.runs import MANIFEST

Files = dict[str, bytes]
"""A folder: path inside it -> content."""


@dataclass(frozen=True)
class Case:
    """A damaged folder: where it lies, which file was damaged, and what that file holds (None: it is gone)."""

    folder: Path
    name: str
    content: bytes | None


@dataclass(frozen=True)
class Target:
    """One kind of file.

    make: the valid folder. damaged: the files in it that are damaged, by the ends of their paths. read: what a user's
    call gives; raises DistilError to refuse. same: what two readings of the same content share. nonsense: why a result
    should not have been accepted, or "".
    falls_back: files, by the ends of their paths, whose damage must not be refused and must not change the result: a
    good copy lies beside them, or they can be made again. reads_file: the oracle reads the damaged file by itself, so
    that it also judges results that are equal to the seed's. share: of the cases, beside a target with 1.
    """

    make: Callable[[], Files]
    damaged: tuple[str, ...]
    read: Callable[[Path, str], Any]
    same: Callable[[Any], Any]
    nonsense: Callable[[Any, Case], str]
    falls_back: tuple[str, ...] = ()
    reads_file: bool = False
    share: float = 1.0


def files_of(write: Callable[[Path], object]) -> Files:
    """What `write` leaves in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.chdir(folder):
            write(Path(folder))
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named tensors."""
    found = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        found.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        found.update(x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which tensor holds NaN or an infinity."""
    bad = [name for name, x in tensors.items() if x.is_floating_point() and not bool(x.isfinite().all())]
    return f"{bad[0]} is not finite" if bad else ""


def bad_names(names: Iterable[object]) -> str:
    """Why these are no names of classes."""
    names = list(names)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        return f"class names {str(names)[:80]} are not all text"
    if len(set(names)) < len(names):
        return f"a class name of {str(names)[:80]} is there twice"
    try:
        "".join(map(str, names)).encode()
    except UnicodeEncodeError:
        return "a class name cannot be printed"
    return ""


def first_of(*reasons: str) -> str:
    return next((reason for reason in reasons if reason), "")


def command(*words: str) -> str:
    """What a command prints. Raises: DistilError with what it says when it refuses."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    if status:
        raise DistilError(f"\n{err.getvalue()}".rpartition("\ndistil: ")[2].strip())
    return out.getvalue()


def broken_state(content: bytes) -> str:
    """What is absurd in the tensors of a file from which a run continued."""
    try:
        tensors = safetensors.torch.load(content)
    except Exception:  # the reader fell back to another file
        return ""
    huge = [name for name, x in tensors.items() if x.is_floating_point() and x.numel() and float(x.abs().max()) > 1e20]
    return not_finite(tensors) or (f"{huge[0]} leaves all bounds" if huge else "")


def named_from_here(folder: Path) -> None:
    """A run whose source is named from the folder in which the cases run."""
    path = folder / "run" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["source"] = manifest["source"].replace(f"{folder}/", "")
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
