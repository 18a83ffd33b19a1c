"""Speed of a matching step beside a plain reference loop and the machine's own rate, in one run.

    python benchmarks/speed.py steps --threads 2            reference, ours, floor, for shapes, sizes and settings
    python benchmarks/speed.py levers --threads 2           what each lever brings, added one after another
    python benchmarks/speed.py stages --threads 2           seconds and memory of every stage
    python benchmarks/speed.py growth --threads 2           cost against classes, images per class and image side
    python benchmarks/speed.py judge --threads 2            five networks, ours and one after another
    python benchmarks/speed.py memory --threads 2           resident memory over a thousand steps
    python benchmarks/speed.py table                        the tables of docs/results/speed.md, and its picture

Reference: benchmarks/reference.py, in a process of its own with the system's allocator untouched. Ours: the product's
loop, in this process. Floor: the arithmetic of the step (convolutions, counted layer by layer) at the rate that this
machine reaches on large convolutions of these shapes, in the precision that ours uses. They are timed in turn, several
times; medians are quoted, since machines drift. Lines are added to benchmarks/results/speed-DEVICE.jsonl.
"""

import argparse
import gc
import json
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d

from distil import (
    DistilledSet,
    ImageSet,
    Matching,
    Protocol,
    distil_dataset,
    evaluate_distilled,
    preset,
    protocol_for,
)
from distil.dataset import step
from distil.dataset.config import Dct, Fred, TrainedOnReal, Windows
from distil.dataset.network_state import fresh_network
from distil.dataset.side_losses import CONTRASTED
from distil.dataset.step import Here, NetworkStage, params_gradient, step_address
from distil.evaluation.evaluator import accuracy
from distil.functional import augment as augment_module
from distil.functional.augment import normalize
from distil.memory import freed_memory_kept
from distil.networks.pooling import AveragePool
from distil.rng import stream
from parts import changed, loop_of
from reference import gathered_crop, reference_judge, reference_loop

SHAPES = {"cifar": (3, 32), "grey28": (1, 28)}
RESULTS = Path(__file__).parent / "results"
RUNS = 5
EXACT: dict = {}
BF16 = {"bfloat16": "real_network_synthetic"}
FAST = BF16 | {"target_reuse": 5}


def made_up_images(channels: int, side: int, classes: int, device: str = "cpu") -> ImageSet:
    """Noise in the shape of a data set: speed does not depend on what the images show."""
    images = torch.randint(0, 256, (classes * 200, channels, side, side), dtype=torch.uint8)
    labels = torch.arange(classes).repeat_interleave(200)
    names = tuple(f"c{i:03d}" for i in range(classes))
    return ImageSet(images, labels, names, (0.5,) * channels, (0.25,) * channels, "noise").to(device)


def step_settings(args: argparse.Namespace, ipc: int, **changes) -> Matching:
    """IDC's settings for CIFAR-10 with this run's width and number of network samples."""
    settings = preset(args.method, "cifar10", ipc, "published")
    if not isinstance(settings, Matching):
        raise SystemExit(f"{args.method} chooses real images and has no step to time")
    windows = {"windows_start": 0.0} if isinstance(settings.parameterization, Windows) else {}
    return changed(settings, {"width": args.width, "network_samples": args.network_samples} | windows | changes)


def reference_seconds(real: tuple[int, int, int], settings: Matching, steps: int, device: str, threads: int) -> float:
    """Seconds of a step of the reference loop; runs in a process of its own."""
    torch.set_num_threads(threads)
    images = made_up_images(*real, device=device)
    loop = reference_loop(images, replace(settings, outer=1, inner=steps + 2), untrained(images, settings))
    next(loop)
    began = seconds(device)
    for _ in range(steps):
        next(loop)
    return (seconds(device) - began) / steps


