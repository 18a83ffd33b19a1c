"""Processes that start at once, for the tests that kill them: forked from one that has imported everything already."""

import multiprocessing
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FORKING = multiprocessing.get_context("forkserver")
PRELOADED = ("distil.cli.main", "distil.cli.dataset", "distil.dataset.distil", "distil.data.images.opener")
PRELOADED += ("distil.detector.training.train", "distil.report.progress", "lightning_fabric", "tyro")
FORKING.set_forkserver_preload(list(PRELOADED))


def started(work: Callable[..., object], *args: Any, told: Path) -> BaseProcess:
    """A process that does this work on one thread. told: file of what it prints, on both streams."""
    process = FORKING.Process(target=_work, args=(work, args, told.absolute(), os.getcwd()), daemon=True)
    process.start()
    return process


def _work(work: Callable[..., object], args: tuple[Any, ...], told: Path, folder: str) -> None:
    import torch

    os.chdir(folder)
    stream = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(stream, number)
    torch.set_num_threads(1)
    work(*args)


def seconds_of(work: Callable[..., object], *args: Any, told: Path) -> float:
    """How long the work takes when nobody kills it."""
    ends_well(started(int, told=told), told)  # the process that others are forked from has then begun
    began = time.monotonic()
    ends_well(started(work, *args, told=told), told)
    return time.monotonic() - began


def ends_well(process: BaseProcess, told: Path) -> None:
    """Wait for the end of a process, which must be without an error."""
    process.join(120)
    assert process.exitcode == 0, told.read_text()[-4000:]


def in_two_processes(work: Callable[..., object], *args: Any, told: Path) -> list[int | None]:
    """Let two processes that work together, as torchrun starts them, do this; their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [started(_one_of_two, rank, port, work, args, told=told) for rank in range(2)]
    for process in ranks:
        process.join(240)
    return [process.exitcode for process in ranks]


def _one_of_two(rank: int, port: int, work: Callable[..., object], args: tuple[Any, ...]) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "test"}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    work(*args)


def run_command(words: list[str]) -> None:
    """Run `distil WORDS` and end with its status."""
    from distil.cli.main import main

    sys.exit(main(words))


def moments() -> random.Random:
    """A source of moments that the clock seeds; the seed is printed, and pytest shows it where a test fails."""
    seed = time.time_ns()
    print(f"moments are drawn with seed {seed}", file=sys.stderr)
    return random.Random(seed)
