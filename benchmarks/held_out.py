"""Try settings of a method on held-out TRAINING images: how every setting of ours was chosen.

    python benchmarks/held_out.py digits udd --seeds 3 --runs 3 --set cfc_share=0.0 windows_share=0.2
    python benchmarks/held_out.py FashionMNIST.npz idc --set width=32 outer=30 inner=10 lr_image=0.04 distance=squared

Starts from the preset, changes what --set names, holds out a tenth of the training images (at most 1,000 of them judge,
with protocol quick and the maker's own network), and adds one line to benchmarks/results/held_out.jsonl. The source's
test split is never opened.
"""

import argparse
import json
from ast import literal_eval
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import torch

from distil import distil_dataset, evaluate_distilled, open_source, preset, protocol_for
from distil.fields import to_dict
from parts import changed

RESULTS = Path(__file__).parent / "results" / "held_out.jsonl"


def value_of(text: str):
    """A number, a truth value, or the text itself."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("method")
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], metavar="SETTING=VALUE")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    changes = {name: value_of(text) for name, text in (item.split("=", 1) for item in args.set)}
    source = open_source(args.source)
    protocol = protocol_for("quick", source.key)
    accuracies = []
    settings = changed(preset(args.method, source.key, args.ipc, "published"), {"validation": 0.1} | changes)
    for seed in range(args.seeds):
        settings = replace(settings, seed=seed)
        held_out = source.train.split(0.1, seed)[1]
        if len(held_out.labels) > 1000:
            held_out = held_out.split(1 - 1000 / len(held_out.labels), 0)[0]
        made = distil_dataset(source.train, settings)
        scores = evaluate_distilled(made, held_out, protocol, runs=args.runs, width=settings.width, seed=seed)
        accuracies.append(fmean(scores.mean.values()))
        print(args.method, changes, "seed", seed, f"{accuracies[-1]:.1f}", flush=True)
    line = {
        "source": Path(args.source).name,
        "method": args.method,
        "ipc": args.ipc,
        "changes": changes,
        "runs": args.runs,
        "accuracies": [round(a, 2) for a in accuracies],
        "mean": round(fmean(accuracies), 2),
        "std": round(stdev(accuracies), 2) if len(accuracies) > 1 else 0.0,
        "settings": to_dict(settings),
    }
    with open(RESULTS, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
