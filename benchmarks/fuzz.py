"""Damage every kind of file that distil reads, thousands of times, and look at what its readers make of it.

    python benchmarks/fuzz.py --cases 20000                       all targets, two processes
    python benchmarks/fuzz.py --cases 500 --targets COCO VOC      some of them
    python benchmarks/fuzz.py --replay COCO 17                    one case again, in this process, with its traceback
    python benchmarks/fuzz.py --keep COCO 17 --into broken/       the damaged folder of one case, without reading it
    python benchmarks/fuzz.py --table                             the table of docs/reliability.md from the last result

A case is named by (target, seed, number), which decides what is done to which file. It fails when the reader raises
anything but DistilError, takes over 5 seconds or over 2 GB, refuses in a message that no one would read, refuses a
damage that a good copy can make good, or accepts what the target's oracle (fuzz_targets.py) calls nonsense. A file that
still carries the checksum of before is accepted only with the same content. Failures are written to the result with
all that --replay needs. The exit status is 1 if there are failures.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzz_targets import Case, Files, Target

RESULT = Path(__file__).parent / "results" / "fuzz.json"
PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"

SECONDS = 5.0
"""A case that takes longer hangs."""
PEAK = 2 << 30
"""Bytes: a case that takes more memory than the process had before it asks for too much."""
GUARD = 3 << 30
"""Bytes that a process may take beyond what it has when it starts, so that nothing else on the machine suffers."""
PATIENCE = 3 * SECONDS
"""After so long without a word a process is stuck outside of Python and is killed."""
LONGEST_MESSAGE = 1500
"""Characters of a refusal that can still be read."""
BLOCK = 50
"""Cases that a process is handed at a time."""


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
FAILURES = ("exception", "nonsense", "message", "lost", "hang", "memory", "seed")


class Hang(BaseException):
    """Raised in a reader that takes too long; no `except Exception` catches it."""


@dataclass
class Row:
    """A target's results. failures: by kind. seconds, peak: of its slowest and of its largest case."""

    cases: int = 0
    refused: int = 0
    equal: int = 0
    valid: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    peak: int = 0

    def add(self, outcome: Outcome) -> None:
        self.cases += 1
        if outcome.kind in GOOD:
            setattr(self, outcome.kind, getattr(self, outcome.kind) + 1)
        else:
            self.failures[outcome.kind] = self.failures.get(outcome.kind, 0) + 1
        self.seconds = max(self.seconds, outcome.seconds)
        self.peak = max(self.peak, outcome.peak)


# One case


@cache
def seed_of(name: str) -> tuple["Target", "Files", dict[str, Any]]:
    """A target, its valid folder, and what its reader makes of each file that is damaged. Raises: ValueError when the
    reader refuses the seed, or it is nonsense."""
    from distil.errors import DistilError
    from fuzz_targets import TARGETS, Case

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


def damageable(target: "Target", files: "Files") -> list[str]:
    return sorted(name for name in files if name.endswith(target.damaged))


