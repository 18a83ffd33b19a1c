"""Speed of a matching step beside a plain reference loop and the machine's own rate, in one run.

    python benchmarks/speed.py --threads 2

Reference: IDC's step written plainly from the published recipe, class by class, the canvases moved after each class, a
loss read back each time, then the network trained on real images. Ours: the product's step. Floor: the arithmetic of
the step (convolutions, counted layer by layer) at the rate that this machine reaches on large convolutions of these
shapes in float32. The three are timed in turn, several times; medians of the ratios are quoted, since machines drift.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import conv2d, cross_entropy, interpolate

from distil import ImageSet, build_network, preset
from distil.dataset.initial import initial_canvases
from distil.dataset.matching import advance, initial_state
from distil.functional.augment import augment, cutmix, normalise
from distil.rng import stream

SHAPES = {"cifar": (3, 32), "grey28": (1, 28)}


def made_up_images(channels: int, side: int, classes: int) -> ImageSet:
    """Noise in the shape of a data set: speed does not depend on what the images show."""
    images = torch.randint(0, 256, (classes * 200, channels, side, side), dtype=torch.uint8)
    labels = torch.arange(classes).repeat_interleave(200)
    names = tuple(f"c{i:03d}" for i in range(classes))
    return ImageSet(images, labels, names, (0.5,) * channels, (0.25,) * channels, "noise")


def reference_steps(real: ImageSet, settings, steps: int) -> None:
    """The published loop as its peers write it, on torch alone but for our augmentation and network definition."""
    classes, ipc, factor = len(real.classes), settings.ipc, settings.factor
    net = build_network(
        "convnet3", channels=real.channels, size=real.size, classes=classes, width=settings.width, seed=0
    ).to(real.images.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    canvases = initial_canvases(real, ipc, "mix", factor, 0).requires_grad_()
    image_optimizer = torch.optim.SGD([canvases], lr=settings.lr_image, momentum=0.5)
    side = real.size[0]
    cell = side // factor

    def prepare(images, generator, shared, strategy):
        return augment(normalise(images, real.mean, real.std), strategy, generator, shared=shared, one=False)

    total = 0.0
    for step in range(steps):
        for c in range(classes):
            generator = stream(0, step, c)
            images = real.sample_class(c, settings.batch_real, generator)
            rows = canvases[c * ipc : (c + 1) * ipc]
            cells = [
                rows[:, :, i * cell : (i + 1) * cell, j * cell : (j + 1) * cell]
                for i in range(factor)
                for j in range(factor)
            ]
            views = interpolate(torch.cat(cells), size=(side, side), mode="bilinear")
            both = prepare(torch.cat([images, views]), generator, True, settings.augment)
            labels = torch.full((len(both),), c, device=both.device)
            n = len(images)
            target = torch.autograd.grad(cross_entropy(net(both[:n]), labels[:n]), list(net.parameters()))
            loss = cross_entropy(net(both[n:]), labels[n:])
            gradient = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
            distance = sum(
                (a.detach() - b).square().sum() for a, b in zip(target, gradient, strict=True) if a.dim() == 4
            )
            total += float(distance.detach())
            image_optimizer.zero_grad()
            distance.backward()
            image_optimizer.step()
        for update in range(-(-settings.network_samples // 64)):
            generator = stream(0, step, "net", update)
            batch = real.sample(64, generator)
            images = prepare(batch.images, generator, False, settings.augment_network)
            goal = torch.nn.functional.one_hot(batch.labels, classes).float()
            images, goal = cutmix(images, goal, generator, probability=0.5)
            optimizer.zero_grad()
            cross_entropy(net(images), goal).backward()
            optimizer.step()
    if total != total:
        raise ValueError("the reference loop diverged")


def our_steps(real: ImageSet, settings, steps: int) -> None:
    """The product's loop: one step more, because the network is not trained after the last."""
    settings = replace(settings, outer=1, inner=steps + 1)
    for state in advance(initial_state(real, settings), real, settings, None):
        if state.step == steps:
            return


def step_flops(real: ImageSet, settings) -> float:
    """Operations of a step's convolutions: real images and the network's training count 3 forward passes, views 9."""
    size = 32 if real.size == (28, 28) and real.channels == 1 else real.size[0]
    forward, incoming = 0.0, real.channels
    for depth in range(3):
        forward += 2 * (size >> depth) ** 2 * 9 * incoming * settings.width
        incoming = settings.width
    classes = len(real.classes)
    views = classes * min(settings.batch_views, settings.ipc * settings.factor**2)
    images = classes * settings.batch_real + 64 * -(-settings.network_samples // 64)
    return forward * (3 * images + 9 * views)


def machine_rate(width: int, device: str) -> float:
    """Best rate (operations a second) of a large 3x3 convolution at 16 x 16 and this width."""
    x, w = torch.randn(256, width, 16, 16, device=device), torch.randn(width, width, 3, 3, device=device)
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


def timed(function, *arguments, device: str) -> float:
    began = seconds(device)
    function(*arguments)
    return seconds(device) - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network-samples", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    lines = []
    for shape in args.shapes:
        channels, side = SHAPES[shape]
        real = made_up_images(channels, side, args.classes).to(args.device)
        settings = replace(
            preset("idc", "cifar10", args.ipc), width=args.width, network_samples=args.network_samples, batch_real=64
        )
        pairs = []
        for _ in range(args.repeats):
            plain = timed(reference_steps, real, settings, args.steps, device=args.device) / args.steps
            ours = timed(our_steps, real, settings, args.steps, device=args.device) / args.steps
            pairs.append((plain, ours, step_flops(real, settings) / machine_rate(args.width, args.device)))
        line = {
            "shape": shape,
            "classes": args.classes,
            "ipc": args.ipc,
            "width": args.width,
            "network_samples": args.network_samples,
            "seconds_reference": round(median(p[0] for p in pairs), 3),
            "seconds_ours": round(median(p[1] for p in pairs), 3),
            "seconds_floor": round(median(p[2] for p in pairs), 3),
            "reference_over_ours": round(median(p[0] / p[1] for p in pairs), 2),
            "ours_over_floor": round(median(p[1] / p[2] for p in pairs), 2),
            "threads": torch.get_num_threads(),
            "device": args.device,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        print(json.dumps(line), flush=True)
        lines.append(line)
    path = Path(__file__).parent / "results" / f"speed-{args.device}.jsonl"
    with open(path, "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    main()