def product_seconds(real: ImageSet, settings: Matching, steps: int, device: str) -> float:
    """Seconds of a step of the product's loop, after one step that is not counted.

    Where a target serves several steps: of a step in the whole service of one network, its targets included.
    """
    several = settings.target_reuse > 1
    settings = replace(settings, outer=1, inner=10 if several else steps + 2)
    proxy = untrained(real, settings)
    loop = loop_of(real, settings, proxy)
    if several:
        began = seconds(device)
        while loop.done < loop.steps:
            loop.step()
        return (seconds(device) - began) / loop.done
    loop.step()
    began = seconds(device)
    for _ in range(steps):
        loop.step()
    return (seconds(device) - began) / steps


def untrained(real: ImageSet, settings: Matching) -> nn.Module | None:
    """A network in the proxy's place: the time of a step does not depend on what it says."""
    if not hasattr(getattr(settings.parameterization, "policy", None), "proxy_steps"):
        return None
    device = str(real.images.device)
    return fresh_network(settings.network, settings.width, real, device=device, seed=0, address=("p",)).net


def step_flops(real: ImageSet, settings: Matching) -> float:
    """Operations of a step's convolutions.

    A forward pass of the network counts 1, so do the gradients of its weights and of its inputs, without the inputs of
    the first layer for real images; views take 9 in all (the double backward).
    """
    side = 32 if real.size == (28, 28) and real.channels == 1 else real.size[0]
    layers, incoming = [], real.channels
    for depth in range(3):
        layers.append(2 * (side >> depth) ** 2 * 9 * incoming * settings.width)
        incoming = settings.width
    forward = sum(layers)
    classes = len(real.classes)
    placed, networks = settings.parameterization, settings.networks
    cells = settings.ipc * (placed.images if isinstance(placed, (Dct, Fred)) else placed.factor**2)
    synthetic = classes * min(settings.batch_synthetic, cells)
    if isinstance(placed, Windows):
        synthetic += classes * min(settings.batch_synthetic, settings.ipc * placed.windows)
    if settings.contrastive is not None:
        synthetic += classes * min(cells, CONTRASTED // classes) / 3
    images = classes * settings.sampler.batch
    if isinstance(networks, TrainedOnReal):
        images += networks.batch * -(-networks.samples // networks.batch)
    return (3 * forward - layers[0]) * images / settings.target_reuse + 9 * forward * synthetic


def machine_rate(width: int, device: str, dtype: torch.dtype) -> float:
    """Best rate (operations a second) of a large 3x3 convolution at 16 x 16 and this width."""
    x = torch.randn(256, width, 16, 16, device=device, dtype=dtype)
    w = torch.randn(width, width, 3, 3, device=device, dtype=dtype)
    best = 0.0
    for _ in range(8):
        began = seconds(device)
        conv2d(x, w, padding=1)
        best = max(best, 2 * 256 * 256 * 9 * width * width / (seconds(device) - began))
    return best


def seconds(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def floor_seconds(real: ImageSet, settings: Matching, device: str) -> float:
    dtype = torch.bfloat16 if settings.bfloat16 != "none" else torch.float32
    return step_flops(real, settings) / machine_rate(settings.width, device, dtype)


def steps(args: argparse.Namespace) -> Iterator[dict]:
    """Reference, ours in float32, ours in bfloat16, ours with the fast recipe; and the floor of each precision."""
    with reference_process() as worker:
        for shape in args.shapes:
            for classes in args.classes:
                for ipc in args.ipc:
                    yield one_size(args, worker, shape, classes, ipc)


def one_size(args: argparse.Namespace, worker, shape: str, classes: int, ipc: int) -> dict:
    channels, side = SHAPES[shape]
    real = made_up_images(channels, side, classes, args.device)
    plain = step_settings(args, ipc)
    forms = {"exact": EXACT, "bf16": BF16, "fast": FAST}
    rounds = []
    for _ in range(args.repeats):
        spent = {
            "reference": worker(
                reference_seconds, (channels, side, classes), plain, args.steps, args.device, args.threads
            )
        }
        with freed_memory_kept():
            for name, changes in forms.items():
                spent[name] = product_seconds(real, replace(plain, **changes), args.steps, args.device)
        for name, changes in forms.items():
            spent["floor_" + name] = floor_seconds(real, replace(plain, **changes), args.device)
        rounds.append(spent)
    line = {"what": "steps", "shape": shape, "classes": classes, "ipc": ipc}
    line |= {f"seconds_{name}": round(median(r[name] for r in rounds), 4) for name in rounds[0]}
    for name in forms:
        line[f"reference_over_{name}"] = round(median(r["reference"] / r[name] for r in rounds), 2)
        line[f"{name}_over_floor"] = round(median(r[name] / r["floor_" + name] for r in rounds), 2)
    return line


@contextmanager
def reference_process() -> Iterator[Callable]:
    """A process that computes what it is sent, one call at a time, with nothing of ours switched on."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield lambda function, *arguments: pool.apply(function, arguments)


def unpooled(self: AveragePool, maps: torch.Tensor) -> torch.Tensor:
    return avg_pool2d(maps, 2)


def levers(args: argparse.Namespace) -> Iterator[dict]:
    """The chain from the reference to the fast recipe, one lever more in each row."""
    channels, side = SHAPES[args.shapes[0]]
    real = made_up_images(channels, side, args.classes[0], args.device)
    plain = step_settings(args, args.ipc[0])
    chain = [
        ("our loop, no lever", {}),
        ("crop kept contiguous", {}),
        ("pool as a matrix product", {}),
        ("freed memory kept", {}),
        ("classes in one pass", {}),
        ("real gradients in bfloat16", {"bfloat16": "real"}),
        ("network training in bfloat16", {"bfloat16": "real_network"}),
        ("second derivatives in bfloat16", BF16),
        ("a real gradient serves five steps", FAST),
    ]
    rounds = []
    with reference_process() as worker:
        for _ in range(args.repeats):
            spent = [
                worker(
                    reference_seconds, (channels, side, args.classes[0]), plain, args.steps, args.device, args.threads
                )
            ]
            for depth, (_, changes) in enumerate(chain):
                with ExitStack() as without:
                    if depth < 1:
                        without.enter_context(patch.dict(augment_module._APPLY, {"crop": gathered_crop}))
                    if depth < 2:
                        without.enter_context(patch.object(AveragePool, "forward", unpooled))
                    if depth >= 3:
                        without.enter_context(freed_memory_kept())
                    if depth < 4:
                        without.enter_context(patch.dict(step.IMAGES_AT_ONCE, {"cpu": 1}))
                    settings = replace(plain, **changes)
                    spent.append(product_seconds(real, settings, args.steps, args.device))
            rounds.append(spent)
    names = ["reference loop", *(name for name, _ in chain)]
    for i, name in enumerate(names):
        yield {
            "what": "levers",
            "lever": name,
            "shape": args.shapes[0],
            "classes": args.classes[0],
            "ipc": args.ipc[0],
            "seconds": round(median(r[i] for r in rounds), 4),
            "over_previous": round(median(r[max(0, i - 1)] / r[i] for r in rounds), 2),
            "over_reference": round(median(r[0] / r[i] for r in rounds), 2),
        }


def stages(args: argparse.Namespace) -> Iterator[dict]:
    """Seconds of every stage of a step, and the memory that it adds, for ours in float32 and bfloat16."""
    args.method = "udd-windows"
    for shape in args.shapes:
        channels, side = SHAPES[shape]
        for classes in args.classes:
            real = made_up_images(channels, side, classes, args.device)
            for ipc in args.ipc:
                for precision, changes in (("float32", EXACT), ("bfloat16", BF16)):
                    for name, call in stage_calls(real, step_settings(args, ipc, **changes), args.device).items():
                        call()
                        memory = peak_memory(call, args.device)
                        with freed_memory_kept():
                            call()
                            spent = median(timed(call, args.device) for _ in range(args.repeats))
                        yield {
                            "what": "stages",
                            "shape": shape,
                            "classes": classes,
                            "ipc": ipc,
                            "precision": precision,
                            "stage": name,
                            "seconds": round(spent, 4),
                            "peak_mb": round(memory / 2**20),
                        }


def stage_calls(real: ImageSet, settings: Matching, device: str) -> dict[str, Callable[[], object]]:
    """Every stage of a UDD step by name."""
    net = (settings.network, settings.width, real)
    state = fresh_network(*net, device=device, seed=0, address=("x",), bfloat16=True)
    settings = changed(settings, {"contrastive": "cfc"})
    loop = loop_of(real, settings, state.net)
    stage = loop.with_targets(NetworkStage(state, {}, 0, 0))
    here = Here(loop.params, state.computing("synthetic" in settings.bfloat16), stage, loop.augmentation, loop.task)
    images = [real.sample_class(c, settings.sampler.batch, stream(0, c)) for c in range(len(real.classes))]
    contrast = loop.side_losses[-1]

    return {
        "real gradients": lambda: loop.with_targets(NetworkStage(state, {}, 0, 0)),
        "synthetic double backward": lambda: params_gradient(
            loop.objective, stage.targets["loss"], loop.placed.unmined, loop.draw, here
        ),
        "network training": lambda: loop.networks.advance(state, 0, 0, stage.targets["loss"], loop.synthetic),
        "contrastive loss": lambda: params_gradient(
            contrast.objective, stage.targets["loss"], loop.placed.unmined, contrast.draw, here
        ),
        "augmentation of real images": lambda: [
            loop.augmentation(x, real, 0, step_address(0, 0, str(c))) for c, x in enumerate(images)
        ],
        "decode": loop.synthetic,
        "mining": lambda: loop.selection.refresh(0, loop.placed, loop.params, list(loop.moments.values())),
        "evaluation of 1,000 images": lambda: accuracy(state.net, thousand(real), mean=real.mean, std=real.std),
    }


def thousand(real: ImageSet) -> ImageSet:
    rows = torch.arange(0, len(real.labels), len(real.labels) // 1000, device=real.images.device)[:1000]
    return replace(real, images=real.images[rows], labels=real.labels[rows])


def timed(call: Callable[[], object], device: str) -> float:
    began = seconds(device)
    call()
    return seconds(device) - began


def peak_memory(call: Callable[[], object], device: str) -> int:
    """Bytes that a call adds at its peak to what was held before it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with freed_memory_kept():
        pass  # gives back what is free
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    call()
    return max(0, status_bytes("VmHWM") - before)


def status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def growth(args: argparse.Namespace) -> Iterator[dict]:
    """Seconds of a step as one size doubles and the others stay."""
    sizes = [("classes", {"classes": n}) for n in (5, 10, 20, 40)]
    sizes += [("images per class", {"ipc": n}) for n in (1, 4, 8, 16, 32)]
    sizes += [("real images of a class", {"batch": n}) for n in (32, 64, 128, 256)]
    sizes += [("image side", {"side": n}) for n in (16, 32, 64, 128)]
    for name, size in sizes:
        real = made_up_images(3, size.get("side", 32), size.get("classes", 10), args.device)
        settings = step_settings(args, size.get("ipc", 1), batch_real=size.get("batch", 64), **FAST)
        with freed_memory_kept():
            spent = median(product_seconds(real, settings, args.steps, args.device) for _ in range(args.repeats))
        peak = peak_memory(lambda real=real, x=settings: product_seconds(real, x, 1, args.device), args.device)
        value = next(iter(size.values()))
        yield {
            "what": "growth",
            "of": name,
            "value": value,
            "seconds": round(spent, 4),
            "peak_mb": round(peak / 2**20),
        }


def judge(args: argparse.Namespace) -> Iterator[dict]:
    """Five networks trained on the views of ten classes and tested: a plain loop, ours one by one, ours at once."""
    rules = replace(protocol_for("idc", "cifar10"), max_updates=args.updates)
    with reference_process() as worker:
        for shape in args.shapes:
            for ipc in args.ipc:
                rounds = []
                for _ in range(args.repeats):
                    spent = {"reference": worker(plain_judge_seconds, shape, ipc, rules, args)}
                    for name, at_once in (("one_by_one", 1), ("at_once", RUNS)):
                        spent[name] = our_judge_seconds(shape, ipc, rules, args, at_once)
                    rounds.append(spent)
                yield {
                    "what": "judge",
                    "shape": shape,
                    "views": 40 * ipc,
                    "runs": RUNS,
                    "updates": args.updates,
                    **{f"seconds_{name}": round(median(r[name] for r in rounds), 2) for name in rounds[0]},
                    "reference_over_one_by_one": round(median(r["reference"] / r["one_by_one"] for r in rounds), 2),
                    "reference_over_at_once": round(median(r["reference"] / r["at_once"] for r in rounds), 2),
                }


def judged_set(shape: str, ipc: int, device: str) -> tuple[DistilledSet, ImageSet]:
    """A set of four views an image, and a thousand test images."""
    real = made_up_images(*SHAPES[shape], 10)
    made = distil_dataset(real, replace(preset("random", "cifar10", 4 * ipc), validation=0.0))
    return made, thousand(real.to(device))


def plain_judge_seconds(shape: str, ipc: int, rules: Protocol, args: argparse.Namespace) -> float:
    torch.set_num_threads(args.threads)
    made, test = judged_set(shape, ipc, args.device)
    views = made.decoded().to(args.device)
    images = normalize(views.images, made.mean, made.std)
    return timed(lambda: reference_judge(images, views.labels, test, rules, args.width, RUNS), args.device)


def our_judge_seconds(shape: str, ipc: int, rules: Protocol, args: argparse.Namespace, at_once: int) -> float:
    made, test = judged_set(shape, ipc, args.device)

    def score() -> None:
        evaluate_distilled(made, test, rules, width=args.width, runs=RUNS, device=args.device, at_once=at_once)

    return timed(score, args.device)


def memory(args: argparse.Namespace) -> Iterator[dict]:
    """Resident memory, the allocator's kept memory included, and living objects, over --until steps."""
    channels, side = SHAPES[args.shapes[0]]
    real = made_up_images(channels, side, args.classes[0], args.device)
    settings = step_settings(args, args.ipc[0], **FAST, outer=args.until // 50 + 1, inner=10)
    with freed_memory_kept():
        loop = loop_of(real, settings)
        while loop.done < min(args.until, loop.steps):
            loop.step()
            if loop.done in (10, 100) or loop.done % 200 == 0:
                held = torch.cuda.memory_reserved() if args.device == "cuda" else status_bytes("VmRSS")
                peak = (
                    torch.cuda.max_memory_allocated()
                    if args.device == "cuda"
                    else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                )
                yield {
                    "what": "memory",
                    "step": loop.done,
                    "held_mb": round(held / 2**20),
                    "objects": len(gc.get_objects()),
                    "peak_mb": round(peak / 2**20),
                }


def table(path: Path, picture: Path) -> None:
    """Print the latest measurement of everything in a results file as Markdown, and draw the stages."""
    latest: dict[tuple, dict] = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        kept = (
            "what",
            "method",
            "shape",
            "classes",
            "ipc",
            "lever",
            "stage",
            "precision",
            "of",
            "value",
            "views",
            "step",
        )
        latest[tuple(line.get(name) for name in kept)] = line
    columns = {
        "steps": {
            "method": "method",
            "shape": "shape",
            "classes": "classes",
            "images a class": "ipc",
            "reference s": "seconds_reference",
            "float32 s": "seconds_exact",
            "bfloat16 s": "seconds_bf16",
            "fast s": "seconds_fast",
            "reference / float32": "reference_over_exact",
            "reference / bfloat16": "reference_over_bf16",
            "reference / fast": "reference_over_fast",
            "float32 / floor": "exact_over_floor",
            "bfloat16 / floor": "bf16_over_floor",
            "fast / floor": "fast_over_floor",
        },
        "levers": {
            "lever": "lever",
            "seconds a step": "seconds",
            "times the row before": "over_previous",
            "times the reference": "over_reference",
        },
        "stages": {
            "shape": "shape",
            "classes": "classes",
            "images a class": "ipc",
            "precision": "precision",
            "stage": "stage",
            "seconds": "seconds",
            "peak MB": "peak_mb",
        },
        "growth": {"of": "of", "value": "value", "seconds": "seconds", "peak MB": "peak_mb"},
        "judge": {
            "shape": "shape",
            "views": "views",
            "plain loop s": "seconds_reference",
            "ours, one by one s": "seconds_one_by_one",
            "ours, at once s": "seconds_at_once",
            "plain / one by one": "reference_over_one_by_one",
            "plain / at once": "reference_over_at_once",
        },
        "memory": {"step": "step", "held MB": "held_mb", "peak MB": "peak_mb"},
    }
    for what, names in columns.items():
        lines = [line for line in latest.values() if line["what"] == what]
        if not lines:
            continue
        print(f"\n### {what}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
        for line in lines:
            print(f"| {' | '.join(str(line[name]) for name in names.values())} |")
    draw_stages([line for line in latest.values() if line["what"] == "stages"], picture)


def draw_stages(lines: list[dict], path: Path) -> None:
    """Stacked bars: where the time of a UDD step goes, for every size measured, in float32 and bfloat16."""
    from matplotlib.figure import Figure

    parts = ["real gradients", "network training", "synthetic double backward", "contrastive loss", "mining"]
    sizes = list(dict.fromkeys((x["shape"], x["classes"], x["ipc"]) for x in lines))
    figure = Figure(figsize=(8, 0.8 + 0.62 * len(sizes)), layout="constrained")
    axes = figure.subplots()
    colors = dict(zip(parts, ["#2c5f8a", "#7fb0d6", "#c0392b", "#e59866", "#7d8a5c"], strict=True))
    names = []
    for size in sizes:
        for precision in ("float32", "bfloat16"):
            own = {
                x["stage"]: x["seconds"]
                for x in lines
                if (x["shape"], x["classes"], x["ipc"]) == size and x["precision"] == precision
            }
            whole = {
                x["stage"]: x["seconds"]
                for x in lines
                if (x["shape"], x["classes"], x["ipc"]) == size and x["precision"] == "float32"
            }
            scale = sum(whole[part] for part in parts)
            left = 0.0
            for part in parts:
                axes.barh(len(names), own[part] / scale, left=left, color=colors[part], height=0.8)
                left += own[part] / scale
            axes.text(left + 0.01, len(names), f"{sum(own[p] for p in parts):.2f} s", va="center", fontsize=8)
            names.append(f"{size[0]}, {size[1]} classes, {size[2]} a class, {precision}")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("share of the same UDD step in float32 (mining as if in every step)")
    axes.set_xlim(0, 1.12)
    figure.legend(
        [axes.barh(0, 0, color=colors[part])[0] for part in parts],
        parts,
        loc="outside upper center",
        ncols=5,
        fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


PARTS = {"steps": steps, "levers": levers, "stages": stages, "growth": growth, "judge": judge, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "table"])
    parser.add_argument("--method", default="idc", help="idc or a udd method")
    parser.add_argument("--shapes", nargs="+", default=["cifar"], choices=list(SHAPES))
    parser.add_argument("--classes", nargs="+", type=int, default=[10])
    parser.add_argument("--ipc", nargs="+", type=int, default=[1])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network-samples", type=int, default=2000)
    parser.add_argument("--until", type=int, default=1000, help="steps over which memory is followed")
    parser.add_argument("--updates", type=int, default=30, help="of each network of the judge")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.part == "table":
        name = "speed-profile.png" if args.device == "cpu" else f"speed-profile-{args.device}.png"
        table(RESULTS / f"speed-{args.device}.jsonl", RESULTS.parents[1] / "docs" / "images" / name)
        return
    torch.set_num_threads(args.threads)
    common = {
        "method": args.method,
        "width": args.width,
        "network_samples": args.network_samples,
        "repeats": args.repeats,
        "threads": args.threads,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    for line in PARTS[args.part](args):
        print(json.dumps(line), flush=True)
        with open(RESULTS / f"speed-{args.device}.jsonl", "a") as file:
            file.write(json.dumps(line | common) + "\n")


if __name__ == "__main__":
    main()
