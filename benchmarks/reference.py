"""The loops that speed is measured from: IDC and our first UDD as peers would write them, and a plain judge.

On torch alone but for our network, color and cutout.

Class by class, the canvases moved after each class, a loss read back each time, the network then trained on real
images; the random crop gathers pixels from a permuted view, as the published code does.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, one_hot, pad

from distil import ImageSet, Matching, Protocol, build_network
from distil.dataset.config import Windows
from distil.evaluation.protocols import lr_at, updates_of
from distil.functional.augment import augment, cutmix, normalize
from distil.functional.contrast import contrastive_loss
from distil.functional.dct import from_coefficients
from distil.parameterizations.dct import Dct
from distil.rng import seed_at, stream
from parts import loop_of


def gathered_crop(images: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Shift each image (draws = 1: all alike) by up to an eighth of its side; the result's memory is channels last."""
    n, _, height, width = images.shape
    y, x = round(height / 8), round(width / 8)
    down = torch.randint(-y, y + 1, (draws, 1, 1), generator=generator).to(images.device)
    right = torch.randint(-x, x + 1, (draws, 1, 1), generator=generator).to(images.device)
    rows = torch.arange(height, device=images.device).view(1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, -1)
    which = torch.arange(n, device=images.device).view(-1, 1, 1)
    bordered = pad(images, (x, x, y, y)).permute(0, 2, 3, 1).contiguous()
    return bordered[which, rows + down + y, columns + right + x].permute(0, 3, 1, 2)


def augmented(images: Tensor, strategy: str, generator: torch.Generator, *, shared: bool) -> Tensor:
    """Flip, color, crop, cutout, of those that the strategy names."""
    words = strategy.split("_")
    if "flip" in words:
        images = augment(images, "flip", generator, shared=shared, one=False)
    if "color" in words:
        images = augment(images, "color", generator, shared=shared, one=False)
    if "crop" in words:
        images = gathered_crop(images, 1 if shared else len(images), generator)
    if "cutout" in words:
        images = augment(images, "cutout", generator, shared=shared, one=False)
    return images


