"""Many cases, in processes that may die."""

import ctypes
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from .case import SECONDS, Outcome, damaged_folder, run_case, seed_of, status

GUARD = 3 << 30
"""Bytes that a process may take beyond what it has when it starts, so that nothing else on the machine suffers."""
PATIENCE = 3 * SECONDS
"""After so long without a word a process is stuck outside of Python and is killed."""
BLOCK = 50
"""Cases that a process is handed at a time."""


def work(connection: Connection, seed: int) -> None:
    """Run the blocks (target, numbers) that arrive, until None does; say before each case what it is."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ["COLUMNS"] = "100"
    if sys.platform.startswith("linux"):
        import resource

        limit = status("VmData") + GUARD
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    while (block := connection.recv()) is not None:
        name, numbers = block
        try:
            connection.send(("preparing", name))
            seed_of(name)
        except Exception as error:
            connection.send(("done", Outcome(name, -1, "seed", detail=f"{type(error).__name__}: {error}"[:600])))
            connection.send(("free", None))
            continue
        for number in numbers:
            connection.send(("began", number))
            outcome = run_case(name, seed, number)
            if outcome.kind == "hang":  # or the machine was busy
                connection.send(("began", number))
                outcome = run_case(name, seed, number)
            connection.send(("done", outcome))
        _trim()
        connection.send(("free", None))


def _trim() -> None:
    """Give freed memory back, so that the next case is measured from what is in use."""
    if sys.platform.startswith("linux"):
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


@dataclass
class Worker:
    """A process, and what it is at: its block, the case in it (-1: none), and since when."""

    process: Any
    connection: Connection
    block: tuple[str, list[int]] | None = None
    number: int = -1
    since: float = 0.0


class Pool:
    """Processes that share blocks of cases; one that is stuck or gone is replaced."""

    def __init__(self, blocks: list[tuple[str, list[int]]], seed: int, jobs: int):
        self.blocks, self.seed = blocks[::-1], seed
        self.without_seed: set[str] = set()
        self.workers: list[Worker] = []
        for _ in range(min(jobs, len(blocks))):
            self._start()

    def outcomes(self) -> Iterator[Outcome]:
        """Those of all cases, as they come."""
        try:
            while busy := [worker for worker in self.workers if worker.block is not None]:
                ready = wait([worker.connection for worker in busy], timeout=1.0)
                for worker in busy:
                    if worker.connection in ready:
                        yield from self._heard(worker)
                    elif worker.number >= 0 and time.monotonic() - worker.since > PATIENCE:
                        yield self._lost(worker, "hang")
        finally:
            for worker in self.workers:
                worker.process.kill()
                worker.process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, self.seed), daemon=True)
        process.start()
        there.close()
        self.workers.append(Worker(process, here))
        self._hand(self.workers[-1])

    def _hand(self, worker: Worker) -> None:
        """Give a process its next block, if there is one."""
        worker.block, worker.number, worker.since = None, -1, time.monotonic()
        while self.blocks and self.blocks[-1][0] in self.without_seed:
            self.blocks.pop()
        if self.blocks:
            worker.block = self.blocks.pop()
            worker.connection.send(worker.block)

    def _heard(self, worker: Worker) -> Iterator[Outcome]:
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            yield self._lost(worker, "exception")
            return
        if kind == "began":
            worker.number, worker.since = value, time.monotonic()
        elif kind == "free":
            self._hand(worker)
        elif kind == "done":
            worker.number = -1
            if value.target not in self.without_seed:
                yield value
            if value.kind == "seed":
                self.without_seed.add(value.target)

    def _lost(self, worker: Worker, kind: str) -> Outcome:
        """The outcome of the case at which a process was lost; another process continues behind it."""
        worker.process.kill()
        worker.process.join()
        assert worker.block is not None
        name, numbers = worker.block
        if worker.number < 0:
            raise RuntimeError(f"a process ended outside of any case of {name}, with status {worker.process.exitcode}")
        if rest := numbers[numbers.index(worker.number) + 1 :]:
            self.blocks.append((name, rest))
        self.workers.remove(worker)
        self._start()
        detail = "deaf to its alarm" if kind == "hang" else f"the process died, {worker.process.exitcode}"
        _, file, mutation = damaged_folder(name, self.seed, worker.number)
        seconds = time.monotonic() - worker.since
        return Outcome(name, worker.number, kind, file, mutation.what[:300], detail, seconds)


def run(counts: dict[str, int], seed: int, jobs: int) -> Iterator[Outcome]:
    """The outcomes of so many cases of each target, as they come."""
    blocks = [
        (name, list(range(first, min(first + BLOCK, count))))
        for name, count in counts.items()
        for first in range(0, count, BLOCK)
    ]
    return Pool(blocks, seed, jobs).outcomes()
