"""One case: a folder with a damaged file, read within limits of time and memory, and what became of it."""

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distil.errors import DistilError

from .damage import mutate
from .target import Case, Files, Target
from .targets import TARGETS

SECONDS = 5.0
"""A case that takes longer hangs."""
PEAK = 2 << 30
"""Bytes: a case that takes more memory than the process had before it asks for too much."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    kind: refused, equal (accepted, with the content of the seed), valid (accepted, with other content that can be), or
    the failure: exception, nonsense, message, hang, memory, lost (refused although a good copy is there) or seed (the
    seed itself is refused or is nonsense: no cases were tried).
    """

    target: str
    number: int
    kind: str
    file: str = ""
    mutation: str = ""
    detail: str = ""
    seconds: float = 0.0
    peak: int = 0


GOOD = ("refused", "equal", "valid")


class Hang(BaseException):
    """Raised in a reader that takes too long; no `except Exception` catches it."""


@cache
def seed_of(name: str) -> tuple[Target, Files, dict[str, Any]]:
    """A target, its valid folder, and what its reader makes of each file that is damaged. Raises: ValueError when the
    reader refuses the seed, or it is nonsense."""
    target = TARGETS[name]
    files = target.make()
    content = {}
    for file in damageable(target, files):
        with written(files) as folder:
            try:
                found = target.read(folder, file)
                content[file] = target.same(found)
                reason = target.nonsense(found, Case(folder, file, files[file]))
            except DistilError as error:
                raise ValueError(f"the seed is refused: {error}") from error
        if reason and not reason.startswith("the run ended"):
            raise ValueError(f"the seed is nonsense: {reason}")
    return target, files, content


def damageable(target: Target, files: Files) -> list[str]:
    """The files of a folder that are damaged."""
    return sorted(name for name in files if name.endswith(target.damaged))


@contextmanager
def written(files: Files) -> Iterator[Path]:
    """A folder that holds these files, as the working folder of the block."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast) as name:
        folder = Path(name)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        with chdir(folder):
            yield folder


def damaged_folder(name: str, seed: int, number: int) -> tuple[Files, str, Any]:
    """(the folder's files after the damage, which file it was, the mutation) of one case."""
    target, files, _ = seed_of(name)
    draw = random.Random(f"{name} {seed} {number}")
    file = draw.choice(damageable(target, files))
    mutation = mutate(file, files[file], draw)
    rest = {path: content for path, content in files.items() if path != file}
    return rest if mutation.content is None else {**rest, file: mutation.content}, file, mutation


def run_case(name: str, seed: int, number: int, *, raising: bool = False) -> Outcome:
    """Damage one file of a target and read it. raising: let what fails be raised, for its traceback."""
    target, _, content = seed_of(name)
    files, file, mutation = damaged_folder(name, seed, number)

    def outcome(kind: str, detail: str = "") -> Outcome:
        told = " ".join(detail.split())[:600]
        return Outcome(name, number, kind, file, mutation.what[:300], told, time.monotonic() - began, peak())

    with written(files) as folder:
        peak = PeakMemory()
        began = time.monotonic()
        try:
            with time_limit(SECONDS):
                found = target.read(folder, file)
                same = target.same(found) == content[file]
                judged = not same or target.reads_file
                reason = _nonsense(target, found, Case(folder, file, mutation.content)) if judged else ""
        except DistilError as error:
            kind, detail = _refused(target, file, mutation, str(error))
            ended = outcome(kind, detail)
        except Hang:
            ended = outcome("hang", f"over {SECONDS:g} seconds in {_place(sys.exc_info()[2])}")
        except BaseException as error:
            if raising or isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            kind = "memory" if _of_memory(error) else "exception"
            ended = outcome(kind, f"{type(error).__name__}: {error} in {_place(error.__traceback__)}")
        else:
            if same:
                ended = outcome("nonsense", reason) if reason else outcome("equal")
            elif mutation.sealed:
                ended = outcome("nonsense", "the file is damaged, but was accepted with other content")
            elif file.endswith(target.falls_back) and "previous" in file:
                ended = outcome("nonsense", "a damaged copy that was not needed changed the result")
            else:
                ended = outcome("nonsense", reason) if reason else outcome("valid")
    if ended.kind in GOOD and ended.peak > PEAK:
        ended = outcome("memory", f"{ended.peak / 2**30:.1f} GB, {ended.kind}")
    return ended


def _nonsense(target: Target, found: Any, case: Case) -> str:
    try:
        return target.nonsense(found, case)
    except (MemoryError, RuntimeError):
        raise
    except Exception as error:
        return f"the oracle cannot make use of it: {type(error).__name__}: {error} in {_place(error.__traceback__)}"


def _refused(target: Target, file: str, mutation: Any, message: str) -> tuple[str, str]:
    if message.startswith("out of memory"):
        return "memory", message
    if target.falls_back and file.endswith(target.falls_back) and mutation.sealed:
        return "lost", f"refused, but a good copy is there or can be made: {message}"
    if not message.strip():
        return "message", "a refusal that says nothing"
    return "refused", message


def _of_memory(error: BaseException) -> bool:
    told = str(error).lower()
    return isinstance(error, MemoryError) or "can't allocate memory" in told or "unable to allocate" in told


def _place(trace: Any) -> str:
    """Where a traceback ends, and the last place in distil on the way there."""
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if "distil" in Path(frame.filename).parts]
    shown = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*own[-1:], *frames[-1:]))
    return ", ".join(shown)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Hang in the main thread after so long."""

    def stop(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class PeakMemory:
    """Called later: the bytes by which the process's resident memory has been larger since than it is now."""

    def __init__(self) -> None:
        self.known = True
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = status("VmRSS")
        except OSError:  # not Linux
            self.known = False

    def __call__(self) -> int:
        return max(0, status("VmHWM") - self.before) if self.known else 0


def status(name: str) -> int:
    """Bytes that /proc/self/status tells of, as VmRSS."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
