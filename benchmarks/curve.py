"""Accuracy against minutes: the reference loop and ours, from the same images, as one picture.

    python benchmarks/curve.py run CIFAR10.npz reference FOLDER --minutes 40 --set width=32 lr_image=0.02 inner=10
    python benchmarks/curve.py run CIFAR10.npz ours FOLDER --minutes 10 --set width=32 network_data=matched
    python benchmarks/curve.py judge CIFAR10.npz FOLDER --protocol quick --width 32 --runs 3
    python benchmarks/curve.py picture FOLDER/curve.jsonl ... --to docs/images/curve.png

`run` saves the parameters at minutes that grow by 1.6, until --minutes or, with outer among --set, to the end of its
schedule; saving does not count as time, a proxy network's training does. Reference: benchmarks/reference.py. Ours: the
product's loop from the method's preset, with what --set changes, freed memory kept. A tenth of the training images is
held out, as always; `judge` tests every saved set on the test images, or with --held-out on those, selects nothing, and
adds its lines to FOLDER/curve.jsonl (copy it to benchmarks/results to keep it).
"""

import argparse
import json
import time
from contextlib import nullcontext
from dataclasses import replace
from math import log2
from pathlib import Path
from statistics import fmean, stdev

import torch

from distil import DistilledSet, Matching, evaluate_distilled, open_source, preset, protocol_for
from distil.fields import to_dict
from distil.memory import freed_memory_kept
from held_out import value_of
from parts import changed, loop_of, proxy_of, set_of
from reference import reference_loop


def settings_of(args: argparse.Namespace, key: str) -> Matching:
    changes = {name: value_of(text) for name, text in (item.split("=", 1) for item in args.set)}
    settings = preset(args.method, key, args.ipc, "published")
    if not isinstance(settings, Matching):
        raise SystemExit(f"{args.method} chooses real images and has no steps to follow")
    return changed(settings, {"seed": args.seed, "validation": 0.1, "outer": 10**6} | changes)


def run(args: argparse.Namespace) -> None:
    source = open_source(args.source)
    settings = settings_of(args, source.key)
    kept = source.train.split(0.1, args.seed)[0]
    args.folder.mkdir(parents=True, exist_ok=True)
    head = {"arm": args.arm, "source": Path(args.source).name, "seed": args.seed, "threads": torch.get_num_threads()}
    (args.folder / "run.json").write_text(json.dumps(head | {"settings": to_dict(settings)}, indent=1))
    due, spent, step = args.first, 0.0, 0
    with nullcontext() if args.arm == "reference" else freed_memory_kept():
        began = time.perf_counter()
        loop = loop_of(kept, settings, proxy_of(kept, settings), whole=source.train)
        slow = reference_loop(kept, settings, loop.task.proxy) if args.arm == "reference" else None
        while True:
            if slow is None:
                loop.step()
                params = loop.params
            else:
                params = next(slow)
            spent += time.perf_counter() - began
            step += 1
            last = spent >= 60 * args.minutes or step == loop.steps
            if spent >= 60 * due or last:
                made = set_of(loop, loop.placed, params.detach().clone())
                made.save(args.folder / f"{step:07d}.safetensors")
                with open(args.folder / "times.jsonl", "a") as file:
                    file.write(json.dumps({"step": step, "minutes": round(spent / 60, 3)}) + "\n")
                due = max(due * 1.6, spent / 60 * 1.05)
            if last:
                return
            began = time.perf_counter()


def judge(args: argparse.Namespace) -> None:
    source = open_source(args.source)
    head = json.loads((args.folder / "run.json").read_text())
    test = source.test
    if args.held_out:
        test = source.train.split(0.1, head["seed"])[1]
    if test is None:
        raise SystemExit(f"{source.name} has no test images: judge with --held-out")
    rules = protocol_for(args.protocol, source.key)
    if args.updates:
        rules = replace(rules, epochs=args.updates, max_updates=args.updates)
    path = args.folder / "curve.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {line["step"] for line in lines if line.get("updates") == args.updates}
    for line in (args.folder / "times.jsonl").read_text().splitlines():
        point = json.loads(line)
        if point["step"] in done:
            continue
        made = DistilledSet.load(args.folder / f"{point['step']:07d}.safetensors")
        with freed_memory_kept():
            scores = evaluate_distilled(made, test, rules, width=args.width, runs=args.runs, seed=head["seed"])
        accuracies = next(iter(scores.accuracies.values()))
        point |= {"arm": head["arm"], "seed": head["seed"], "protocol": args.protocol, "width": args.width}
        point |= {
            "run": args.folder.name,
            "updates": args.updates,
            "on": "held-out images" if args.held_out else "test images",
            "accuracies": accuracies,
        }
        with open(path, "a") as file:
            file.write(json.dumps(point) + "\n")
        print(point, flush=True)


