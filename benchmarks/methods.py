"""The field's methods at equal time: each with its published parameterization, and each on UDD's DCT coefficients.

    python benchmarks/methods.py run CIFAR10.npz FOLDER --seeds 3                # a second one beside it: --part 2/2
    python benchmarks/methods.py run CIFAR10.npz FOLDER --ipc 10 --seeds 1 --methods dm idc ncfm mtt fred udd
    python benchmarks/methods.py soft CIFAR10.npz FOLDER --sets random:published random:dct udd:published dm:dct
    python benchmarks/methods.py table benchmarks/results/methods-cifar10.jsonl

A tenth of the training images is put aside. Each method in each form has as many steps as --minutes of one processor
allow (measured once; a row in the results says how many, so that another machine takes as many) and a learning rate
from a search: runs of three tenths of the steps with a third of, once and three times the rate, and further while the
best is at an edge, judged on the images put aside with protocol quick. The test images are opened for the table alone:
protocol medium, three networks a set. Experts are trained once for all methods that use them; they and proxy networks
are counted apart. FOLDER keeps experts and sets. Every result is a row in benchmarks/results/methods-NAME.jsonl, and
what is there is not done again.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from distil import (
    DistilledSet,
    Matching,
    Selection,
    Trajectory,
    evaluate_distilled,
    open_ensemble,
    open_source,
    preset,
    protocol_for,
    train_experts,
)
from distil.dataset.compose import matching_loop, task_of, trajectory_loop
from distil.dataset.config import Experts, HardLabels, experts_of
from distil.dataset.distil import distil_dataset, finished
from distil.dataset.methods import METHODS as KNOWN
from distil.dataset.methods.shared import scaled
from distil.distilled_set.labeling import labeled_by
from distil.memory import freed_memory_kept
from parts import proxy_of

RESULTS = Path(__file__).parent / "results"
METHODS = ("random", "herding", "dm", "dsa", "idc", "dream", "idm", "ncfm", "mtt", "datm", "fred", "udd")
FORMS = ("published", "dct")
WIDTH, ASIDE, SEARCHED, RATES = 32, 0.1, 0.3, 6
"""Width of all networks; share of the training images that is put aside; share of the steps that a run of a search has;
learning rates of a search, at most."""
EXPERTS = Experts(runs=10, epochs=10, lr=0.02, batch=128)
"""Those of mtt, datm and fred."""

Learning = Matching | Trajectory
Row = dict[str, Any]


def settings_of(method: str, form: str, key: str, ipc: int) -> Learning | Selection:
    """The method's settings for minutes, the same on every machine."""
    made = preset(method, key, ipc, "fast" if KNOWN[method].has_fast else "published")
    if isinstance(made, Selection):
        observer = made.observer and replace(made.observer, width=WIDTH, network_epochs=10)
        return replace(made, validation=0, observer=observer)
    made = replace(made, width=WIDTH, validation=0, validations=0, optimizer=scaled(made.optimizer))
    if form == "dct" and method != "udd":
        udd = preset("udd", key, ipc, "fast")
        assert isinstance(udd, Matching)
        chosen = replace(udd.parameterization, init_from=getattr(made.parameterization, "init_from", "random"))
        made = replace(made, parameterization=chosen)
    if isinstance(made, Trajectory):
        return replace(made, experts=EXPERTS, labels=HardLabels())
    return replace(made, bfloat16="none")


def with_steps(settings: Learning, steps: int) -> Learning:
    """As many steps, or as many networks as make them."""
    if isinstance(settings, Trajectory):
        return replace(settings, steps=max(1, steps))
    return replace(settings, outer=max(1, round(steps / (settings.inner * settings.target_reuse))))


