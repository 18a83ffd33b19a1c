"""What a run leaves on disk: a manifest, a log of events, checkpoints. Every write is atomic and nothing is pickled."""

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distil.errors import DistilError
from distil.files import PART, load_tensors, parse_json, read_json, save_tensors, write_atomic
from distil.locks import LOCK

MANIFEST = "run.json"
LOG = "log.jsonl"
CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
"""The checkpoint before the last one."""
PROXY = "proxy.safetensors"
RESULT = "distilled.safetensors"
EXPERTS_FOLDER = "experts"
"""Folder, in a run folder, of experts that the run has trained."""
WORKING = (CHECKPOINT, PREVIOUS, PROXY)
"""Files of tensors in a run folder that are no results."""

Events = Callable[..., None]
"""Called as events("name", **fields) with fields that JSON can hold."""


class Interrupted(DistilError):
    """A run that was stopped from outside, after it saved what it had. number: of the signal that stopped it."""

    def __init__(self, message: str, number: int | None = None):
        super().__init__(message)
        self.number: int = number or signal.SIGINT


def silent(name: str, **fields: Any) -> None:
    """Events for callers who want none."""


def sets_in(folder: Path) -> list[Path]:
    """Distilled sets in a folder by their names: a run's result first, its working files left out."""
    others = sorted(path for path in folder.glob("*.safetensors") if path.name not in (RESULT, *WORKING))
    return [path for path in (folder / RESULT, *others) if path.is_file()]


Sound = Callable[[dict[str, Any], dict[str, Any]], None]
"""Called with the tensors and the header of a checkpoint; raises DistilError if a run cannot continue from them."""


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
    reason = f"{last} is missing."
    if last.is_file():
        try:
            return *_sound_tensors(last, sound), ""
        except DistilError as damage:
            if not before.is_file():
                raise
            try:
                tensors, header = _sound_tensors(before, sound)
            except DistilError:
                raise damage from None
            reason = str(damage)
            last.unlink()
    else:
        tensors, header = _sound_tensors(before, sound)
    return tensors, header, f"{reason} The run continues from {before}, step {header.get('step')}."


def _sound_tensors(path: Path, sound: Sound | None) -> tuple[dict[str, Any], dict[str, Any]]:
    tensors, header = load_tensors(path)
    if sound is not None:
        sound(tensors, header)
    return tensors, header


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
            f"{folder} already holds a run. Continue it ({{resume={folder}}}) or choose another folder ({{out}}).",
            field=("resume", "out"),
        )
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    write_atomic(folder / MANIFEST, lambda temporary: temporary.write_text(text))
    return folder


def is_abandoned(folder: Path, command: str) -> bool:
    """Whether a folder holds a run of `command` that ended before its first checkpoint, and nothing else: a new run may
    take its place."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(PART)} if folder.is_dir() else set()
    if MANIFEST not in names or not names <= {MANIFEST, LOG, PROXY, LOCK}:  # experts are worth keeping
        return False
    with contextlib.suppress(DistilError):
        return read_manifest(folder).get("command") == command
    return False


def remove_abandoned(folder: Path) -> None:
    """Remove what a run that ended before its first checkpoint left behind, but not its folder."""
    for name in (MANIFEST, LOG, PROXY):
        (folder / name).unlink(missing_ok=True)


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """The manifest of a run folder. Raises: DistilError if there is none or it cannot be read."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise DistilError(
            f"{folder} holds no run: {MANIFEST} is missing. Give the folder that was chosen with {{out}}.", field="out"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise DistilError(
            f"{path} does not describe a run: it is no JSON object. Start the run again in another folder."
        )
    return manifest


NOT_LOGGED = ("preparing",)
"""Events that only show that something is being done."""
MADE_AGAIN = ("validation", "prototypes", "done")
"""Events at the step of a checkpoint that a run that continues from it tells again."""


class EventLog:
    """Events appended to a JSON Lines file, one object a line: {"event": name, "time": seconds, ...}.

    A resumed run forgets the lines that it will write again: with `resume_at`, those whose "step" is at or after it;
    with `resumed`, as soon as the event "start" tells the step that it continues from, those of later steps, those of
    MADE_AGAIN at that step, and at step 0 all.
    """

    def __init__(self, path: Path | str, resume_at: int | None = None, *, resumed: bool = False):
        self.path = Path(path).absolute()
        self.resumed = resumed
        if resume_at is not None:
            self._keep(lambda line: _step(line) < resume_at)

    def _keep(self, kept: Callable[[Mapping[str, Any]], bool]) -> None:
        if not self.path.is_file():
            return
        text = "".join(json.dumps(line) + "\n" for line in read_log(self.path) if kept(line))
        write_atomic(self.path, lambda temporary: temporary.write_text(text))

    def __call__(self, name: str, **fields: Any) -> None:
        if name in NOT_LOGGED:
            return
        if name == "start" and self.resumed:
            self.resumed = False
            self._keep(lambda line: _stays(line, fields.get("step", 0)))
        line = json.dumps({"event": name, "time": round(time.time(), 3), **fields})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise DistilError(
                f"cannot write {self.path}: {error.strerror or error}. Free space there; the last checkpoint is kept."
            ) from error


def _stays(line: Mapping[str, Any], begun: int) -> bool:
    """Whether a run that continues from step `begun` will not tell this again."""
    step = _step(line)
    return begun > 0 and (step < begun or (step == begun and line.get("event") not in MADE_AGAIN))


def _step(line: Mapping[str, Any]) -> int:
    step = line.get("step")
    return step if isinstance(step, int) else -1


def number_in(line: Mapping[str, Any], field: str) -> float | None:
    """The finite number that an event has in a field; None if it has none there, as in a damaged line."""
    value = line.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    with contextlib.suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """The events of a log. Lines that are no JSON objects, such as a last one that a crash cut short, are left out."""
    lines = []
    for text in Path(path).read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            lines.append(parse_json(text))
    return [line for line in lines if isinstance(line, dict)]
