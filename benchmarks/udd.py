"""Controls of region mining at equal updates and bytes, in a fast laboratory: docs/results/udd.md.

    python benchmarks/udd.py run CIFAR10.npz OUT --arms idc idc-4 cosines-response cosines-fixed --seeds 0 1 --threads 1
    python benchmarks/udd.py table OUT
    python benchmarks/udd.py judge CIFAR10.npz OUT --arms idc
    python benchmarks/udd.py transfer CIFAR10.npz OUT --arms idc cosines-response --networks vgg11 vit
    python benchmarks/udd.py mue udd-lab-cifar10 udd-lab-svhn --to docs/images/udd-mue.png
    python benchmarks/udd.py cosines CIFAR10.npz --threads 1
    python benchmarks/udd.py utilisation CIFAR10.npz --to docs/images/udd-utilisation.png --threads 1
    python benchmarks/udd.py mosaic CIFAR10.npz SENSOR.npz
    python benchmarks/udd.py choices OUT/cosines-mined-0.choices.jsonl --to docs/images/udd-choices.png
    python benchmarks/udd.py overhead CIFAR10.npz --threads 1
    python benchmarks/udd.py bits CIFAR10.npz OUT --arms idc cosines-response --bits 8 4 --threads 1
    python benchmarks/udd.py keep OUT udd-lab-cifar10

A laboratory run is the product's own loop with the fast recipe on a ConvNet-3 of width 32: its networks and real
targets depend on the data and the seed alone, so they are computed once and serve every arm. Sets are judged on
held-out training images (a tenth, 4,000 at most; three tenths of small sets) by two networks with protocol quick; the
test images are never opened. mUE is measured by the same proxy network for all. Each finished (arm, seed) is one line
of OUT/lab.jsonl, so that an interrupted run continues; `judge` judges saved sets again, `table` prints means, standard
deviations, and differences to the first arm seed by seed, `transfer` judges the saved sets with other networks, and
`keep` copies all of it to benchmarks/results. `cosines` tells how far others keep the cosines that the proxy keeps
(udd-cosines.jsonl), `utilisation` draws how much it uses each and the share of that which the numbers of every form
hold (udd-utilisation.jsonl), `choices` draws those of a mined arm over its run, `mosaic` makes a sensor's raw images of
color ones, `overhead` what a step costs beside IDC's with as many views (udd-overhead.jsonl), `bits` judges saved sets
of 8 bits a number with fewer (udd-bits.jsonl), `mue` draws mUE against accuracy of kept results and prints their
correlation.
"""

import argparse
import json
import shutil
import time
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from statistics import correlation, fmean, median, stdev
from typing import Any

import torch
from torch import nn

from distil import (
    DistilledSet,
    ImageSet,
    Matching,
    Scores,
    distil_dataset,
    evaluate_distilled,
    open_source,
    preset,
    protocol_for,
)
from distil.dataset.compose import coefficient_policy
from distil.dataset.config import Settings
from distil.dataset.protocols import Task
from distil.dataset.proxies import trained_proxy
from distil.dataset.selection.coefficients import coefficients_of_an_image
from distil.functional.augment import normalize
from distil.functional.utilization import stretch, utilization_entropy
from distil.memory import freed_memory_kept
from distil.report.choices import draw_choices
from distil.report.progress import show_progress
from distil.rng import stream
from held_out import value_of
from parts import changed, loop_of

RESULTS = Path(__file__).parent / "results"
HELD_OUT = 4000
FEW = 10_000
"""Of fewer training images three tenths are held out, for a tenth would be too few to judge by."""
NETWORKS = 2
PROXY_STEPS = 1000
TRANSFER = ("arm", "seed", "network", "updates", "width")
"""What tells one judgement of a saved set from another."""