class Laboratory:
    """One data set: its images, its experts, its rows."""

    def __init__(self, path: Path, folder: Path, minutes: float) -> None:
        source = open_source(str(path))
        assert source.test is not None
        self.name, self.key, self.folder, self.minutes = path.stem, source.key, folder, minutes
        self.real, aside = source.train.split(ASIDE, 0)
        self.aside = aside if len(aside.labels) <= 2000 else aside.split(1 - 2000 / len(aside.labels), 0)[0]
        self.test = source.test
        self.path = RESULTS / f"methods-{self.name}.jsonl"

    def rows(self, **wanted: Any) -> list[Row]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]

    def add(self, **row: Any) -> Row:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
        return row

    def experts(self, wanted: Experts) -> Any:
        """Trained once into the folder; how long that took is a row."""
        began = time.process_time()
        made = train_experts(self.real, wanted, self.experts_folder(wanted), width=WIDTH)
        if not self.rows(kind="experts", runs=wanted.runs, epochs=wanted.epochs):
            seconds = round(time.process_time() - began)
            self.add(kind="experts", runs=wanted.runs, epochs=wanted.epochs, seconds=seconds)
        return made

    def experts_folder(self, wanted: Experts) -> Path:
        return self.folder / f"experts-{self.name}-{wanted.runs}x{wanted.epochs}"

    def set_path(self, method: str, form: str, ipc: int, seed: int) -> Path:
        return self.folder / f"{self.name}-{method}-{form}-{ipc}-{seed}.safetensors"

    def made(self, settings: Learning, proxies: dict[int, Any], limit: float | None = None) -> tuple[Any, Row]:
        """A finished loop, or one stopped after `limit` seconds of whole networks; and what it took."""
        task, began = task_of(self.real, settings), time.process_time()
        if (wanted := experts_of(settings)) is not None:
            task.experts = self.experts(wanted)
        if settings.seed not in proxies:
            proxies[settings.seed] = proxy_of(self.real, settings)  # type: ignore[arg-type]
        task.proxy = proxies[settings.seed]
        finish = partial(finished, real=self.real, settings=settings)
        make: Any = trajectory_loop if isinstance(settings, Trajectory) else matching_loop
        loop = make(task, settings, finish)
        loop.begin()
        prepared, began = time.process_time() - began, time.process_time()
        network = 1 if isinstance(settings, Trajectory) else settings.inner * settings.target_reuse
        while loop.done < loop.steps:
            loop.step()
            if limit and loop.done % network == 0 and time.process_time() - began > limit:
                break
        spent = {"prepared": round(prepared, 1), "seconds": round(time.process_time() - began, 1)}
        return loop, spent | {"steps": loop.done}

    def steps(self, method: str, form: str, ipc: int) -> int:
        """How many steps the minutes of one processor allow, on the machine that measured it first."""
        found = self.rows(kind="steps", method=method, form=form, ipc=ipc, minutes=self.minutes)
        if found:
            return found[0]["steps"]
        settings = settings_of(method, form, self.key, ipc)
        assert not isinstance(settings, Selection)
        _, spent = self.made(with_steps(settings, 10**6), {}, limit=25)
        steps = int(60 * self.minutes * spent["steps"] / spent["seconds"])
        self.add(kind="steps", method=method, form=form, ipc=ipc, minutes=self.minutes, steps=steps)
        return steps

    def best_rate(self, method: str, form: str, ipc: int) -> float:
        """The learning rate of the highest accuracy on the images put aside."""
        settings = settings_of(method, form, self.key, ipc)
        assert not isinstance(settings, Selection)
        head: Row = {"kind": "search", "method": method, "form": form, "ipc": ipc, "minutes": self.minutes}
        found = {row["factor"]: row["mean"] for row in self.rows(**head)}
        short = with_steps(settings, int(SEARCHED * self.steps(method, form, ipc)))
        base, tried, proxies = settings.optimizer.lr, [0, -1, 1], {}
        while True:
            for power in tried:
                if power in found:
                    continue
                optimizer = replace(short.optimizer, lr=base * 3.0**power)
                loop, spent = self.made(replace(short, optimizer=optimizer), proxies)
                scores = evaluate_distilled(
                    loop.snapshot(), self.aside, protocol_for("quick", self.key), width=WIDTH, runs=2
                )
                found[power] = fmean(scores.mean.values())
                self.add(**head, factor=power, lr=optimizer.lr, mean=round(found[power], 2), **spent)
            best = max(found, key=lambda power: found[power])
            if best not in (min(found), max(found)) or len(found) >= RATES:
                return base * 3.0**best
            tried = [best + (1 if best == max(found) else -1)]

    def score(self, method: str, form: str, ipc: int, seed: int) -> None:
        head: Row = {"kind": "score", "method": method, "form": form, "ipc": ipc, "seed": seed, "minutes": self.minutes}
        if self.rows(**head):
            return
        settings = replace(settings_of(method, form, self.key, ipc), seed=seed)
        if isinstance(settings, Selection):
            began = time.process_time()
            made = self.chosen(settings, form)
            spent: Row = {"prepared": round(time.process_time() - began, 1), "seconds": 0.0, "steps": 0}
        else:
            settings = with_steps(settings, self.steps(method, form, ipc))
            settings = replace(settings, optimizer=replace(settings.optimizer, lr=self.best_rate(method, form, ipc)))
            loop, spent = self.made(settings, {})
            made = loop.snapshot()
            spent["lr"] = settings.optimizer.lr
        made.save(self.set_path(method, form, ipc, seed))
        self.judge(made, head | spent)

    def chosen(self, settings: Selection, form: str) -> DistilledSet:
        """Real images; or as many as UDD's items hold, as their kept frequencies show them."""
        if form == "published":
            return distil_dataset(self.real, settings)
        udd = settings_of("udd", "published", self.key, settings.ipc)
        assert isinstance(udd, Matching)
        udd = replace(udd, seed=settings.seed, method=settings.method)
        task = task_of(self.real, udd)
        task.proxy = proxy_of(self.real, udd)
        loop = matching_loop(task, udd, partial(finished, real=self.real, settings=udd))
        loop.begin()
        many = loop.placed.images_per_item
        images = distil_dataset(self.real, replace(settings, ipc=settings.ipc * many)).decoded().images
        loop.params.data.copy_(loop.placed.encode(images.unflatten(0, (-1, many))))
        return loop.snapshot()

    def judge(self, made: DistilledSet, head: Row) -> None:
        rules = protocol_for("medium", self.key)
        scores = evaluate_distilled(made, self.test, rules, width=WIDTH, runs=3, seed=head["seed"])
        accuracies = [round(value, 2) for value in next(iter(scores.accuracies.values()))]
        self.add(
            **head, bytes=scores.bytes, labels=scores.labels, accuracies=accuracies, mean=round(fmean(accuracies), 2)
        )


