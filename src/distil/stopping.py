"""Signals that ask a run to stop: it saves first."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU", "SIGBREAK")
    if hasattr(signal, name)
)
"""Ctrl-C; kill and schedulers; a closed terminal; a scheduler's warning before the end; a limit of processor time."""


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """While active, each of STOPPING is remembered instead of ending the process; a second Ctrl-C acts as usual.

    Yields a function that tells whether a stop was asked for. A hang-up that the process already ignores (nohup) stays
    ignored. Outside the main thread signals are left alone.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    hangup = getattr(signal, "SIGHUP", None)
    if before.get(hangup) == signal.SIG_IGN:
        del before[hangup]

    def remember(number: int, frame: Any) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    for number in before:
        signal.signal(number, remember)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