SMALL_WINDOWS = {
    "windows": 8,
    "windows_factor": 4,
    "windows_init": "real",
    "windows_loss": "joint",
    "windows_start": 0.0,
    "windows_freeze": 1.0,
}
MINED = {**SMALL_WINDOWS, "cfc_share": 0.0}
COSINES = {"method": "udd", "formation": "spectrum", "spectral_views": 24, "storage": "uint8", "cfc_share": 0.0}
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
    "cosines-mined": COSINES | {"policy": "response", "spectral_start": "random", "spectral_refresh": 1},
    "cosines-mined-jitter": COSINES | {"policy": "jitter", "spectral_start": "random", "spectral_refresh": 1},
    "cosines-response-cfc": COSINES | {"policy": "response", "cfc_share": 0.3},
    "seams": {"policy": "response", "windows_start": 0.0, "windows_freeze": 1.0, "cfc_share": 0.0},
}
"""What each arm changes of the laboratory's settings; a slash and settings after a name change more."""
PEERS = {
    "real-images": ("random", {}),
    "dm": ("dm", {"lr_image": 0.3, "batch_real": 64}),
    "dsa": ("dsa", {"lr_image": 0.3, "batch_real": 64}),
    "dsa-cfc": ("dsa", {"lr_image": 0.3, "batch_real": 64, "cfc_share": 0.3}),
}
"""Arms that are methods of their own, and what they change of their presets; they have as many matching steps."""


def settings_of(arm: str, key: str, args: argparse.Namespace, seed: int) -> Matching:
    fast = preset("idc", key, args.ipc, "fast", seed=seed)
    assert isinstance(fast, Matching)
    base = replace(fast, width=args.width, outer=args.outer)
    name, changes = parsed(arm)
    return changed(base, ARMS[name] | changes)