@contextmanager
def written(files: "Files") -> Iterator[Path]:
    """A folder that holds these files, as the working folder of the block."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast) as name:
        folder = Path(name)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        with chdir(folder):
            yield folder


def damaged_folder(name: str, seed: int, number: int) -> tuple["Files", str, Any]:
    """(the folder's files after the damage, which file it was, the mutation) of one case."""
    from fuzz_mutations import mutate

    target, files, _ = seed_of(name)
    draw = random.Random(f"{name} {seed} {number}")
    file = draw.choice(damageable(target, files))
    mutation = mutate(file, files[file], draw)
    rest = {path: content for path, content in files.items() if path != file}
    return rest if mutation.content is None else {**rest, file: mutation.content}, file, mutation


def run_case(name: str, seed: int, number: int, *, raising: bool = False) -> Outcome:
    """Damage one file of a target and read it. raising: let what fails be raised, for its traceback."""
    from distil.errors import DistilError
    from fuzz_targets import Case

    target, _, content = seed_of(name)
    files, file, mutation = damaged_folder(name, seed, number)

    def outcome(kind: str, detail: str = "") -> Outcome:
        told = " ".join(detail.split())[:600]
        return Outcome(name, number, kind, file, mutation.what[:300], told, time.monotonic() - began, peak())

    with written(files) as folder:
        peak = peak_memory()
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


def _nonsense(target: "Target", found: Any, case: "Case") -> str:
    try:
        return target.nonsense(found, case)
    except (MemoryError, RuntimeError):
        raise
    except Exception as error:
        return f"the oracle cannot make use of it: {type(error).__name__}: {error} in {_place(error.__traceback__)}"


def _refused(target: "Target", file: str, mutation: Any, message: str) -> tuple[str, str]:
    if "out of memory" in message:
        return "memory", message
    if target.falls_back and file.endswith(target.falls_back) and mutation.sealed:
        return "lost", f"refused, but a good copy is there or can be made: {message}"
    if len(message) > LONGEST_MESSAGE or not message.strip():
        return "message", f"a refusal of {len(message)} characters: {message}"
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


class peak_memory:
    """Called later: the bytes by which the process's resident memory has been larger since than it is now."""

    def __init__(self) -> None:
        self.known = True
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")
        except OSError:  # not Linux
            self.known = False

    def __call__(self) -> int:
        return max(0, _status("VmHWM") - self.before) if self.known else 0


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


# Many cases, in processes that may die


def work(connection: Connection, seed: int) -> None:
    """Run the blocks (target, numbers) that arrive, until None does; say before each case what it is."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ["COLUMNS"] = "100"
    if sys.platform.startswith("linux"):
        limit = _status("VmData") + GUARD
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
            connection.send(("done", run_case(name, seed, number)))
        _trim()
        connection.send(("free", None))


def _trim() -> None:
    """Give freed memory back, so that the next case is measured from what is in use."""
    if sys.platform.startswith("linux"):
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


@dataclass
class Worker:
    """A process, and what it is at: its block, the case in it, and since when."""

    process: Any
    connection: Connection
    block: tuple[str, list[int]] | None = None
    number: int = -1
    since: float = 0.0


def started(seed: int) -> Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, seed), daemon=True)
    process.start()
    there.close()
    return Worker(process, here)


def run(counts: dict[str, int], seed: int, jobs: int, told: Any = None) -> Iterator[Outcome]:
    """The outcomes of so many cases of each target, as they come."""
    blocks = [
        (name, list(range(first, min(first + BLOCK, count))))
        for name, count in counts.items()
        for first in range(0, count, BLOCK)
    ]
    blocks.reverse()
    refused: set[str] = set()
    workers = [started(seed) for _ in range(min(jobs, len(blocks)))]
    for worker in workers:
        _next_block(worker, blocks, refused)
    try:
        while busy := [worker for worker in workers if worker.block is not None]:
            ready = wait([worker.connection for worker in busy], timeout=1.0)
            for worker in busy:
                if worker.connection in ready:
                    yield from _heard(worker, workers, blocks, refused, seed)
                elif worker.number >= 0 and time.monotonic() - worker.since > PATIENCE:
                    yield from _died(worker, workers, blocks, refused, seed, "hang")
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def _next_block(worker: Worker, blocks: list[tuple[str, list[int]]], refused: set[str]) -> None:
    worker.block, worker.number, worker.since = None, -1, time.monotonic()
    while blocks and blocks[-1][0] in refused:
        blocks.pop()
    if blocks:
        worker.block = blocks.pop()
        worker.connection.send(worker.block)


def _heard(
    worker: Worker, workers: list[Worker], blocks: list[tuple[str, list[int]]], refused: set[str], seed: int
) -> Iterator[Outcome]:
    try:
        kind, value = worker.connection.recv()
    except (EOFError, OSError):
        yield from _died(worker, workers, blocks, refused, seed, "exception")
        return
    if kind == "began":
        worker.number, worker.since = value, time.monotonic()
    elif kind == "done":
        worker.number = -1
        if value.kind != "seed" or value.target not in refused:
            yield value
        if value.kind == "seed":
            refused.add(value.target)
    elif kind == "free":
        _next_block(worker, blocks, refused)


def _died(
    worker: Worker, workers: list[Worker], blocks: list[tuple[str, list[int]]], refused: set[str], seed: int, kind: str
) -> Iterator[Outcome]:
    """A process that is stuck or gone: its case has failed, another process goes on behind it."""
    worker.process.kill()
    worker.process.join()
    assert worker.block is not None
    name, numbers = worker.block
    if worker.number < 0:
        raise RuntimeError(f"a process ended outside of any case of {name}, with status {worker.process.exitcode}")
    detail = "no answer, and deaf to its alarm" if kind == "hang" else f"the process died, {worker.process.exitcode}"
    seconds = time.monotonic() - worker.since
    file, what = _described(name, seed, worker.number)
    yield Outcome(name, worker.number, kind, file, what, detail, seconds)
    rest = numbers[numbers.index(worker.number) + 1 :]
    if rest:
        blocks.append((name, rest))
    workers.remove(worker)
    workers.append(started(seed))
    _next_block(workers[-1], blocks, refused)


def _described(name: str, seed: int, number: int) -> tuple[str, str]:
    _, file, mutation = damaged_folder(name, seed, number)
    return file, mutation.what[:300]


def shares(names: Sequence[str], cases: int) -> dict[str, int]:
    """How many cases each target has, so that all are about `cases`."""
    from fuzz_targets import TARGETS

    whole = sum(TARGETS[name].share for name in names)
    counts = {name: max(1, round(cases * TARGETS[name].share / whole)) for name in names}
    largest = max(counts, key=lambda name: counts[name])
    return counts | {largest: max(1, counts[largest] + cases - sum(counts.values()))}


# Results


def table(result: dict[str, Any]) -> str:
    """A result as Markdown."""
    head = "| file | cases | refused | accepted, equal | accepted, valid | failures | slowest s | most memory MB |"
    lines = [head, "|---|" + "---:|" * 7]
    for name, row in result["targets"].items():
        lines.append(_line(name, row["cases"], row["refused"], row["equal"], row["valid"], row["failures"], row))
    rows = result["targets"].values()
    sums = [sum(row[key] for row in rows) for key in ("cases", "refused", "equal", "valid")]
    failures: dict[str, int] = {}
    for row in rows:
        for kind, count in row["failures"].items():
            failures[kind] = failures.get(kind, 0) + count
    most = {key: max(row[key] for row in rows) for key in ("seconds", "peak")}
    lines.append(_line("all", *sums, failures, most))
    return "\n".join(lines)


def _line(name: str, cases: int, refused: int, equal: int, valid: int, failures: dict[str, int], most: Any) -> str:
    failed = ", ".join(f"{count} {kind}" for kind, count in failures.items()) or "0"
    numbers = f"{cases:,} | {refused:,} | {equal:,} | {valid:,} | {failed}"
    return f"| {name} | {numbers} | {most['seconds']:.2f} | {most['peak'] / 2**20:.0f} |"


def put_into_page(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between <!-- NAME --> and <!-- end NAME --> in a page."""
    content = page.read_text()
    before, start, rest = content.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end {name} -->")
    if not start or not end:
        raise SystemExit(f"{page} has no place for the table: <!-- {name} --> and <!-- end {name} -->")
    page.write_text(f"{before}{start}{text}\n{end}{after}")


def as_json(rows: dict[str, Row], failures: list[Outcome], args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    import torch

    import distil

    return {
        "seed": args.seed,
        "cases": sum(row.cases for row in rows.values()),
        "seconds": round(seconds, 1),
        "jobs": args.jobs,
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"distil": distil.__version__, "torch": torch.__version__},
        "limits": {"seconds": SECONDS, "bytes": PEAK},
        "targets": {name: {**asdict(row), "seconds": round(row.seconds, 3)} for name, row in rows.items()},
        "failures": [{**asdict(one), "seconds": round(one.seconds, 3)} for one in failures],
    }


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="in all, shared among the targets")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=RESULT, help="result as JSON")
    parser.add_argument("--replay", nargs=2, metavar=("NAME", "NUMBER"), help="one case again, with its traceback")
    parser.add_argument("--keep", nargs=2, metavar=("NAME", "NUMBER"), help="write one case's folder to --into")
    parser.add_argument("--into", type=Path, default=Path("case"))
    parser.add_argument("--table", action="store_true", help="write the table of docs/reliability.md from --out")
    args = parser.parse_args()
    if args.table:
        put_into_page("fuzz", table(json.loads(args.out.read_text())))
    elif args.replay:
        warnings.simplefilter("ignore")
        print(json.dumps(asdict(run_case(args.replay[0], args.seed, int(args.replay[1]), raising=True)), indent=1))
    elif args.keep:
        shutil.rmtree(args.into, ignore_errors=True)
        for path, content in damaged_folder(args.keep[0], args.seed, int(args.keep[1]))[0].items():
            (args.into / path).parent.mkdir(parents=True, exist_ok=True)
            (args.into / path).write_bytes(content)
    else:
        sys.exit(fuzz(args))


def fuzz(args: argparse.Namespace) -> int:
    """Run the cases, write the result, print its table; 1 if anything failed."""
    rows = {name: Row() for name in args.targets}
    failures: list[Outcome] = []
    began = shown = time.monotonic()
    for outcome in run(shares(args.targets, args.cases), args.seed, args.jobs):
        rows[outcome.target].add(outcome)
        if outcome.kind not in GOOD:
            failures.append(outcome)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            done = sum(row.cases for row in rows.values())
            print(f"{done} of {args.cases} cases, {len(failures)} failures", file=sys.stderr, flush=True)
    failures.sort(key=lambda one: (list(args.targets).index(one.target), one.number))
    result = as_json(rows, failures, args, time.monotonic() - began)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    for one in failures[:20]:
        print(f"{one.kind}: --replay {one.target!r} {one.number}: {one.mutation[:80]}: {one.detail[:200]}")
    if len(failures) > 20:
        print(f"... and {len(failures) - 20} more in {args.out}")
    return int(bool(failures))


if __name__ == "__main__":
    main()
