"""Events of a run as they happen: a bar on a terminal, a line now and then elsewhere."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distil.runs import Events

SHOWN = ("start", "preparing", "step", "validation", "evaluate", "done")
RECENT = 60.0
"""Seconds of steps that the time left is estimated from."""
FEWEST = 5
"""At least so many of the last events are used for it, however long they took."""
QUIET = 2.0
"""Seconds for which what is prepared goes unmentioned where lines are written."""


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
    accuracy: one step) and "done"; and from "preparing" (what, and as far as it is known unit, done, of) what is done
    before the first step or between two of them, every `every` steps if it comes again.

    unit: what is counted. console: standard error unless given. On a terminal: one bar, from the first event on.
    Elsewhere: a line when the run starts, at each accuracy, at the end, and at most one in `every_seconds` between. Of
    several runs, one after another, the present one.
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
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
    try:
        yield Bar(title, progress)
    finally:
        progress.stop()


class Numbers:
    """How far a run is and the last numbers that its events told."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.steps: int | None = None
        self.last: dict[str, str] = {}

    def read(self, name: str, fields: dict[str, Any]) -> None:
        """Keep what an event tells of the run; nothing of what is prepared for it."""
        if name == "preparing":
            return
        if name == "start":
            self.last.clear()
        self.steps = fields.get("steps", self.steps) or None
        self.step = fields.get("step", 0 if name == "start" else self.step)
        if name == "evaluate" and self.steps is not None:
            self.step = min((self.step or 0) + 1, self.steps)
        if "part" in fields:
            self.last["part"] = fields["part"]
        if "loss" in fields:
            self.last["loss"] = f"loss {fields['loss']:.4g}"
        if fields.get("ap") is not None:
            self.last["accuracy"] = f"AP {fields['ap']:.1f}%"
        if "accuracy" in fields:
            self.last["accuracy"] = f"{fields.get('network', name)} {fields['accuracy']:.1f}%"

    def __str__(self) -> str:
        return ", ".join(self.last.values())


class Pace:
    """How long the rest takes, by how long what came before took.

    Counted apart: steps, of which the recent ones tell, and not the first, which waits for what is done once; what
    happens between steps, such as validations, spread over all steps; and what is prepared every so many steps.
    """

    def __init__(self) -> None:
        self.at: float | None = None
        self.begin(None)

    def begin(self, step: int | None) -> None:
        """Forget everything: a run begins, at this step."""
        self.begun = self.step = step
        self.first: tuple[int, float] | None = None
        self.recent: deque[tuple[int, float]] = deque()
        self.between = self.prepared = 0.0
        self.every, self.times = 0, 0.0

    def read(self, name: str, fields: dict[str, Any], step: int | None, now: float) -> None:
        """Take note of an event; step: where the run is with it."""
        took = 0.0 if self.at is None else now - self.at
        self.at = now
        if name == "start" or self.step is None or step is None or step < self.step:
            self.begin(step)
        elif name == "preparing":
            if every := fields.get("every"):
                self.every = every
                self.prepared += took
                self.times = (step - (self.begun or 0)) // every + fields["done"] / fields["of"]
        elif step > self.step:
            self._add((step - self.step, took))
            self.step = step
        elif self.first is not None:
            self.between += took

    def _add(self, steps: tuple[int, float]) -> None:
        if self.first is None:
            self.first = steps
            return
        self.recent.append(steps)
        while len(self.recent) > FEWEST and sum(seconds for _, seconds in self.recent) > RECENT:
            self.recent.popleft()

    def left(self, steps: int | None) -> float | None:
        """Seconds until the last of `steps`; None where too little is known."""
        if steps is None or self.step is None or self.begun is None or self.first is None or self.step >= steps:
            return None
        known = self.recent or [self.first]
        if not self.recent and self.first[0] == 1 and steps - self.begun > 2 * FEWEST:
            return None
        done, rest = self.step - self.begun, steps - self.step
        each = sum(seconds for _, seconds in known) / sum(count for count, _ in known)
        left = rest * (each + self.between / done)
        if self.every and self.times:
            left += max(0.0, (steps - self.begun) / self.every - self.times) * self.prepared / self.times
        return left


class Bar:
    """Events shown as one bar of a rich Progress, which appears with the first of them."""

    def __init__(self, title: str, progress: Progress):
        self.title, self.progress = title, progress
        self.task = progress.add_task(title, total=None, note="", left="")
        self.numbers, self.pace = Numbers(), Pace()

    def __call__(self, name: str, **fields: Any) -> None:
        numbers = self.numbers
        if name in SHOWN:
            numbers.read(name, fields)
        self.pace.read(name, fields, numbers.step, time.monotonic())
        if name not in SHOWN:
            return
        self.progress.start()
        if name == "start":
            self.progress.reset(self.task)
        if name == "preparing":
            shown = {"description": f"{self.title}: {fields['what']}", "total": fields.get("of")}
            shown["completed"] = fields.get("done", 0)
        else:
            shown = {"description": self.title, "total": numbers.steps, "completed": numbers.step}
        self.progress.update(self.task, note=str(numbers), left=_time_left(self.pace, numbers), **shown)


def _time_left(pace: Pace, numbers: Numbers) -> str:
    left = pace.left(numbers.steps)
    return "" if left is None else f"{clock(left)} left"


class PlainLines:
    """Events shown as plain lines."""

    def __init__(self, title: str, unit: str, console: Console, every_seconds: float):
        self.title, self.unit, self.console, self.every_seconds = title, unit, console, every_seconds
        self.numbers, self.pace = Numbers(), Pace()
        self.written, self.line, self.prepared = time.monotonic(), "", ""

    def __call__(self, name: str, **fields: Any) -> None:
        now, numbers = time.monotonic(), self.numbers
        if name in SHOWN:
            numbers.read(name, fields)
        self.pace.read(name, fields, numbers.step, now)
        if name not in SHOWN or now - self.written < self._quiet(name, fields):
            return
        if name == "preparing":
            self.prepared = fields["what"]
            self._write(now, f"{self.title}: {fields['what']}" + _count(fields))
            return
        far = f": {self.unit} {numbers.step} of {numbers.steps}" if numbers.steps else ""
        self._write(now, f"{self.title}{far}", str(numbers), _time_left(self.pace, numbers))

    def _quiet(self, name: str, fields: dict[str, Any]) -> float:
        """Seconds since the last line in which an event does not earn another."""
        if name == "preparing" and "of" in fields:
            return QUIET if fields["what"] != self.prepared else self.every_seconds
        return self.every_seconds if name == "step" else 0.0

    def _write(self, now: float, *parts: str) -> None:
        self.written = now
        if (line := ", ".join(part for part in parts if part)) != self.line:
            self.line = line
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _count(fields: dict[str, Any]) -> str:
    return f": {fields['unit']} {fields['done']} of {fields['of']}" if "of" in fields else ""


def spoken(seconds: float) -> str:
    """A duration in one unit, as one says it: 40 seconds, 12 minutes, 3.5 hours, 9 days."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            count = seconds / size
            text = f"{count:.0f}" if count >= 10 or unit == "minute" else f"{count:.1f}".removesuffix(".0")
            return f"{text} {unit}s"
    return f"{max(1, round(seconds))} seconds"


def clock(seconds: float) -> str:
    """A duration as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