def peer_settings(arm: str, key: str, args: argparse.Namespace, seed: int) -> Settings:
    name, changes = parsed(arm)
    method, of_method = PEERS[name]
    settings = replace(preset(method, key, args.ipc, "published", seed=seed), validation=0.0)
    if not isinstance(settings, Matching):
        return settings
    idc = settings_of("idc", key, args, seed)
    steps = idc.outer * idc.inner * idc.target_reuse
    return changed(settings, {"width": args.width, "outer": max(1, steps // settings.inner)} | of_method | changes)


def parsed(arm: str) -> tuple[str, dict]:
    name, _, more = arm.partition("/")
    pairs = (item.split("=", 1) for item in more.split(",") if item)
    return name, {field: value_of(text) for field, text in pairs}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "lab.jsonl"
    source = open_source(args.source)
    for seed in args.seeds:
        done = {(line["arm"], line["seed"]) for line in read(path)}
        missing = [arm for arm in args.arms if (arm, seed) not in done]
        if missing:
            kept, held_out = held_out_of(source, seed)
            with freed_memory_kept():
                one_seed(args, source, kept, held_out, seed, missing, path)


def one_seed(args: argparse.Namespace, source, kept, held_out, seed: int, arms: list[str], path: Path) -> None:
    shared: dict[int, list] = {}
    base = settings_of("idc", source.key, args, seed)

    def stages(outer: int) -> list:
        if outer not in shared:
            shared[outer] = loop_of(kept, changed(base, {"contrastive": "cfc"})).all_stages(outer)
        return shared[outer]

    proxy = trained_proxy(base.network, base.width, kept, PROXY_STEPS, device="cpu", seed=seed)
    for arm in arms:
        with show_progress(f"{arm}, seed {seed}") as shown:
            if parsed(arm)[0] in PEERS:
                made = distil_dataset(kept, peer_settings(arm, source.key, args, seed), events=shown)
            else:
                settings = settings_of(arm, source.key, args, seed)
                loop = loop_of(kept, settings, proxy, whole=source.train, stages=stages)
                shown("start", step=0, steps=loop.steps)
                told = loop.event()
                chosen = [] if told is None else [(0, told)]
                while loop.done < loop.steps:
                    losses = loop.step()
                    shown("step", step=loop.done, steps=loop.steps, loss=float(losses["loss"]))
                    if (event := loop.event()) is not None and event is not told:
                        told = event
                        chosen.append((loop.done, event))
                if len(chosen) > 1 and chosen[0][1][0] == "cosines":
                    events = [{"event": name, "step": step, **fields} for step, (name, fields) in chosen]
                    text = "".join(json.dumps(event) + "\n" for event in events)
                    (args.out / f"{arm.replace('/', ' ')}-{seed}.choices.jsonl").write_text(text)
                made = loop.snapshot()
        made.save(args.out / f"{arm.replace('/', ' ')}-{seed}.safetensors")
        scores = judged(made, held_out, source.key, args.width, seed)
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


def judged(made: DistilledSet, held_out: ImageSet, key: str, width: int, seed: int) -> Scores:
    return evaluate_distilled(made, held_out, protocol_for("quick", key), runs=NETWORKS, width=width, seed=seed)


def judge(args: argparse.Namespace) -> None:
    """Judge saved sets again, and put their accuracies in the place of those in OUT/lab.jsonl."""
    torch.set_num_threads(args.threads)
    path = args.out / "lab.jsonl"
    source = open_source(args.source)
    lines = read(path)
    for line in lines:
        if line["arm"] in args.arms:
            made = DistilledSet.load(args.out / f"{line['arm'].replace('/', ' ')}-{line['seed']}.safetensors")
            held_out = held_out_of(source, line["seed"])[1]
            with freed_memory_kept():
                scores = judged(made, held_out, source.key, line["width"], line["seed"])
            before, line["accuracy"] = line["accuracy"], round(fmean(scores.mean.values()), 2)
            print(line["arm"], line["seed"], before, line["accuracy"], scores.updates, flush=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@torch.no_grad()
def entropy_of(made: DistilledSet, proxy: nn.Module) -> float:
    """mUE of a set: U is the proxy's response at every cell of its last maps of all views of a canvas."""
    views = normalize(made.decoded().images, made.mean, made.std)
    maps = torch.cat([proxy.activations(part).mean(1) for part in views.split(256)])  # pyright: ignore[reportCallIssue]
    return float(utilization_entropy(stretch(maps.view(len(made.params), -1, maps.shape[2]))))


def transfer(args: argparse.Namespace) -> None:
    """One line of OUT/transfer.jsonl for each saved set and network."""
    torch.set_num_threads(args.threads)
    path = args.out / "transfer.jsonl"
    source = open_source(args.source)
    done = {tuple(line[name] for name in TRANSFER) for line in read(path)}
    for seed in args.seeds:
        for network, arm in product(args.networks, args.arms):
            if (arm, seed, network, args.updates, args.width) in done:
                continue
            made = DistilledSet.load(args.out / f"{arm.replace('/', ' ')}-{seed}.safetensors")
            protocol = protocol_for("quick", source.key)
            protocol = replace(protocol, epochs=args.updates, max_updates=args.updates)
            held_out = held_out_of(source, seed)[1]
            with freed_memory_kept():
                scores = evaluate_distilled(
                    made, held_out, protocol, networks=(network,), width=args.width, runs=args.runs, seed=seed
                )
            line = {"source": Path(args.source).name, "arm": arm, "seed": seed, "network": network}
            line |= {"updates": scores.updates, "runs": args.runs, "width": args.width}
            line["accuracy"] = round(scores.mean[network], 2)
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def cosines(args: argparse.Namespace) -> None:
    """One line of udd-cosines.jsonl: shares of the proxy's kept cosines that others keep too."""
    torch.set_num_threads(args.threads)
    source = open_source(args.source)
    kept = held_out_of(source, args.seed)[0]
    settings = settings_of("cosines-response", source.key, args, args.seed)
    with freed_memory_kept():
        proxy = trained_proxy(settings.network, settings.width, kept, PROXY_STEPS, device="cpu", seed=args.seed)
        loop = loop_of(kept, settings, proxy)
        runs = [loop.all_stages(outer) for outer in range(args.outer)]
    chosen = set(loop.placed.kept.tolist())  # pyright: ignore[reportAttributeAccessIssue]

    def share(net: nn.Module | None, **changes) -> float:
        other = loop_of(kept, changed(settings, changes), net).placed
        return round(len(chosen & set(other.kept.tolist())) / len(chosen), 3)  # pyright: ignore[reportAttributeAccessIssue]

    line = {"source": Path(args.source).name, "cosines": len(chosen), "seed": args.seed}
    line |= {"other images": share(proxy, seed=args.seed + 1), "jitter": share(proxy, policy="jitter")}
    line["fixed"] = share(None, policy="fixed")
    for age in (0, settings.inner // 4, settings.inner - 1):
        line[f"networks of age {age}"] = [share(stages[age].state.net) for stages in runs]
    with open(RESULTS / "udd-cosines.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


def utilisation(args: argparse.Namespace) -> None:
    """A picture of the use of every cosine, with what UDD keeps and what cells of IDC can hold."""
    from matplotlib.figure import Figure

    torch.set_num_threads(args.threads)
    source = open_source(args.source)
    kept = held_out_of(source, args.seed)[0]
    settings = settings_of(f"cosines-response/storage=uint4,spectral_views={args.views}", source.key, args, args.seed)
    with freed_memory_kept():
        proxy = trained_proxy(settings.network, settings.width, kept, PROXY_STEPS, device="cpu", seed=args.seed)
        task = Task(kept, settings.ipc, args.seed, settings.outer, proxy)
        placed: Any = settings.parameterization
        policy = coefficient_policy(placed.policy)
        used = policy.scores(task, stream(args.seed, "cosines"))
    planes = used.view(kept.channels, *kept.size)
    count = coefficients_of_an_image((kept.channels, *kept.size), placed)
    chosen = torch.zeros_like(used)
    chosen[used.argsort(descending=True, stable=True)[:count]] = 1
    line: dict = {"source": Path(args.source).name, "seed": args.seed}
    line[f"{count} of UDD"] = round(float((used * chosen).sum() / used.sum()), 3)
    for factor in (2, 4):
        side = kept.size[0] // factor
        held = float(planes[:, :side, :side].sum() / used.sum())
        line[f"{side * side * kept.channels} of IDC, factor {factor}"] = round(held, 3)
    with open(RESULTS / "udd-utilisation.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))

    names = ["brightness", "red against blue", "green against both"][: kept.channels]
    figure = Figure(figsize=(3.4 * len(names) + 0.9, 3.9), dpi=110, layout="constrained")
    shown = planes.log10()
    limits = {"vmin": float(shown.quantile(0.02)), "vmax": float(shown.max())}
    pictures = []
    for plane, (axes, name) in enumerate(zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True)):
        pictures.append(axes.imshow(shown[plane], cmap="magma", **limits))
        inside = chosen.view_as(planes)[plane].repeat_interleave(8, 0).repeat_interleave(8, 1)
        places = torch.arange(inside.shape[0]) / 8 - 0.5 + 1 / 16
        axes.contour(places, places, inside, levels=[0.5], colors="white", linewidths=1.5)
        for factor, style in ((2, "--"), (4, ":")):
            side = kept.size[0] // factor - 0.5
            axes.plot([-0.5, side, side], [side, side, -0.5], style, color="#4cc9f0", linewidth=1.2)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("cycles along a row, halves", fontsize=8)
    figure.colorbar(pictures[0], ax=figure.axes, label="log10 of utilisation", shrink=0.8)
    figure.savefig(args.to)


def mosaic(args: argparse.Namespace) -> None:
    """Color images as a camera's sensor sees them: one value a pixel, red, green and blue in turn (RGGB)."""
    import numpy as np

    with np.load(args.source) as arrays:
        made = dict(arrays)
    for name in ("x_train", "x_test"):
        color = made[name]
        seen = color[..., 1].copy()
        seen[:, 0::2, 0::2] = color[:, 0::2, 0::2, 0]
        seen[:, 1::2, 1::2] = color[:, 1::2, 1::2, 2]
        made[name] = seen
    np.savez_compressed(args.out, **made)


def choices(args: argparse.Namespace) -> None:
    """A picture of the cosines that a mined arm's views were made of over its run, and the numbers that entered."""
    events = read(args.file)
    figure = draw_choices(events, tuple(args.shape))
    assert figure is not None, "the cosines were chosen once"
    figure.savefig(args.to, dpi=110)
    sets = [set(event["kept"]) for event in events]
    entered = [len(now - before) for before, now in pairwise(sets)]
    print(f"of {len(sets[0])}: {entered} entered; {len(sets[0] & sets[-1])} of the first are among the last")


def bits(args: argparse.Namespace) -> None:
    """A line of udd-bits.jsonl for each saved set and number of bits that its pixels or coefficients are rounded to."""
    torch.set_num_threads(args.threads)
    source = open_source(args.source)
    for seed, arm, count in product(args.seeds, args.arms, args.bits):
        made = DistilledSet.load(args.out / f"{arm.replace('/', ' ')}-{seed}.safetensors")
        assert getattr(made.parameterization, "bits", 8) == 8
        levels = 2**count - 1
        rounded = (made.params.float() / 255 * levels).round() / levels
        made = replace(made, params=(rounded * 255).round().to(torch.uint8))
        held_out = held_out_of(source, seed)[1]
        with freed_memory_kept():
            scores = judged(made, held_out, source.key, args.width, seed)
        line = {"source": Path(args.source).name, "arm": arm, "seed": seed, "ipc": made.images_per_class}
        line |= {"views": scores.views, "bits": count, "accuracy": round(fmean(scores.mean.values()), 2)}
        with open(RESULTS / "udd-bits.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def overhead(args: argparse.Namespace) -> None:
    """One line of udd-overhead.jsonl: processor seconds of steps of both forms with as many views, taken in turns, and
    of what comes before the first step of UDD."""
    torch.set_num_threads(args.threads)
    source = open_source(args.source)
    kept = held_out_of(source, args.seed)[0]
    chosen = {
        "idc": settings_of(f"idc-{args.factor}", source.key, args, args.seed),
        "udd": settings_of(f"cosines-response/spectral_views={args.factor**2}", source.key, args, args.seed),
    }
    with freed_memory_kept():
        began = time.process_time()
        idc = chosen["idc"]
        proxy = trained_proxy(idc.network, idc.width, kept, PROXY_STEPS, device="cpu", seed=args.seed)
        trained = time.process_time()
        loop_of(kept, chosen["udd"], proxy)
        told = time.process_time()
        stages = loop_of(kept, idc).all_stages(0)
        networks = time.process_time() - told
        loops = {name: loop_of(kept, settings, proxy, stages=lambda _: stages) for name, settings in chosen.items()}
        spent: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(args.steps):
            for name, loop in loops.items():
                start = time.process_time()
                loop.step()
                spent[name].append(time.process_time() - start)
    ratios = [other / base for other, base in zip(spent["udd"], spent["idc"], strict=True)]
    line = {"source": Path(args.source).name, "width": args.width, "views": args.factor**2, "steps": args.steps}
    line |= {name: round(median(values), 4) for name, values in spent.items()}
    line |= {"ratio": round(median(ratios), 3), "networks of 100 steps": round(networks, 1)}
    line |= {"proxy": round(trained - began, 1), "choice": round(told - trained, 1)}
    with open(RESULTS / "udd-overhead.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


def mue(args: argparse.Namespace) -> None:
    """mUE against accuracy, a color a data set, and Pearson's correlation within each and over all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.6), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    for name in args.names:
        lines = read(RESULTS / f"{name}.jsonl")
        x, y = [line["mue"] for line in lines], [line["accuracy"] for line in lines]
        axes.plot(x, y, "o", label=f"{name.removeprefix('udd-lab-')}: r = {correlation(x, y):.2f}, {len(x)} sets")
        print(name, len(x), round(correlation(x, y), 2))
    axes.set_xlabel("mUE (response of a proxy network to the set's views)")
    axes.set_ylabel("accuracy on held-out images, %")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(args.to)


def held_out_of(source, seed: int) -> tuple:
    """The training images to learn from, and at most 4,000 of those held out."""
    kept, held_out = source.train.split(0.1 if len(source.train.labels) >= FEW else 0.3, seed)
    if len(held_out.labels) > HELD_OUT:
        held_out = held_out.split(1 - HELD_OUT / len(held_out.labels), 0)[0]
    return kept, held_out


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(args: argparse.Namespace) -> str:
    """Markdown: one row an arm, accuracies with their standard deviation, differences to the first arm over the seeds
    that both have with their standard error."""
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
            f"{difference(common) if arm != first else ''} | {fmean(run['mue'] for run in runs.values()):.3f} | "
            f"{len(values)} |"
        )
    return "\n".join(rows) + "\n"


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def difference(values: list[float]) -> str:
    """Mean ± standard error, with its sign."""
    if not values:
        return ""
    return f"{fmean(values):+.1f}" + (f" ± {stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else "")


def keep(args: argparse.Namespace) -> None:
    shutil.copyfile(args.out / "lab.jsonl", RESULTS / f"{args.name}.jsonl")
    (RESULTS / f"{args.name}.md").write_text(table(args))
    if (args.out / "transfer.jsonl").exists():
        shutil.copyfile(args.out / "transfer.jsonl", RESULTS / f"{args.name}-transfer.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("run")
    part.set_defaults(action=run)
    part.add_argument("source")
    part.add_argument("out", type=Path)
    part.add_argument("--arms", nargs="+", default=[*PEERS, *ARMS])
    part.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    part.add_argument("--ipc", type=int, default=1)
    part.add_argument("--width", type=int, default=32)
    part.add_argument("--outer", type=int, default=5)
    part.add_argument("--threads", type=int, default=torch.get_num_threads())
    part = parts.add_parser("table")
    part.set_defaults(action=lambda args: print(table(args)))
    part.add_argument("out", type=Path)
    part = parts.add_parser("judge")
    part.set_defaults(action=judge)
    part.add_argument("source")
    part.add_argument("out", type=Path)
    part.add_argument("--arms", nargs="+", default=["idc"])
    part.add_argument("--threads", type=int, default=torch.get_num_threads())
    part = parts.add_parser("transfer")
    part.set_defaults(action=transfer)
    part.add_argument("source")
    part.add_argument("out", type=Path)
    part.add_argument("--arms", nargs="+", default=["idc", "cosines-response"])
    part.add_argument("--networks", nargs="+", default=["vgg11", "vit"])
    part.add_argument("--updates", type=int, default=600, help="of each network; protocol quick has 600")
    part.add_argument("--width", type=int, help="of each network; none for its own")
    part.add_argument("--runs", type=int, default=1)
    part.add_argument("--seeds", nargs="+", type=int, default=[0])
    part.add_argument("--threads", type=int, default=torch.get_num_threads())

    for name, action in (("cosines", cosines), ("utilisation", utilisation), ("overhead", overhead)):
        part = parts.add_parser(name)
        part.set_defaults(action=action)
        part.add_argument("source")
        part.add_argument("--ipc", type=int, default=1)
        part.add_argument("--width", type=int, default=32)
        part.add_argument("--outer", type=int, default=5)
        part.add_argument("--seed", type=int, default=0)
        part.add_argument("--threads", type=int, default=torch.get_num_threads())
        if name == "utilisation":
            part.add_argument("--views", type=int, default=32)
            part.add_argument("--to", type=Path, required=True)
        elif name == "overhead":
            part.add_argument("--factor", type=int, default=4, choices=[3, 4, 5])
            part.add_argument("--steps", type=int, default=40)
    part = parts.add_parser("mosaic")
    part.set_defaults(action=mosaic)
    part.add_argument("source")
    part.add_argument("out", type=Path)
    part = parts.add_parser("choices")
    part.set_defaults(action=choices)
    part.add_argument("file", type=Path, help="OUT/ARM-SEED.choices.jsonl")
    part.add_argument("--shape", nargs=3, type=int, default=[3, 32, 32])
    part.add_argument("--to", type=Path, required=True)
    part = parts.add_parser("bits")
    part.set_defaults(action=bits)
    part.add_argument("source")
    part.add_argument("out", type=Path)
    part.add_argument("--arms", nargs="+", default=["idc", "cosines-response"])
    part.add_argument("--bits", nargs="+", type=int, default=[8, 4], choices=range(1, 9))
    part.add_argument("--width", type=int, default=32)
    part.add_argument("--seeds", nargs="+", type=int, default=[0])
    part.add_argument("--threads", type=int, default=torch.get_num_threads())
    part = parts.add_parser("mue")
    part.set_defaults(action=mue)
    part.add_argument("names", nargs="+")
    part.add_argument("--to", type=Path, required=True)
    part = parts.add_parser("keep")
    part.set_defaults(action=keep)
    part.add_argument("out", type=Path)
    part.add_argument("name")
    args = parser.parse_args()
    args.action(args)


if __name__ == "__main__":
    main()
