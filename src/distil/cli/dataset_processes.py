"""`distil dataset` in the processes that torchrun starts beside the first: they open the same images and take the same
steps, but write and print nothing."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.cli.flags import device_named
from distil.data.catalog import UNLIMITED
from distil.dataset.config import Settings
from distil.errors import DistilError
from distil.processes import ONE, Lost, Processes, joined, several
from distil.runs import Interrupted


@dataclass(frozen=True)
class Follow:
    """What the others have to know of a run."""

    manifest: Mapping[str, Any]
    """What run.json holds."""
    root: Path | None
    device: str
    settings: Settings
    resume: bool
    command: str
    """What continues the run."""


def met(device: str) -> Processes:
    """The processes that torchrun started, once they have met; one alone without it. device: a word of --device."""
    return joined(device_named(device)) if several() else ONE


@contextlib.contextmanager
def open_quietly() -> Iterator[None]:
    """Within the block nothing is printed of what is read: the first process does."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def follow_run(processes: Processes) -> None:
    """Wait for the first process to begin a run, and take part in it.

    Raises: SystemExit after a stop, of which the first process tells; Lost where another process has ended.
    """
    run: Follow | None = processes.follow()
    if run is None:
        return
    from distil.cli.set_words import of_classes, open_images
    from distil.dataset.distil import distil_dataset

    try:
        with open_quietly():
            memory = run.manifest.get("memory", UNLIMITED)
            source = open_images(run.manifest["source"], run.root, run.manifest["size"], False, memory)
            if run.manifest.get("classes") is not None:
                source = of_classes(source, run.manifest["classes"])
        distil_dataset(source.train, run.settings, device=run.device, resume=run.resume)
    except Interrupted as stop:
        raise SystemExit(128 + stop.number) from stop
    except Lost as lost:
        raise lost_of(lost, run.command) from lost


def lost_of(lost: Lost, command: str) -> DistilError:
    """The error that says how to go on where another process has ended."""
    told = f"another process of this run has ended, so all have stopped: continue with {command}"
    return lost if lost.explained else Lost(told)
