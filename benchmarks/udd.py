"""Controls of region mining at equal updates and equal bytes, in a fast laboratory: the tables of docs/methods/udd.md.

    python benchmarks/udd.py run CIFAR10.npz OUT --arms idc idc-3 idc-4 random response jitter --seeds 0 1 2 --threads 1
    python benchmarks/udd.py table OUT

A laboratory run is the product's own loop with the fast recipe on a ConvNet-3 of width 32: its networks and real
targets depend on the data and the seed alone, so they are computed once and serve every arm. Sets are judged on
held-out training images (a tenth, 4,000 at most) with protocol quick, two networks; the test images are never opened.
mUE is measured by the same proxy network for all. Each finished (arm, seed) is one line of OUT/lab.jsonl, so that an
interrupted run goes on; `table` prints means, standard deviations, and differences to the first arm seed by seed, and
`keep` copies both to benchmarks/results.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import nn

from distil import DistilledSet, MatchingSettings, evaluate_distilled, open_source, preset, protocol_for
from distil.dataset.distilling import _proxy, _result
from distil.dataset.matching import advance, all_ages, initial_state
from distil.functional.augment import normalise
from distil.functional.utilisation import stretch, utilisation_entropy
from distil.memory import freed_memory_kept
from distil.presets import SMALL_WINDOWS
from distil.report.progress import show_progress
from held_out import value_of

RESULTS = Path(__file__).parent / "results"
HELD_OUT = 4000
NETWORKS = 2

MINED = {**SMALL_WINDOWS, "cfc_share": 0.0}
COSINES = {"formation": "spectrum", "cfc_share": 0.0}
ARMS = {
    "idc": {},
    "idc-raw": {"gradient_scale": "raw", "lr_image": 0.1},
    "idc-3": {"factor": 3},
    "idc-4": {"factor": 4},
    "idc-5": {"factor": 5},
    "idc-cfc": {"cfc_share": 0.3},
    "random": MINED | {"policy": "random"},
    "fixed": MINED | {"policy": "fixed"},
    "response": MINED | {"policy": "response"},
    "jitter": MINED | {"policy": "jitter"},
    "response-cfc": MINED | {"policy": "response", "cfc_share": 0.3},
    "cosines-response": COSINES | {"policy": "response"},
    "cosines-jitter": COSINES | {"policy": "jitter"},
    "cosines-random": COSINES | {"policy": "random"},
    "cosines-fixed": COSINES | {"policy": "fixed"},
    "cosines-response-cfc": COSINES | {"policy": "response", "cfc_share": 0.3},
    "seams": {"policy": "response", "windows_start": 0.0, "windows_freeze": 1.0, "cfc_share": 0.0},
}
"""What each arm changes of the laboratory's settings; a slash and settings after a name change more."""


def settings_of(arm: str, key: str, args: argparse.Namespace, seed: int) -> MatchingSettings:
    name, _, more = arm.partition("/")
    changes = dict(item.split("=", 1) for item in more.split(",") if item)
    fast = preset("idc", key, args.ipc, "fast")
    assert isinstance(fast, MatchingSettings)
    base = replace(fast, width=args.width, outer=args.outer, seed=seed)
    return replace(base, **ARMS[name], **{field: value_of(text) for field, text in changes.items()})


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "lab.jsonl"
    source = open_source(args.source)
    for seed in args.seeds:
        done = {(line["arm"], line["seed"]) for line in read(path)}
        missing = [arm for arm in args.arms if (arm, seed) not in done]
        if missing:
            kept, held_out = source.train.split(0.1, seed)
            if len(held_out.labels) > HELD_OUT:
                held_out = held_out.split(1 - HELD_OUT / len(held_out.labels), 0)[0]
            with freed_memory_kept():
                one_seed(args, source, kept, held_out, seed, missing, path)