def run(args: argparse.Namespace) -> None:
    laboratory = Laboratory(args.source, args.folder, args.minutes)
    part, parts = map(int, args.part.split("/"))
    pairs = [(m, form) for m in args.methods for form in args.forms if (m, form) != ("udd", "dct")]
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for method, form in pairs[part - 1 :: parts]:
            laboratory.score(method, form, args.ipc, seed)


def soft(args: argparse.Namespace) -> None:
    """The sets that are there once more, with the soft labels of all experts stored in them."""
    laboratory = Laboratory(args.source, args.folder, args.minutes)
    teacher = open_ensemble([laboratory.experts_folder(EXPERTS)])
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.sets:
            method, form = name.split(":")
            head: Row = {"kind": "soft", "method": method, "form": form, "ipc": args.ipc, "seed": seed}
            head["minutes"] = args.minutes
            if laboratory.rows(**head):
                continue
            made = labeled_by(DistilledSet.load(laboratory.set_path(method, form, args.ipc, seed)), teacher)
            laboratory.judge(made, head)


def table(args: argparse.Namespace) -> None:
    rows = [json.loads(line) for line in args.results.read_text().splitlines()]
    for ipc in sorted({row["ipc"] for row in rows if row["kind"] == "score"}):
        print(f"\n{ipc} per class\n")
        print("| method | published form | learning rate | steps | UDD's DCT | learning rate | steps |")
        print("|---|---|---|---|---|---|---|")
        for method in METHODS:
            cells = [cell for form in FORMS for cell in _cells(rows, method, form, ipc)]
            if any(cells):
                print(f"| {method} | " + " | ".join(cells) + " |")


def _cells(rows: Sequence[Row], method: str, form: str, ipc: int) -> list[str]:
    """Accuracy over seeds, learning rate, steps."""
    form = "published" if method == "udd" else form
    wanted = {"kind": "score", "method": method, "form": form, "ipc": ipc}
    found = [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]
    if not found:
        return ["", "", ""]
    means = [row["mean"] for row in found]
    spread = f" ± {stdev(means):.1f}" if len(means) > 1 else ""
    rate = f"{found[0]['lr']:.2g}" if "lr" in found[0] else "-"
    return [f"{fmean(means):.1f}{spread} ({len(means)})", rate, f"{found[0]['steps']:,}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running, labeling = commands.add_parser("run"), commands.add_parser("soft")
    for parser_of in (running, labeling):
        parser_of.add_argument("source", type=Path)
        parser_of.add_argument("folder", type=Path)
        parser_of.add_argument("--ipc", type=int, default=1)
        parser_of.add_argument("--first-seed", type=int, default=0)
        parser_of.add_argument("--seeds", type=int, default=3)
        parser_of.add_argument("--minutes", type=float, default=5)
    running.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    running.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    running.add_argument("--part", default="1/1", help="K/N: every Nth of the methods and forms, from the Kth on")
    running.set_defaults(command=run)
    labeling.add_argument("--sets", nargs="+", required=True, metavar="METHOD:FORM")
    labeling.set_defaults(command=soft)
    shown = commands.add_parser("table")
    shown.add_argument("results", type=Path)
    shown.set_defaults(command=table)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with freed_memory_kept():
        args.command(args)


if __name__ == "__main__":
    main()
