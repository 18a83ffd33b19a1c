"""Events of a run as they happen: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from distil.runs import Events


def both(*events: Events) -> Events:
    """Events that pass every event on to each of `events`, in their order."""

    def pass_on(name: str, **fields: Any) -> None:
        for each in events:
            each(name, **fields)

    return pass_on


@contextmanager
def show_progress(title: str, *, console: Console | None = None, every_seconds: float = 20.0) -> Iterator[Events]:
    """Events that show a run on the console while the context is open.

    Shown: step, steps, time left, loss and the last validation accuracy, from the events "start" (steps), "step" (step,
    steps, loss), "validation" (accuracy in percent) and "done"; other events are left to the log.
    console: standard error unless given. On a terminal: one bar. Elsewhere: a line when the run starts, at a validation,
    at the end, and at most one in `every_seconds` between.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines(title, console, every_seconds)
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
    with progress:
        yield Bar(title, progress)


class Numbers:
    """The last loss and validation accuracy that the events told, as a short text."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.accuracy: float | None = None

    def read(self, fields: dict[str, Any]) -> None:
        """Keep what these fields tell."""
        self.loss = fields.get("loss", self.loss)
        self.accuracy = fields.get("accuracy", self.accuracy)

    def __str__(self) -> str:
        parts = [] if self.loss is None else [f"loss {self.loss:.4g}"]
        return ", ".join(parts if self.accuracy is None else [*parts, f"validation {self.accuracy:.1f}%"])


class Bar:
    """Events shown as one bar of a rich Progress."""

    def __init__(self, title: str, progress: Progress):
        self.progress = progress
        self.task = progress.add_task(title, total=None, note="")
        self.numbers = Numbers()

    def __call__(self, name: str, **fields: Any) -> None:
        if name not in ("start", "step", "validation", "done"):
            return
        self.numbers.read(fields)
        total = {"total": fields["steps"]} if "steps" in fields else {}
        completed = {"completed": fields["step"]} if "step" in fields else {}
        self.progress.update(self.task, note=str(self.numbers), **total, **completed)


class PlainLines:
    """Events shown as plain lines."""

    def __init__(self, title: str, console: Console, every_seconds: float):
        self.title, self.console, self.every_seconds = title, console, every_seconds
        self.numbers = Numbers()
        self.steps: int | None = None
        self.first: tuple[float, int] | None = None
        self.written = time.monotonic()

    def __call__(self, name: str, **fields: Any) -> None:
        if name not in ("start", "step", "validation", "done"):
            return
        self.numbers.read(fields)
        self.steps = fields.get("steps", self.steps)
        step, now = fields.get("step"), time.monotonic()
        if step is not None and self.first is None:
            self.first = (now, step)
        if name == "step" and now - self.written < self.every_seconds:
            return
        self.written = now
        parts = [self.title] if step is None else [f"{self.title}: step {step} of {self.steps}"]
        parts += [text for text in (str(self.numbers), "" if step is None else self._left(now, step)) if text]
        self.console.print(", ".join(parts), markup=False, highlight=False, soft_wrap=True)

    def _left(self, now: float, step: int) -> str:
        if self.first is None or not self.steps or step <= self.first[1]:
            return ""
        seconds = (now - self.first[0]) / (step - self.first[1]) * (self.steps - step)
        return f"{clock(seconds)} left" if seconds > 0 else ""


def clock(seconds: float) -> str:
    """A duration as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