def one_seed(args: argparse.Namespace, source, kept, held_out, seed: int, arms: list[str], path: Path) -> None:
    shared: dict[int, list] = {}
    base = settings_of("idc", source.key, args, seed)

    def ages(outer: int) -> list:
        if outer not in shared:
            shared[outer] = all_ages(kept, base, outer)
        return shared[outer]

    proxy = _proxy(kept, replace(base, policy="response"), "cpu", None, False)
    assert proxy is not None
    for arm in arms:
        settings = settings_of(arm, source.key, args, seed)
        state = initial_state(kept, settings, proxy)
        steps = settings.outer * settings.inner * settings.target_updates
        with show_progress(f"{arm}, seed {seed}") as shown:
            shown("start", step=0, steps=steps)
            for _ in advance(state, kept, settings, proxy, ages):
                shown("step", step=state.step, steps=steps, loss=float(state.losses["loss"]))
        made = _result(state, kept, source.train, settings, proxy)
        made.save(args.out / f"{arm.replace('/', ' ')}-{seed}.safetensors")
        scores = evaluate_distilled(
            made, held_out, protocol_for("quick", source.key), runs=NETWORKS, width=args.width, seed=seed
        )
        line = {
            "source": Path(args.source).name,
            "ipc": args.ipc,
            "width": args.width,
            "outer": args.outer,
            "arm": arm,
            "seed": seed,
            "accuracy": round(fmean(scores.mean.values()), 2),
            "views": scores.views,
            "bytes": scores.bytes,
            "mue": round(entropy_of(made, proxy), 4),
        }
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


@torch.no_grad()
def entropy_of(made: DistilledSet, proxy: nn.Module) -> float:
    """mUE of a set: U is the proxy's response at every cell of its last maps of all views of a canvas."""
    views = normalise(made.decoded().images, made.mean, made.std)
    maps = torch.cat([proxy.activations(part).mean(1) for part in views.split(256)])
    return float(utilisation_entropy(stretch(maps.view(len(made.canvases), -1, maps.shape[2]))))


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(args: argparse.Namespace) -> str:
    """Markdown: one row an arm, differences to the first arm over the seeds that both have."""
    lines = read(args.out / "lab.jsonl")
    arms: dict[str, dict[int, dict]] = {}
    for line in lines:
        arms.setdefault(line["arm"], {})[line["seed"]] = line
    first = next(iter(arms))
    head = ["arm", "views a class", "bytes", "accuracy (%)", f"difference to {first}", "mUE", "seeds"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    classes = {"cifar100.npz": 100}.get(lines[0]["source"], 10)
    for arm, runs in arms.items():
        values = [run["accuracy"] for run in runs.values()]
        common = [runs[seed]["accuracy"] - arms[first][seed]["accuracy"] for seed in runs if seed in arms[first]]
        some = next(iter(runs.values()))
        rows.append(
            f"| {arm} | {some['views'] // classes} | {some['bytes']:,} | {spread(values)} | "
            f"{spread(common, sign=True) if arm != first else ''} | {fmean(run['mue'] for run in runs.values()):.3f} | "
            f"{len(values)} |"
        )
    return "\n".join(rows) + "\n"


def spread(values: list[float], *, sign: bool = False) -> str:
    if not values:
        return ""
    mean = f"{fmean(values):{'+' if sign else ''}.1f}"
    return f"{mean} ± {stdev(values):.1f}" if len(values) > 1 else mean


def keep(args: argparse.Namespace) -> None:
    shutil.copyfile(args.out / "lab.jsonl", RESULTS / f"{args.name}.jsonl")
    (RESULTS / f"{args.name}.md").write_text(table(args))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("run")
    part.set_defaults(action=run)
    part.add_argument("source")
    part.add_argument("out", type=Path)
    part.add_argument("--arms", nargs="+", default=list(ARMS))
    part.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    part.add_argument("--ipc", type=int, default=1)
    part.add_argument("--width", type=int, default=32)
    part.add_argument("--outer", type=int, default=5)
    part.add_argument("--threads", type=int, default=torch.get_num_threads())
    part = parts.add_parser("table")
    part.set_defaults(action=lambda args: print(table(args)))
    part.add_argument("out", type=Path)
    part = parts.add_parser("keep")
    part.set_defaults(action=keep)
    part.add_argument("out", type=Path)
    part.add_argument("name")
    args = parser.parse_args()
    args.action(args)


if __name__ == "__main__":
    main()
