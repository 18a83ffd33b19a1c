"""Standard output and standard error that outlive their readers."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO)
"""Errors of a reader that has gone: the other end of a pipe, a terminal. Nobody is left to be told."""


class Lasting:
    """A text stream that behaves as if nothing were amiss when it can no longer be written to.

    What is written after that is dropped. error: why, None as long as all is well.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self._try(self.stream.write, text)
        except UnicodeEncodeError:
            known = text.encode(self.stream.encoding, "replace").decode(self.stream.encoding)
            self._try(self.stream.write, known)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, do: Callable[..., object], *words: str) -> None:
        try:
            do(*words)
        except BlockingIOError:  # a reader that is only slow
            return
        except OSError as error:
            self.error = self.error or error
            to_nowhere(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def to_nowhere(stream: TextIO) -> None:
    """Let everything that is still written to a stream, at the exit too, vanish."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_standard_streams() -> None:
    """Put something in the place of standard streams that were closed before the program began: else the next file that
    is opened becomes one of them. Letters that the output's encoding lacks are printed as escapes."""
    if sys.stdout is None or sys.stderr is None:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
        sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Within the block a reader of the output that goes away, and a full disk under it, do not end the program.

    At the end a stream that could not be written, though its reader is there, is told of on the other one.
    """
    before = sys.stdout, sys.stderr
    out, error = Lasting(sys.stdout), Lasting(sys.stderr)
    sys.stdout, sys.stderr = out, error  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        out.flush()
        error.flush()
        if out.error is not None and out.error.errno not in GONE:
            reason = out.error.strerror
            error.write(f"distil: standard output could not be written ({reason}); the command continued without it.\n")
            error.flush()
        sys.stdout, sys.stderr = before
