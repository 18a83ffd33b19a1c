"""Signals that ask a run to stop: it saves first, or, where there is nothing to save, ends as Ctrl-C ends it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU", "SIGBREAK")
    if hasattr(signal, name)
)
"""Ctrl-C; kill and schedulers; a closed terminal; a scheduler's warning before the end; a limit of processor time."""


REPEATED = 2.0
"""Seconds within which torchrun passes on a Ctrl-C that has reached its processes already."""


class StopRequest:
    """Whether a stop was asked for: call it. number: of the first signal that did, None before."""

    number: int | None = None

    def __call__(self) -> bool:
        return self.number is not None


class Signalled(KeyboardInterrupt):
    """A signal other than Ctrl-C that ends a command in the same way. number: of the signal."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While active, each of STOPPING is remembered instead of ending the process; a second Ctrl-C acts as usual, unless
    it is the first one, which torchrun passes on.

    Yields what tells whether a stop was asked for, and by which signal. A hang-up that the process already ignores
    (nohup) stays ignored. Outside the main thread signals are left alone.
    """
    asked, first = StopRequest(), 0.0

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not asked():
            asked.number, first = number, time.monotonic()
        elif number == signal.SIGINT and not (
            "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - first < REPEATED
        ):
            raise KeyboardInterrupt

    with _handled(STOPPING, remember):
        yield asked


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """While active, the first of STOPPING other than Ctrl-C raises Signalled; those that follow it, as schedulers
    repeat theirs, do not disturb what is cleaned up then. A hang-up that is ignored stays ignored."""
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise Signalled(number)

    with _handled([number for number in STOPPING if number != signal.SIGINT], interrupt):
        yield


def number_of(stop: BaseException) -> int:
    """The signal that ended something by this exception; that of Ctrl-C where it names none."""
    return getattr(stop, "number", None) or signal.SIGINT


@contextlib.contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block `handler` serves these signals, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    hangup: int = getattr(signal, "SIGHUP", 0)
    if before.get(hangup) == signal.SIG_IGN:
        del before[hangup]
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)
