"""Stop every command that writes, at random moments and by every signal, go on, and compare the bytes.

    python benchmarks/kills.py --kills 60                          all commands, one after another
    python benchmarks/kills.py --kills 12 --commands "dataset udd"  some of them
    python benchmarks/kills.py --replay 17                         the kills of one trial again, with what was printed
    python benchmarks/kills.py --table               the table of docs/results/reliability.md from the last result

A trial starts a command on a few small images and sends it SIGKILL, SIGTERM, SIGINT, SIGHUP, SIGUSR1 or SIGXCPU at a
moment that (seed, trial) decides, after its libraries are loaded; a third of the trials are stopped twice. Then it
continues as a user would: with the command that the message names, else with --resume where there is a run folder,
else with the same command again. It fails unless the results have the bytes of a run that nobody stopped, no .part,
.lock or .old file is left, no traceback was printed, every exit status is 0 or that of the signal (130 for Ctrl-C), and
a run that said at which step it stopped continued from there. The first run of a command gives its bytes and its
duration.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "kills.json"
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGXCPU")
TWICE = 1 / 3
"""Share of the trials that are stopped again while they continue."""
LONGEST = 300.0
"""Seconds after which a command hangs."""
LEFT = (".part", ".lock", ".old")
"""How names end of what no finished command may leave."""
SLOW_DISK = 0.05
"""Seconds by which moving a finished file into place is drawn out, so that some kills come between the two."""
READY = "DISTIL_KILLS_READY"
"""Names the descriptor on which a child says that the command begins, and that it is done."""

DISTIL = "dataset {method} numbers.npz --out run --device cpu --width 8 --batch 8 --network-samples 16"
DISTIL += " --validations 2 --checkpoint-seconds 0.2"
STUDENT = "--detector retinanet --backbone timm:test_resnet --norm group --channels 16 --min-size 64 --max-size 64"
STUDENT += " --anchor 16 --head-convs 1 --batch 4 --lr 0.001 --optimizer adamw --device cpu --checkpoint-seconds 0.2"
TAUGHT = f"{STUDENT} --prototype-side 4 --teacher-floor 0"


@dataclass(frozen=True)
class Command:
    """A command that writes.

    words: what a user types. resume: how its run continues when no message says so; "" for the same words again.
    results: the files that must have equal bytes, as patterns. before: commands that make what it needs.
    manifest: a file of its run folder: while there is none, the command is simply given again.
    """

    words: str
    results: tuple[str, ...]
    resume: str = ""
    before: tuple[str, ...] = ()
    manifest: str = "run/run.json"


SET = "dataset random numbers.npz --out set --device cpu"
TEACHER = f"detector train coco:squares --out teacher {STUDENT} --epochs 1"
RUN = ("run/distilled.safetensors", "run/log.jsonl")
TRAINED = ("run/student.safetensors", "run/last.safetensors", "run/best.safetensors", "run/log.jsonl")

COMMANDS: dict[str, Command] = {
    "dataset idc": Command(DISTIL.format(method="idc") + " --outer 6 --inner 10", RUN, "dataset --resume run"),
    "dataset udd": Command(
        DISTIL.format(method="udd") + " --outer 6 --inner 10 --proxy-steps 40", RUN, "dataset --resume run"
    ),
    "dataset udd-windows": Command(
        DISTIL.format(method="udd-windows") + " --outer 4 --inner 10 --proxy-steps 40", RUN, "dataset --resume run"
    ),
    "dataset herding": Command(
        "dataset herding numbers.npz --out run --device cpu --width 8 --network-epochs 40", RUN, "dataset --resume run"
    ),
    "evaluate": Command(
        "evaluate set/distilled.safetensors numbers.npz --protocol quick --networks convnet3,vgg11 --runs 3 --width 8 "
        "--device cpu",
        ("set/distilled.safetensors.scores.json",),
        before=(SET,),
    ),
    "export folder": Command(
        "export set/distilled.safetensors --to folder --out exported --overwrite", ("exported/**/*",), before=(SET,)
    ),
    "export npz": Command(
        "export set/distilled.safetensors --to npz --out exported.npz --overwrite", ("exported.npz",), before=(SET,)
    ),
    "detector train": Command(
        f"detector train coco:squares --out run {STUDENT} --epochs 3", TRAINED, "detector train --resume run"
    ),
    "detector distil": Command(
        f"detector train coco:squares --teacher teacher --out run {TAUGHT} --epochs 3 --loss gkd,pkd=0.5",
        (*TRAINED, "run/prototypes-*.safetensors"),
        "detector train --resume run",
        before=(TEACHER,),
    ),
    "detector compare": Command(
        f"detector compare teacher coco:squares --out run {TAUGHT} --epochs 1 --seeds 2 --losses gkd",
        ("run/*/seed-*/last.safetensors", "run/*/seed-*/result.json", "run/comparison.json"),
        before=(TEACHER,),
    ),
    "demo": Command("demo --out run --device cpu", ("run/*/distilled.safetensors",)),
    "demo detector": Command("demo detector --out run --device cpu", ("run/*/last.safetensors", "run/summary.json")),
}


@dataclass
class Trial:
    """What became of one trial.

    signals, moments: what was sent, and how many seconds after the start of the command. words, statuses: of every
    command, the stopped ones first. stopped_at: the steps at which runs said that they stopped. missed: how often a
    command was done before its signal came. faults: what was wrong.
    """

    command: str
    number: int
    signals: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    stopped_at: list[int] = field(default_factory=list)
    missed: int = 0
    faults: list[str] = field(default_factory=list)
    output: str = ""


@dataclass(frozen=True)
class Reference:
    """A run that nobody stopped: its results' content by path, and how long it took."""

    results: dict[str, str]
    seconds: float


