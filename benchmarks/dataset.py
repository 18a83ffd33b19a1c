"""Distil and judge: methods x seeds on one source, at equal settings, resumable, one table.

    python benchmarks/dataset.py FashionMNIST.npz --name fashionmnist-ipc1-cpu --methods random dsa dm idc udd --seeds 3

The settings named "cpu" are ours, sized for two cores: a ConvNet-3 of width 32 makes and judges the sets, a few hundred
matching steps take the place of the published hundred thousand. They were chosen on held-out training images; the test
images are touched once for each finished set. Every cell (method, seed) is kept in benchmarks/results/NAME.json as soon
as it is done, so an interrupted benchmark continues where it stopped; NAME.md is the table. Several processes may share
one NAME with different --methods.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from statistics import fmean, stdev

import torch

from distil import METHODS, DistilledSet, distil_dataset, evaluate_distilled, open_source, preset, protocol_for
from distil.files import write_atomic
from parts import changed

RESULTS = Path(__file__).parent / "results"

CPU = {
    "idc": {"distance": "squared", "lr": 0.02, "outer": 30, "inner": 10, "network_samples": 256},
    "dsa": {"lr": 0.3, "outer": 300, "batch": 64},
    "dc": {"lr": 0.3, "outer": 300, "batch": 64},
    "dm": {"lr": 0.3, "outer": 600, "batch": 64},
}
CPU["udd"] = CPU["udd-jitter"] = CPU["idc"] | {"proxy_steps": 500}


def settings_for(method: str, key: str, ipc: int, setting: str, width: int, seed: int):
    """The preset of a method, cut to the "cpu" setting unless "published" is asked for."""
    settings = preset(method, key, ipc, "published", seed=seed)
    if setting == "published":
        return settings
    changes = CPU.get(method, {})
    if "lr" in changes and method in ("idc", "udd", "udd-jitter"):
        changes = changes | {"lr": changes["lr"] * ipc}
    if getattr(settings, "observer", True) is None:
        return settings
    return changed(settings, {"width": width} | changes)


def cell(source, method: str, ipc: int, setting: str, width: int, seed: int, judge: dict, sets: Path | None) -> dict:
    """Distil once and judge it."""
    settings = settings_for(method, source.key, ipc, setting, width, seed)
    path = sets / f"{method}-{seed}.safetensors" if sets else None
    began = time.process_time()
    if path is not None and path.exists():
        made = DistilledSet.load(path)
    else:
        made = distil_dataset(source.train, settings, device=judge["device"])
        if path is not None:
            made.save(path)
    distilling = time.process_time() - began
    scores = evaluate_distilled(
        made, source.test, protocol_for(judge["protocol"], source.key), runs=judge["runs"], width=width, seed=seed,
        device=judge["device"], networks=judge["networks"],
    )  # fmt: skip
    return {
        "method": method,
        "seed": seed,
        "mean": scores.mean,
        "accuracies": {network: list(values) for network, values in scores.accuracies.items()},
        "bytes": scores.bytes,
        "cpu_seconds_distilling": round(distilling, 1),
        "steps": getattr(settings, "outer", 0) * getattr(settings, "inner", 0),
    }


def table(record: dict) -> str:
    """Markdown: a row a method; mean and standard deviation over seeds of the mean over networks."""
    networks = record["judge"]["networks"]
    lines = [
        f"# {record['name']}",
        "",
        f"{record['source']}, {record['ipc']} image(s) a class, setting `{record['setting']}`, ConvNet-3 of width "
        f"{record['width']}; judge `{record['judge']['protocol']}`, {record['judge']['runs']} fresh networks a set, "
        f"last epoch, {record['test_images']:,} test images. Mean ± standard deviation over seeds.",
        "",
        "| method | " + " | ".join(networks) + " | seeds | stored bytes | matching steps | CPU seconds |",
        "|---|" + "---|" * (len(networks) + 4),
    ]
    for method in METHODS:
        cells = [c for c in record["cells"] if c["method"] == method]
        if not cells:
            continue
        columns = []
        for network in networks:
            means = [c["mean"][network] for c in cells]
            spread = stdev(means) if len(means) > 1 else 0.0
            columns.append(f"{fmean(means):.1f} ± {spread:.1f}")
        seconds = fmean(c["cpu_seconds_distilling"] for c in cells)
        lines.append(
            f"| {method} | {' | '.join(columns)} | {len(cells)} | {cells[0]['bytes']:,} | {cells[0]['steps']:,} | "
            f"{seconds:,.0f} |"
        )
    lines += ["", f"Made by: `{record['command']}`", f"torch {record['torch']}, {record['machine']}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--name", required=True)
    parser.add_argument("--methods", nargs="+", default=["random", "dsa", "dm", "idc", "udd"], choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--setting", choices=["cpu", "published"], default="cpu")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["convnet3"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--sets", type=Path, help="folder that keeps the distilled sets")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    source = open_source(args.source)
    if source.test is None:
        raise SystemExit(f"{source.name} has no test images to judge on")
    path = RESULTS / f"{args.name}.json"
    judge = {k: getattr(args, k) for k in ("protocol", "runs", "networks", "device")}
    head = {
        "name": args.name,
        "source": f"{source.name} ({len(source.train.labels):,} training images)",
        "ipc": args.ipc,
        "setting": args.setting,
        "width": args.width,
        "judge": judge,
        "test_images": len(source.test.labels),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {args.device}",
        "command": f"python benchmarks/dataset.py {Path(args.source).name} --name {args.name} --ipc {args.ipc} "
        f"--seeds {args.seeds} --setting {args.setting} --protocol {args.protocol} --runs {args.runs}",
    }

    def read() -> dict:
        return json.loads(path.read_text()) if path.exists() else head | {"cells": []}

    for seed in range(args.seeds):
        for method in args.methods:
            if any(c["method"] == method and c["seed"] == seed for c in read()["cells"]):
                continue
            done = cell(source, method, args.ipc, args.setting, args.width, seed, judge, args.sets)
            print(method, seed, done["mean"], f"{done['cpu_seconds_distilling']} CPU s", flush=True)
            record = head | {"cells": [*read()["cells"], done]}
            write_atomic(path, lambda p, record=record: p.write_text(json.dumps(record, indent=1) + "\n"))
    record = read()
    write_atomic(path.with_suffix(".md"), lambda p: p.write_text(table(record)))
    print(table(record))


if __name__ == "__main__":
    main()