def reference_loop(real: ImageSet, settings: Matching, proxy: nn.Module | None = None) -> Iterator[Tensor]:
    """Run the whole loop; yields the canvases after every matching step and the network's training that follows it.

    proxy: network that tells which cosines to keep, where views are made of cosines.
    """
    classes, ipc = len(real.classes), settings.ipc
    placed: Any = settings.parameterization
    networks: Any = settings.networks
    loop = loop_of(real, settings, proxy)
    canvases = loop.params.requires_grad_()
    windows, waves, factor = torch.zeros(0), None, getattr(placed, "factor", 1)
    mined, contrast = isinstance(placed, Windows), settings.contrastive
    if isinstance(loop.placed, Dct):
        of_one = torch.eye(real.images[0].numel(), device=canvases.device)[loop.placed.kept]
        waves = loop.placed.unit * (from_coefficients(of_one, loop.placed.shape) - 0.5)
    momentum = getattr(settings.optimizer, "momentum", 0.0)
    image_optimizer = torch.optim.SGD([canvases], lr=settings.optimizer.lr, momentum=momentum)
    for outer in range(settings.outer):
        net = build_network(
            settings.network,
            channels=real.channels,
            size=real.size,
            classes=classes,
            width=settings.width,
            seed=seed_at(settings.seed, "reference", outer),
        ).to(real.images.device)
        optimizer = torch.optim.SGD(
            net.parameters(),
            lr=networks.lr,
            momentum=networks.momentum,
            weight_decay=networks.weight_decay,
        )
        if waves is None:
            canvases.data.clamp_(0, 1)
        for inner in range(settings.inner):
            total = 0.0
            if mined and inner == 0 and outer % placed.refresh == 0:
                loop.task.proxy = net
                with torch.no_grad():
                    chosen = loop.selection.refresh(outer, loop.placed, canvases.detach(), list(loop.moments.values()))
                windows = chosen.windows  # pyright: ignore[reportAttributeAccessIssue]
            centers: list[Tensor] = []
            for c in range(classes):
                generator = stream(settings.seed, "reference", outer, inner, c)
                images = real.sample_class(c, settings.sampler.batch, generator)
                rows = canvases[c * ipc : (c + 1) * ipc]
                views = cut(rows, factor, real.size) if waves is None else sums_of(rows, waves)
                if len(views) > settings.batch_synthetic:
                    views = views[torch.randperm(len(views), generator=generator)[: settings.batch_synthetic]]
                both = normalize(torch.cat([images, views]), real.mean, real.std)
                both = augmented(both, settings.augment, generator, shared=True)
                labels = torch.full((len(both),), c, device=both.device)
                n = len(images)
                target = torch.autograd.grad(cross_entropy(net(both[:n].detach()), labels[:n]), list(net.parameters()))
                loss = cross_entropy(net(both[n:]), labels[n:])
                gradient = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
                pairs = [(a.detach(), b) for a, b in zip(target, gradient, strict=True) if a.dim() == 4]
                distance = torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
                total += float(distance.detach())
                image_optimizer.zero_grad()
                distance.backward()
                if mined:
                    views = window_views(rows, windows[c * ipc : (c + 1) * ipc], real.size)
                    views = augmented(normalize(views, real.mean, real.std), settings.augment, generator, shared=True)
                    loss = cross_entropy(net(views), labels[: len(views)])
                    gradient = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
                    pairs = [(a.detach(), b) for a, b in zip(target, gradient, strict=True) if a.dim() == 4]
                    (
                        getattr(placed.windows_loss, "windows_share", 1.0)
                        * torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
                    ).backward()
                image_optimizer.step()
                if contrast is not None:
                    centers.append(net.embed(both[:n].detach()).detach().mean(0))
            if contrast is not None:
                generator = stream(settings.seed, "reference", outer, inner, "contrast")
                views = normalize(cut(canvases, factor, real.size), real.mean, real.std)
                embedded = net.embed(augmented(views, settings.augment, generator, shared=True))
                means = embedded.unflatten(0, (factor**2, classes, ipc)).mean((0, 2))
                image_optimizer.zero_grad()
                (contrast.share * contrastive_loss(means, torch.stack(centers), contrast.temperature)).backward()
                image_optimizer.step()
            if total != total:
                raise ValueError("the reference loop diverged")
            if inner < settings.inner - 1:
                for update in range(-(-networks.samples // networks.batch)):
                    generator = stream(settings.seed, "reference", outer, inner, "network", update)
                    batch = real.sample(networks.batch, generator)
                    images = normalize(batch.images, real.mean, real.std)
                    images = augmented(images, networks.augment, generator, shared=False)
                    goal = one_hot(batch.labels, classes).float()
                    images, goal = cutmix(images, goal, generator, probability=networks.cutmix)
                    optimizer.zero_grad()
                    cross_entropy(net(images), goal).backward()
                    optimizer.step()
            yield canvases.detach()


def cut(canvases: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """The factor x factor cells of the canvases, each enlarged to the whole size."""
    tall, wide = size[0] // factor, size[1] // factor
    cells = [
        canvases[:, :, i * tall : (i + 1) * tall, j * wide : (j + 1) * wide]
        for i in range(factor)
        for j in range(factor)
    ]
    return interpolate(torch.cat(cells), size=size, mode="bilinear")


def sums_of(canvases: Tensor, waves: Tensor) -> Tensor:
    """The sums of the waves, each times a number of the canvas; so many numbers a view."""
    count = len(waves)
    numbers = canvases.flatten(1)
    views = [row[i : i + count] for row in numbers for i in range(0, len(row) - count + 1, count)]
    return torch.tensordot(torch.stack(views), waves, 1) + 0.5


def window_views(canvases: Tensor, windows: Tensor, size: tuple[int, int]) -> Tensor:
    """Every window of every canvas, enlarged to the whole size."""
    views = []
    for canvas, own in zip(canvases, windows.int().tolist(), strict=True):
        views += [interpolate(canvas[None, :, y1:y2, x1:x2], size=size, mode="bilinear") for x1, y1, x2, y2 in own]
    return torch.cat(views)


def reference_judge(images: Tensor, labels: Tensor, test: ImageSet, protocol: Protocol, width: int, runs: int) -> None:
    """Train and test networks one after another, as the published evaluations do; normalized images, class indices."""
    classes = len(test.classes)
    updates = updates_of(protocol, len(images))
    for run in range(runs):
        net = build_network(
            "convnet3", channels=test.channels, size=test.size, classes=classes, width=width, seed=run
        ).to(images.device)
        optimizer = torch.optim.SGD(
            net.parameters(), lr=protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
        )
        order: list[Tensor] = []
        for update in range(updates):
            generator = stream(run, "judge", update)
            order = order or list(torch.randperm(len(images), generator=generator).split(protocol.batch))
            rows = order.pop().to(images.device)
            batch = augmented(images[rows], protocol.strategy, generator, shared=False)
            goal = one_hot(labels[rows], classes).float()
            batch, goal = cutmix(batch, goal, generator, probability=protocol.cutmix)
            optimizer.zero_grad()
            loss = cross_entropy(net(batch), goal)
            loss.backward()
            optimizer.step()
            for group in optimizer.param_groups:
                group["lr"] = lr_at(protocol, update + 1, updates)
            loss.item()
        correct = 0
        with torch.no_grad():
            for pictures, wanted in zip(test.images.split(256), test.labels.split(256), strict=True):
                logits = net(normalize(pictures.float() / 255, test.mean, test.std))
                correct += int((logits.argmax(1) == wanted).sum())