# One command as a process


def child(words: list[str]) -> int:
    """The command line with fewer steps where a command has no flag for that; says when it begins."""
    try:
        import distil.cli.detector_tour
        import distil.cli.tour
        from distil.cli import dataset
        from distil.cli.main import main
        from distil.dataset.config import Matching
        from distil.evaluation.protocols import PROTOCOLS
        from parts import changed

        os.replace = _slowly(os.replace)
        PROTOCOLS["quick"] = replace(PROTOCOLS["quick"], max_updates=40, whole_updates=40)
        dataset.FOLLOWED = 10
        of_method = distil.cli.tour.preset

        def small(method: str, key: str, ipc: int) -> Any:
            settings = of_method(method, key, ipc)
            assert isinstance(settings, Matching)
            small = {"outer": 2, "inner": 4, "width": 8, "network_samples": 16, "batch": 8}
            return changed(settings, small | ({"proxy_steps": 5} if method == "udd" else {}))

        distil.cli.tour.preset = small
        tour = distil.cli.detector_tour.run_detector_demo
        distil.cli.detector_tour.run_detector_demo = lambda out, **more: tour(out, **more, scenes=16, epochs=(1, 2))
    except KeyboardInterrupt:
        return 130
    say_ready()
    try:
        return main(words)
    finally:
        say_ready()


def say_ready() -> None:
    """Tell the parent that the command begins, and again that it is done: what is left is Python's own end."""
    with contextlib.suppress(OSError, KeyError):
        os.write(int(os.environ[READY]), b"!")


def _slowly(move: Callable[..., None]) -> Callable[..., None]:
    def moved(*arguments: Any, **more: Any) -> None:
        time.sleep(SLOW_DISK)
        move(*arguments, **more)

    return moved


