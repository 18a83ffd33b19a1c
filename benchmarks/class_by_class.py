"""One set distilled at once against the concatenation of sets distilled group by group.

    python benchmarks/class_by_class.py fashionmnist.npz --method idc --groups 5 --seeds 3 --outer 10 --updates 600

Both take the method's fast recipe with the same number of matching steps for every class and the same number of items.
A group's run knows nothing of the other classes: its networks tell its own classes apart. Both sets are judged alike on
images that are held out of the TRAINING images and seen by neither; so is the same number of random real images, drawn
once for each network. Appends one line for each seed to benchmarks/results/class-by-class.jsonl.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import torch

from distil import DistilledSet, distil_dataset, evaluate_distilled, evaluate_real, open_source, preset, protocol_for

RESULTS = Path(__file__).parent / "results" / "class-by-class.jsonl"
JUDGED = 2000
"""Held-out images that judge."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--method", default="idc")
    parser.add_argument("--key", default="fashionmnist", help="whose settings are taken")
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--outer", type=int, default=10)
    parser.add_argument("--inner", type=int, default=10)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--updates", type=int, default=600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source(args.source)
    rules = replace(protocol_for("quick", args.key), max_updates=args.updates, whole_updates=args.updates)
    rows = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        made = preset(args.method, args.key, 1, "fast", seed=seed)
        settings = replace(made, outer=args.outer, inner=args.inner, width=args.width, validation=0, bfloat16="none")
        kept, held_out = source.train.split(JUDGED / len(source.train.labels), seed)
        names, size = kept.classes, len(kept.classes) // args.groups
        start = time.process_time()
        whole = distil_dataset(kept, settings)
        at_once, start = time.process_time() - start, time.process_time()
        parts = [
            distil_dataset(kept, settings, classes=names[first : first + size]) for first in range(0, len(names), size)
        ]
        joined, by_group = DistilledSet.concat(parts), time.process_time() - start
        judged = {"runs": args.runs, "width": args.width, "seed": seed}
        row = {
            **vars(args),
            "source": Path(args.source).stem,
            "seed": seed,
            "at_once": fmean(evaluate_distilled(whole, held_out, rules, **judged).mean.values()),
            "by_group": fmean(evaluate_distilled(joined, held_out, rules, **judged).mean.values()),
            "random": fmean(evaluate_real(kept, held_out, rules, images_per_class=1, **judged).mean.values()),
            "bytes": [whole.bytes["total"], joined.bytes["total"]],
            "processor_seconds": [round(at_once, 1), round(by_group, 1)],
        }
        rows.append(row)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        print(row, flush=True)
    differences = [row["by_group"] - row["at_once"] for row in rows]
    error = stdev(differences) / len(rows) ** 0.5 if len(rows) > 1 else float("nan")
    means = {name: round(fmean(row[name] for row in rows), 1) for name in ("at_once", "by_group", "random")}
    print(
        f"{means}; by group minus at once {fmean(differences):+.1f} +- {error:.1f} (standard error, {len(rows)} seeds)"
    )


if __name__ == "__main__":
    main()
