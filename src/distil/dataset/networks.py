"""The networks in which real and synthetic images are matched: fresh, then trained a little."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from distil.data.images.image_set import ImageSet
from distil.functional.augment import augment, cutmix, normalize
from distil.functional.optimise import sgd_step
from distil.networks import build_network
from distil.rng import seed_at, stream
from distil.settings import MatchingSettings
from distil.types import Batch

Progress = Callable[[int, int], object]
"""Called with how much of something is done, and of how much."""


@dataclass
class Learner:
    """A network and the momenta of its training; with `low`, a bfloat16 copy that follows it."""

    net: nn.Module
    momenta: list[Tensor]
    low: nn.Module | None = None

    @property
    def weights(self) -> list[nn.Parameter]:
        return list(self.net.parameters())

    def computing(self, bfloat16: bool) -> nn.Module:
        """The network to compute with: the bfloat16 copy where that is asked for."""
        return self.low if bfloat16 and self.low is not None else self.net

    def frozen(self) -> "Learner":
        """The network as it is now, to compute with; it is not trained on."""
        return Learner(copy.deepcopy(self.net), [], copy.deepcopy(self.low))

    @torch.no_grad()
    def refresh_low(self) -> None:
        """Bring the copy up to date after the weights have changed."""
        if self.low is not None:
            for copied, weight in zip(self.low.parameters(), self.weights, strict=True):
                copied.copy_(weight)


@dataclass(frozen=True)
class Training:
    """How a network is trained between matching steps."""

    batch: int
    lr: float
    momentum: float
    weight_decay: float
    augment: str
    augment_one: bool
    cutmix: float
    bfloat16: bool = False


def training_of(settings: MatchingSettings) -> Training:
    return Training(
        batch=settings.network_batch,
        lr=settings.network_lr,
        momentum=settings.network_momentum,
        weight_decay=settings.network_weight_decay,
        augment=settings.augment_network,
        augment_one=settings.augment_one,
        cutmix=settings.network_cutmix,
        bfloat16="network" in settings.bfloat16,
    )


def fresh_learner(
    network: str,
    width: int,
    real: ImageSet,
    *,
    device: torch.device | str,
    seed: int,
    address: tuple[str | int, ...],
    bfloat16: bool = False,
) -> Learner:
    """A network with weights drawn at `address`, for the shape and classes of `real`; bfloat16: with such a copy."""
    net = build_network(
        network,
        channels=real.channels,
        size=real.size,
        classes=len(real.classes),
        width=width,
        seed=seed_at(seed, *address),
    ).to(device)
    low = copy.deepcopy(net).to(torch.bfloat16) if bfloat16 else None
    return Learner(net, [torch.zeros_like(weight) for weight in net.parameters()], low)


def train_batch(learner: Learner, batch: Batch, training: Training, real: ImageSet, generator: torch.Generator) -> None:
    """One update of the network on one batch, augmented image by image."""
    images = normalize(batch.images, real.mean, real.std)
    images = augment(images, training.augment, generator, shared=False, one=training.augment_one)
    targets = batch.labels
    if not targets.is_floating_point():
        targets = one_hot(targets.long(), len(real.classes)).to(images.dtype)
    images, targets = cutmix(images, targets, generator, probability=training.cutmix)
    net = learner.computing(training.bfloat16)
    logits = net(images.to(next(net.parameters()).dtype)).float()
    train_by_gradient(learner, torch.autograd.grad(cross_entropy(logits, targets), list(net.parameters())), training)


def train_by_gradient(learner: Learner, gradient: Sequence[Tensor], training: Training) -> None:
    """One update of the network by a gradient of all its weights, of any precision."""
    sgd_step(
        learner.weights,
        [part.float() for part in gradient],
        learner.momenta,
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    learner.refresh_low()


def train_on_real(
    learner: Learner, real: ImageSet, samples: int, training: Training, seed: int, *address: str | int
) -> None:
    """Train on `samples` real images drawn uniformly, in whole batches (at least one if samples is above 0)."""
    for update in range(-(-samples // training.batch)):
        generator = stream(seed, *address, update)
        train_batch(learner, real.sample(training.batch, generator), training, real, generator)


def train_on_views(
    learner: Learner, views: Batch, epochs: int, training: Training, real: ImageSet, seed: int, *address: str | int
) -> None:
    """Train for `epochs` shuffled passes over synthetic views."""
    for epoch in range(epochs):
        generator = stream(seed, *address, epoch)
        order = torch.randperm(len(views), generator=generator).to(views.images.device)
        for rows in order.split(training.batch):
            train_batch(learner, Batch(views.images[rows], views.labels[rows]), training, real, generator)


def trained_proxy(
    network: str,
    width: int,
    real: ImageSet,
    steps: int,
    *,
    device: torch.device | str,
    seed: int,
    progress: Progress | None = None,
) -> nn.Module:
    """A network trained on the real images, which then judges regions and embeds images.

    steps: updates of 64 images, SGD with momentum .9 and weight decay 5e-4, learning rate .01 falling to a tenth for
    the last quarter; augmented by colour and crop. progress: called after each.
    """
    learner = fresh_learner(network, width, real, device=device, seed=seed, address=("proxy",))
    for step in range(steps):
        lr = 0.01 if step < 0.75 * steps else 0.001
        training = Training(64, lr, 0.9, 5e-4, "color_crop", False, 0.0)
        generator = stream(seed, "proxy", step)
        train_batch(learner, real.sample(64, generator), training, real, generator)
        if progress:
            progress(step + 1, steps)
    return learner.net.requires_grad_(False)


@torch.no_grad()
def embed_all(
    net: nn.Module, real: ImageSet, *, batch: int = 512, progress: Progress | None = None
) -> Float[Tensor, "n d"]:
    """The network's embedding of every real image, on the CPU. progress: called with how many images are done."""
    parts = []
    for rows in torch.arange(len(real.labels)).split(batch):
        images = normalize(real.batch(rows.to(real.labels.device)).images, real.mean, real.std)
        parts.append(net.embed(images).flatten(1).cpu())  # pyright: ignore[reportCallIssue]
        if progress:
            progress(int(rows[-1]) + 1, len(real.labels))
    return torch.cat(parts)