def line_of(words: str) -> list[str]:
    """What is run for `distil WORDS`."""
    return [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--child", *shlex.split(words)]


def _heed_signals() -> None:
    """Started by nohup, this program ignores SIGHUP, and so would its children."""
    for name in SIGNALS[1:]:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


@dataclass
class Running:
    """A command as a process. ready: where it says that it is done. began: when it had loaded its libraries."""

    process: subprocess.Popen
    ready: int
    began: float

    def done_within(self, seconds: float) -> bool:
        """Wait until the command is done, at most so long after it began."""
        left = max(0.0, self.began + seconds - time.monotonic())
        return bool(select.select([self.ready], [], [], left)[0])

    def status(self) -> int:
        """Wait until the process has ended. 999: it hangs."""
        os.close(self.ready)
        try:
            return self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return 999


def start(words: str, folder: Path) -> Running:
    """Start a command and wait until it has loaded its libraries."""
    ready, said = os.pipe()
    environment = {**os.environ, READY: str(said), "OMP_NUM_THREADS": "1", "COLUMNS": "500"}
    with open(folder / "out.txt", "wb") as out, open(folder / "err.txt", "wb") as err:
        process = subprocess.Popen(
            line_of(words),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=(said,),
            start_new_session=True,
            preexec_fn=_heed_signals,
        )
    os.close(said)
    os.read(ready, 1)
    return Running(process, ready, time.monotonic())


def finish(words: str, folder: Path) -> tuple[int, str, float]:
    """(status, what was printed, seconds) of a command that is left alone."""
    running = start(words, folder)
    running.done_within(LONGEST)
    seconds = time.monotonic() - running.began
    return running.status(), printed(folder), seconds


def printed(folder: Path) -> str:
    return "\n".join((folder / name).read_text(errors="replace") for name in ("out.txt", "err.txt"))


# Data, results and what is left over


def write_data(folder: Path) -> None:
    """Small images in two classes, and squares with boxes, the same every time."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 20)):
        labels = np.arange(count) % 2
        arrays[f"x_{split}"] = (draws.integers(0, 128, (count, 16, 16)) + 100 * labels[:, None, None]).astype(np.uint8)
        arrays[f"y_{split}"] = labels
    np.savez(folder / "numbers.npz", **arrays)
    squares = folder / "squares"
    (squares / "images").mkdir(parents=True)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        images, annotations = [], []
        for i in range(count):
            pixels = draws.integers(0, 90, (64, 64, 3), dtype=np.uint8)
            x, y = (int(value) for value in draws.integers(4, 28, 2))
            pixels[y : y + 28, x : x + 28, i % 2] = 250
            Image.fromarray(pixels).save(squares / "images" / f"{split}{i}.png")
            images.append({"id": i, "file_name": f"{split}{i}.png", "width": 64, "height": 64})
            box = {"bbox": [x, y, 28, 28], "area": 784, "iscrowd": 0, "category_id": i % 2 + 1}
            annotations.append({"id": i + 1, "image_id": i, **box})
        categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
        table = {"images": images, "annotations": annotations, "categories": categories}
        (squares / f"instances_{split}.json").write_text(json.dumps(table))


def contents(command: Command, folder: Path) -> dict[str, str]:
    """The results of a command: path -> hash of what does not depend on the clock or on the folder's name."""
    paths = sorted({path for pattern in command.results for path in folder.glob(pattern) if path.is_file()})
    found = {}
    for path in paths:
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            data = _steps(data)
        elif path.suffix == ".json":
            data = json.dumps(_timeless(json.loads(data)), sort_keys=True).replace(str(folder), "").encode()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def _steps(log: bytes) -> bytes:
    """What a log says of steps and validations: the same however often the run was stopped, but for the times."""
    lines = [json.loads(line) for line in log.splitlines()]
    kept = [_timeless(line) for line in lines if line["event"] in ("step", "validation", "windows", "cosines")]
    return "\n".join(json.dumps(line, sort_keys=True) for line in kept).encode()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(x) for key, x in value.items() if key not in ("time", "seconds", "preflight")}
    return [_timeless(x) for x in value] if isinstance(value, list) else value


