"""Damage every kind of file that distil reads, thousands of times, and look at what its readers make of it.

    python benchmarks/fuzz.py --cases 20000                       all targets, two processes
    python benchmarks/fuzz.py --cases 500 --targets COCO VOC      some of them
    python benchmarks/fuzz.py --replay COCO 17                    one case again, in this process, with its traceback
    python benchmarks/fuzz.py --keep COCO 17 --into broken/       the damaged folder of one case, without reading it
    python benchmarks/fuzz.py --table               the table of docs/results/reliability.md from the last result

A case is named by (target, seed, number), which decides what is done to which file. It fails when the reader raises
anything but DistilError, takes over 5 seconds or over 2 GB, refuses in a message that no one would read, refuses a
damage that a good copy can make good, or accepts what the target's oracle (benchmarks/fuzzing) calls nonsense. A file
that still carries the checksum of before is accepted only with the same content. Failures are written to the result
with all that --replay needs. The exit status is 1 if there are failures.
"""

import argparse
import json
import platform
import shutil
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import distil
from fuzzing.case import GOOD, PEAK, SECONDS, Outcome, damaged_folder, run_case
from fuzzing.pool import run
from fuzzing.targets import TARGETS, shares

RESULT = Path(__file__).parent / "results" / "fuzz.json"
PAGE = Path(__file__).parent.parent / "docs" / "results" / "reliability.md"


@dataclass
class Row:
    """A target's results. failures: by kind. seconds, peak: of its slowest and of its largest case, whose
    numbers are slowest and largest."""

    cases: int = 0
    refused: int = 0
    equal: int = 0
    valid: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    peak: int = 0
    slowest: int = -1
    largest: int = -1

    def add(self, outcome: Outcome) -> None:
        self.cases += 1
        if outcome.kind in GOOD:
            setattr(self, outcome.kind, getattr(self, outcome.kind) + 1)
        else:
            self.failures[outcome.kind] = self.failures.get(outcome.kind, 0) + 1
        if outcome.seconds > self.seconds:
            self.seconds, self.slowest = outcome.seconds, outcome.number
        if outcome.peak > self.peak:
            self.peak, self.largest = outcome.peak, outcome.number


def table(result: dict[str, Any]) -> str:
    """A result as Markdown."""
    head = "| file | cases | refused | accepted, equal | accepted, valid | failures | slowest s | most memory MB |"
    lines = [head, "|---|" + "---:|" * 7]
    for name, row in result["targets"].items():
        lines.append(_line(name, row["cases"], row["refused"], row["equal"], row["valid"], row["failures"], row))
    rows = result["targets"].values()
    cases, refused, equal, valid = (sum(row[key] for row in rows) for key in ("cases", "refused", "equal", "valid"))
    failures: dict[str, int] = {}
    for row in rows:
        for kind, count in row["failures"].items():
            failures[kind] = failures.get(kind, 0) + count
    most = {key: max(row[key] for row in rows) for key in ("seconds", "peak")}
    lines.append(_line("all", cases, refused, equal, valid, failures, most))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="in all, shared among the targets")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=RESULT, help="result as JSON")
    parser.add_argument("--replay", nargs=2, metavar=("NAME", "NUMBER"), help="one case again, with its traceback")
    parser.add_argument("--keep", nargs=2, metavar=("NAME", "NUMBER"), help="write one case's folder to --into")
    parser.add_argument("--into", type=Path, default=Path("case"))
    parser.add_argument("--table", action="store_true", help="the table of docs/results/reliability.md from --out")
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
