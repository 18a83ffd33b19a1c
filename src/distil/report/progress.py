"""Events of a run as they happen: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from distil.runs import Events

SHOWN = ("start", "step", "validation", "evaluate", "done")


def both(*events: Events) -> Events:
    """Events that pass every event on to each of `events`, in their order."""

    def pass_on(name: str, **fields: Any) -> None:
        for each in events:
            each(name, **fields)

    return pass_on


@contextmanager
def show_progress(
    title: str, *, unit: str = "step", console: Console | None = None, every_seconds: float = 20.0
) -> Iterator[Events]:
    """Events that show a run on the console while the context is open.

    Shown: step, steps, time left, loss and the last accuracy, from the events "start" (step, steps), "step" (step,
    steps, loss), "validation" (accuracy in percent; or ap, None where there was nothing to find), "evaluate" (network,
    accuracy: one step) and "done".

    unit: what is counted. console: standard error unless given. On a terminal: one bar. Elsewhere: a line when the run
    starts, at each accuracy, at the end, and at most one in `every_seconds` between. Of several runs, one after
    another, the present one.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines(title, unit, console, every_seconds)
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
    """How far a run is and the last numbers that its events told."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.steps: int | None = None
        self.last: dict[str, str] = {}

    def read(self, name: str, fields: dict[str, Any]) -> None:
        """Keep what an event tells."""
        if name == "start":
            self.last.clear()
        self.steps = fields.get("steps", self.steps) or None
        self.step = fields.get("step", 0 if name == "start" else self.step)
        if name == "evaluate" and self.steps is not None:
            self.step = min((self.step or 0) + 1, self.steps)
        if "loss" in fields:
            self.last["loss"] = f"loss {fields['loss']:.4g}"
        if fields.get("ap") is not None:
            self.last["accuracy"] = f"AP {fields['ap']:.1f}%"
        if "accuracy" in fields:
            self.last["accuracy"] = f"{fields.get('network', name)} {fields['accuracy']:.1f}%"

    def __str__(self) -> str:
        return ", ".join(self.last.values())


class Bar:
    """Events shown as one bar of a rich Progress."""

    def __init__(self, title: str, progress: Progress):
        self.progress = progress
        self.task = progress.add_task(title, total=None, note="")
        self.numbers = Numbers()

    def __call__(self, name: str, **fields: Any) -> None:
        if name not in SHOWN:
            return
        numbers = self.numbers
        numbers.read(name, fields)
        if name == "start":
            self.progress.reset(self.task)
        self.progress.update(self.task, total=numbers.steps, completed=numbers.step, note=str(numbers))


class PlainLines:
    """Events shown as plain lines."""

    def __init__(self, title: str, unit: str, console: Console, every_seconds: float):
        self.title, self.unit, self.console, self.every_seconds = title, unit, console, every_seconds
        self.numbers = Numbers()
        self.first: tuple[float, int] | None = None
        self.written, self.line = time.monotonic(), ""

    def __call__(self, name: str, **fields: Any) -> None:
        if name not in SHOWN:
            return
        self.numbers.read(name, fields)
        now = time.monotonic()
        if self.first is None or name == "start":
            self.first = (now, self.numbers.step or 0)
        if name == "step" and now - self.written < self.every_seconds:
            return
        self.written = now
        far = f": {self.unit} {self.numbers.step} of {self.numbers.steps}" if self.numbers.steps else ""
        parts = [text for text in (f"{self.title}{far}", str(self.numbers), self._left(now, *self.first)) if text]
        if (line := ", ".join(parts)) != self.line:
            self.line = line
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _left(self, now: float, began: float, first: int) -> str:
        step, steps = self.numbers.step, self.numbers.steps
        if step is None or steps is None or not first < step < steps:
            return ""
        return f"{clock((now - began) / (step - first) * (steps - step))} left"


def clock(seconds: float) -> str:
    """A duration as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
