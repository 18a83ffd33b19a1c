"""What a run leaves on disk: a manifest, a log of events, checkpoints. Every write is atomic and nothing is pickled."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distil.errors import DistilError
from distil.files import load_tensors, parse_json, read_json, save_tensors, write_atomic

MANIFEST = "run.json"
LOG = "log.jsonl"
CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
"""The checkpoint before the last one."""
PROXY = "proxy.safetensors"
RESULT = "distilled.safetensors"
WORKING = (CHECKPOINT, PREVIOUS, PROXY)
"""Files of tensors in a run folder that are no results."""

Events = Callable[..., None]
"""Called as events("name", **fields) with fields that JSON can hold."""


class Interrupted(DistilError):
    """A run that was stopped from outside, after it saved what it had."""


def silent(name: str, **fields: Any) -> None:
    """Events for callers who want none."""


def sets_in(folder: Path) -> list[Path]:
    """Distilled sets in a folder by their names: a run's result first, its working files left out."""
    others = sorted(path for path in folder.glob("*.safetensors") if path.name not in (RESULT, *WORKING))
    return [path for path in (folder / RESULT, *others) if path.is_file()]


Sound = Callable[[dict[str, Any], dict[str, Any]], None]
"""Called with the tensors and the header of a checkpoint; raises DistilError if a run cannot go on from them."""


def save_checkpoint(folder: Path, tensors: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Write a run's checkpoint; the one before it is kept beside it. Raises: DistilError as write_atomic does."""
    save_tensors(folder / CHECKPOINT, tensors, header, previous=folder / PREVIOUS)


def load_checkpoint(folder: Path, sound: Sound | None = None) -> tuple[dict[str, Any], dict[str, Any], str] | None:
    """(tensors, header, note) of a run's last good checkpoint; None if it has none.

    The last one is read or, if that is damaged, the one before it, as the note says ("" otherwise); the damaged file
    is then removed, so that it cannot take the place of the good one.

    Raises: DistilError of the last checkpoint if none is good.
    """
    last, before = folder / CHECKPOINT, folder / PREVIOUS
    if not last.is_file() and not before.is_file():
        return None
    try:
        tensors, header = load_tensors(last)
        if sound is not None:
            sound(tensors, header)
        return tensors, header, ""
    except DistilError as damage:
        if not before.is_file():
            raise
        try:
            tensors, header = load_tensors(before)
            if sound is not None:
                sound(tensors, header)
        except DistilError:
            raise damage from None
        reason = str(damage) if last.is_file() else f"{last} is missing"
        last.unlink(missing_ok=True)
        return tensors, header, f"{reason} The run goes on from {before}, step {header.get('step')}."


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint, the last or the one before it."""
    return any((folder / name).is_file() for name in (CHECKPOINT, PREVIOUS))


def remove_checkpoints(folder: Path) -> None:
    """Remove a run's checkpoints."""
    for name in (CHECKPOINT, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


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
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise DistilError(
            f"{path} does not describe a run: it is no JSON object. Start the run again in another folder."
        )
    return manifest


class EventLog:
    """Events appended to a JSON Lines file, one object a line: {"event": name, "time": seconds, ...}.

    A resumed run forgets the lines that it will write again: those whose "step" is at or after `resume_at`.
    """

    def __init__(self, path: Path | str, resume_at: int | None = None):
        self.path = Path(path)
        if resume_at is not None and self.path.is_file():
            kept = [line for line in read_log(self.path) if _step(line) < resume_at]
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


def _step(line: Mapping[str, Any]) -> int:
    step = line.get("step")
    return step if isinstance(step, int) else -1


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """The events of a log. Lines that are no JSON objects, such as a last one that a crash cut short, are left out."""
    lines = []
    for text in Path(path).read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            lines.append(parse_json(text))
    return [line for line in lines if isinstance(line, dict)]
