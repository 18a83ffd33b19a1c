"""What a run leaves on disk: a manifest, a log of events, checkpoints. Every write is atomic and nothing is pickled."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distil.errors import DistilError

MANIFEST = "run.json"
LOG = "log.jsonl"
CHECKPOINT = "checkpoint.safetensors"
PROXY = "proxy.safetensors"
RESULT = "distilled.safetensors"

Events = Callable[..., None]
"""Called as events("name", **fields) with fields that JSON can hold."""


class Interrupted(DistilError):
    """A run that was stopped from outside, after it saved what it had."""


def silent(name: str, **fields: Any) -> None:
    """Events for callers who want none."""


def write_atomic(path: Path | str, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place: readers see the old file or the new.

    Raises: DistilError that names the path, when the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DistilError(
            f"cannot write {path}: {error.strerror or error}. Free space there, or choose another place with --out; "
            "what was saved before is untouched."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def save_tensors(path: Path | str, tensors: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically. Equal content gives equal bytes.

    tensors: name -> torch tensor, on any device. header: what JSON can hold; kept under the key "distil".
    Raises: DistilError as write_atomic does.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(plain, metadata={"distil": json.dumps(header, sort_keys=True)})
    write_atomic(path, lambda temporary: temporary.write_bytes(data))


def load_tensors(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what save_tensors wrote: tensors that own their memory, and the header.

    Raises: DistilError that names the file when it is missing, truncated, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise DistilError(f"no such file: {path}. Check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DistilError(
            f"{path} is not a whole safetensors file ({error}). It is corrupt or was cut short: make it again."
        ) from error
    if "distil" not in metadata:
        raise DistilError(f"{path} is a safetensors file, but distil did not write it: its header is missing.")
    return tensors, json.loads(metadata["distil"])


def sets_in(folder: Path) -> list[Path]:
    """Distilled sets in a folder by their names: a run's result first, its working files left out."""
    others = sorted(path for path in folder.glob("*.safetensors") if path.name not in (RESULT, CHECKPOINT, PROXY))
    return [path for path in (folder / RESULT, *others) if path.is_file()]


def start_run(folder: Path | str, manifest: Mapping[str, Any]) -> Path:
    """Make a run folder with its manifest, the resolved settings that `--resume` reads.

    Raises: DistilError if the folder already holds a run, or cannot be written.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise DistilError(
            f"{folder} already holds a run. Continue it with --resume {folder}, or choose another folder with --out."
        )
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    write_atomic(folder / MANIFEST, lambda temporary: temporary.write_text(text))
    return folder


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """The manifest of a run folder. Raises: DistilError if there is none or it cannot be read."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise DistilError(f"{folder} holds no run: {MANIFEST} is missing. Give the folder that --out named.")
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DistilError(f"{path} cannot be read ({error}). Start the run again in another folder.") from error


class EventLog:
    """Events appended to a JSON Lines file, one object a line: {"event": name, "time": seconds, ...}.

    A resumed run forgets the lines that it will write again: those whose "step" is at or after `resume_at`.
    """

    def __init__(self, path: Path | str, resume_at: int | None = None):
        self.path = Path(path)
        if resume_at is not None and self.path.is_file():
            kept = [line for line in read_log(self.path) if line.get("step", -1) < resume_at]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomic(self.path, lambda temporary: temporary.write_text(text))

    def __call__(self, name: str, **fields: Any) -> None:
        line = json.dumps({"event": name, "time": round(time.time(), 3), **fields})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise DistilError(
                f"cannot write {self.path}: {error.strerror or error}. Free space there; the last checkpoint is kept."
            ) from error


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """The events of a log; a last line that a crash cut short is left out."""
    lines = []
    for text in Path(path).read_text().splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """While active, the first Ctrl-C (or SIGTERM) is remembered instead of raised; a second one acts as usual.

    Yields a function that tells whether a stop was asked for. Outside the main thread signals are left alone.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for number in before:
        signal.signal(number, remember)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