def left_over(folder: Path) -> list[str]:
    """Unfinished files and locks anywhere in the folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name.endswith(LEFT))


# Trials


@cache
def template(before: tuple[str, ...]) -> tempfile.TemporaryDirectory:
    """A folder with the data and with what these commands make. Raises: SystemExit when one of them fails."""
    made = tempfile.TemporaryDirectory(prefix="kills-")
    write_data(Path(made.name))
    for words in before:
        status, told, _ = finish(words, Path(made.name))
        if status:
            raise SystemExit(f"distil {words} failed with status {status}:\n{told}")
    return made


@contextlib.contextmanager
def prepared(command: Command) -> Iterator[Path]:
    """A folder with the data and with what a command needs."""
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name).resolve()
        shutil.copytree(template(command.before).name, folder, dirs_exist_ok=True)
        yield folder


def reference_of(name: str) -> Reference:
    """A run of a command that nobody stops. Raises: SystemExit when it fails by itself."""
    with prepared(COMMANDS[name]) as folder:
        status, told, seconds = finish(COMMANDS[name].words, folder)
        found = contents(COMMANDS[name], folder)
        left = left_over(folder)
        if status or not found or left:
            raise SystemExit(f"distil {COMMANDS[name].words} failed with status {status}, left {left}:\n{told}")
        return Reference(found, seconds)


def run_trial(name: str, number: int, seed: int, reference: Reference, *, keep: Path | None = None) -> Trial:
    """Start a command, stop it once or twice, go on, and look at what is there. keep: for the folder if it failed."""
    command, draw = COMMANDS[name], random.Random(f"kills {seed} {number}")
    trial = Trial(name, number)
    with prepared(command) as folder:
        words, stopped = command.words, True
        for _ in range(1 + (draw.random() < TWICE)):
            moment, name_of_signal = draw.uniform(0.0, reference.seconds), draw.choice(SIGNALS)
            stopped = _stopped(words, folder, moment, name_of_signal, trial)
            if not stopped:
                break
            words = next_words(command, folder, printed(folder))
        if stopped:
            status, told, _ = finish(words, folder)
            trial.words.append(words)
            trial.statuses.append(status)
            trial.output += told
            _look_at_words(told, status, words, trial)
            if status:
                trial.faults.append(f"distil {words} has status {status}: {told.strip()[-300:]}")
        _look_at_results(command, folder, reference, trial)
        if trial.faults and keep is not None:
            shutil.copytree(folder, keep / f"{name.replace(' ', '-')}-{trial.number}", dirs_exist_ok=True)
    return trial


def _stopped(words: str, folder: Path, moment: float, name: str, trial: Trial) -> bool:
    """Start, wait, send the signal; whether that stopped the command before its end."""
    running = start(words, folder)
    trial.words.append(words)
    alive = not running.done_within(moment)
    if alive:
        trial.signals.append(name)
        trial.moments.append(round(moment, 3))
        running.process.send_signal(getattr(signal, name))
    trial.missed += not alive
    status = running.status()
    told = printed(folder)
    trial.statuses.append(status)
    trial.output += told
    number = getattr(signal, name)
    if status not in (0, 130, 128 + number, -number):
        trial.faults.append(f"{name} after {moment:.2f} s gave status {status}: {told.strip()[-300:]}")
    _look_at_words(told, status, words, trial)
    if said := re.search(r"stopped after step (\d+)", told):
        trial.stopped_at.append(int(said[1]))
    return alive and status != 0


def _look_at_words(told: str, status: int, words: str, trial: Trial) -> None:
    if "Traceback (most recent call last)" in told:
        trial.faults.append(f"distil {words}: a traceback, {told.strip().splitlines()[-1][:200]}")
    if status == 999:
        trial.faults.append(f"distil {words}: hangs for {LONGEST:g} s")


def next_words(command: Command, folder: Path, told: str) -> str:
    """How a user continues: as the message says, else by the documented command."""
    if said := re.search(r"continue with (distil [^\n]+)", told):
        return said[1].removeprefix("distil ").rstrip(". ")
    return command.resume if command.resume and (folder / command.manifest).is_file() else command.words


def _look_at_results(command: Command, folder: Path, reference: Reference, trial: Trial) -> None:
    found = contents(command, folder)
    missing = sorted(set(reference.results) - set(found))
    extra = sorted(set(found) - set(reference.results))
    other = sorted(path for path in set(found) & set(reference.results) if found[path] != reference.results[path])
    for what, paths in (("missing", missing), ("not in an uninterrupted run", extra), ("of other bytes", other)):
        if paths:
            trial.faults.append(f"{what}: {', '.join(paths)[:200]}")
    log = folder / "run" / "log.jsonl"
    if trial.stopped_at and log.is_file():
        starts = [
            line.get("step") for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "start"
        ]
        if lost := [step for step in trial.stopped_at[-1:] if step not in starts]:
            trial.faults.append(f"work was lost: the run stopped after step {lost[0]} and continued from {starts[-1]}")
    if left := left_over(folder):
        trial.faults.append(f"left over: {', '.join(left)[:200]}")


# Results


def table(result: dict[str, Any]) -> str:
    """A result as Markdown."""
    head = "| command | trials | kills | stopped | ended at once | went on | equal bytes | faults |"
    lines = [head, "|---|" + "---:|" * 7]
    trials = result["trials"]
    names = dict.fromkeys(trial["command"] for trial in trials)
    lines += [_line(f"`{name}`", [trial for trial in trials if trial["command"] == name]) for name in names]
    lines.append(_line("all", trials))
    by_signal = ", ".join(f"{name} {sum(one['signals'].count(name) for one in trials)}" for name in SIGNALS)
    return "\n".join(lines) + f"\n\nSignals: {by_signal}."


def _line(name: str, trials: Sequence[dict[str, Any]]) -> str:
    kills = sum(len(trial["signals"]) for trial in trials)
    ends = [status for trial in trials for status in trial["statuses"][: len(trial["signals"])]]
    stopped, ended = sum(status >= 128 for status in ends), sum(status < 0 for status in ends)
    equal = sum(not any("bytes" in x or "missing" in x or "not in" in x for x in one["faults"]) for one in trials)
    faults = sum(bool(trial["faults"]) for trial in trials)
    return f"| {name} | {len(trials)} | {kills} | {stopped} | {ended} | {ends.count(0)} | {equal} | {faults} |"


def as_json(trials: list[Trial], references: dict[str, Reference], args: argparse.Namespace) -> dict[str, Any]:
    import torch

    import distil

    return {
        "seed": args.seed,
        "kills": sum(len(trial.signals) for trial in trials),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"distil": distil.__version__, "torch": torch.__version__},
        "seconds": {name: round(one.seconds, 2) for name, one in references.items()},
        "trials": [{key: x for key, x in asdict(trial).items() if key != "output"} for trial in trials],
    }


def kill(args: argparse.Namespace) -> int:
    """Trials, command after command in turn, until there were enough kills; 1 if anything failed."""
    references: dict[str, Reference] = {}
    trials: list[Trial] = []
    numbers = [args.replay] if args.replay is not None else range(10**6)
    for number in numbers:
        if sum(len(trial.signals) for trial in trials) >= args.kills:
            break
        name = args.commands[number % len(args.commands)]
        if name not in references:
            references[name] = reference_of(name)
        trial = run_trial(name, number, args.seed, references[name], keep=args.keep)
        if not trial.signals and not trial.faults:
            print(f"{number:3d} {name}: done before", flush=True)
            continue
        trials.append(trial)
        stops = ", ".join(f"{one} after {at:.2f} s" for one, at in zip(trial.signals, trial.moments, strict=True))
        told = "; ".join(trial.faults) or ("equal" if trial.signals else "done before")
        print(f"{number:3d} {name}: {stops}; statuses {trial.statuses}: {told}", flush=True)
        if args.replay is not None:
            print(trial.output)
    result = as_json(trials, references, args)
    if args.replay is None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    return int(any(trial.faults for trial in trials))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT, help="result as JSON")
    parser.add_argument("--keep", type=Path, help="folder for what failed trials leave")
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="one trial again")
    parser.add_argument("--table", action="store_true", help="the table of docs/results/reliability.md from --out")
    args = parser.parse_args()
    if args.table:
        from fuzz import put_into_page

        put_into_page("kills", table(json.loads(args.out.read_text())))
    else:
        sys.exit(kill(args))


if __name__ == "__main__":
    main()