def summary(paths: list[Path]) -> dict[str, list[tuple[float, float, float, int]]]:
    """By arm: (minutes, mean accuracy, standard deviation, seeds) of every point that the seeds share.

    The reference is read along its runs, point by point in time; of ours each run counts at its end, since its learning
    rate falls to zero there, and runs of equally many steps belong together.
    """
    runs: dict[str, list[dict]] = {}
    for point in (json.loads(line) for path in paths for line in path.read_text().splitlines()):
        runs.setdefault(point["run"], []).append(point)
    grouped: dict[tuple[str, int], list[dict]] = {}
    for points in runs.values():
        for point in points if points[0]["arm"] == "reference" else points[-1:]:
            place = round(3 * log2(point["minutes"])) if point["arm"] == "reference" else point["step"]
            grouped.setdefault((point["arm"], place), []).append(point)
    rows: dict[str, list[tuple[float, float, float, int]]] = {}
    for (arm, _), points in sorted(grouped.items()):
        means = [fmean(point["accuracies"]) for point in points]
        spread = stdev(means) if len(means) > 1 else 0.0
        rows.setdefault(arm, []).append((fmean(p["minutes"] for p in points), fmean(means), spread, len(means)))
    return rows


def picture(args: argparse.Namespace) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for arm, points in summary(args.curves).items():
        color = {"reference": "#8a8a8a", "ours": "#c0392b"}[arm]
        label = {"reference": "reference loop", "ours": "fast recipe"}[arm]
        minutes, means, spreads, seeds = zip(*points, strict=True)
        axes.errorbar(minutes, means, spreads, fmt="o-", color=color, label=label, markersize=4, capsize=3)
        print(f"\n| {label}, minutes | accuracy (%) | seeds |\n|---|---|---|")
        for row in zip(minutes, means, spreads, seeds, strict=True):
            print("| {:.2f} | {:.1f} ± {:.1f} | {} |".format(*row))
    axes.set(xscale="log", xlabel="minutes", ylabel="accuracy (%)")
    ticks = [0.5, 1, 2, 4, 8, 16, 32, 64]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.to, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    making = parts.add_parser("run")
    making.add_argument("source")
    making.add_argument("arm", choices=["reference", "ours"])
    making.add_argument("folder", type=Path)
    making.add_argument("--method", default="idc")
    making.add_argument("--ipc", type=int, default=1)
    making.add_argument("--seed", type=int, default=0)
    making.add_argument("--minutes", type=float, default=30)
    making.add_argument("--first", type=float, default=0.25, help="minutes until the first set is saved")
    making.add_argument("--set", nargs="*", default=[], metavar="SETTING=VALUE")
    making.set_defaults(part=run)
    judging = parts.add_parser("judge")
    judging.add_argument("source")
    judging.add_argument("folder", type=Path)
    judging.add_argument("--protocol", default="quick")
    judging.add_argument("--width", type=int, default=32)
    judging.add_argument("--runs", type=int, default=3)
    judging.add_argument("--updates", type=int, help="of each network, in the place of the protocol's")
    judging.add_argument("--held-out", action="store_true")
    judging.set_defaults(part=judge)
    drawing = parts.add_parser("picture")
    drawing.add_argument("curves", nargs="+", type=Path)
    drawing.add_argument("--to", type=Path, required=True)
    drawing.set_defaults(part=picture)
    for part in (making, judging):
        part.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(getattr(args, "threads", 1))
    args.part(args)


if __name__ == "__main__":
    main()
