"""A network between matching steps, and how it is trained there."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from distil.data.images.image_set import ImageSet
from distil.functional.augment import augment, cutmix, normalize
from distil.functional.optimize import sgd_step
from distil.networks import build_network
from distil.rng import seed_at, stream
from distil.types import Batch

Progress = Callable[[int, int], object]
"""Called with how much of something is done, and of how much."""


@dataclass
class NetworkState:
    """A network and the momenta of its training; with `low`, a bfloat16 copy that follows it.

    accuracy: share of the images of its last training on real images that it recognized. trained: the network that
    classifies in its place, where it is not the one that has been trained.
    """

    net: nn.Module
    momenta: list[Tensor]
    low: nn.Module | None = None
    accuracy: float = 0.0
    trained: "NetworkState | None" = None

    @property
    def weights(self) -> list[nn.Parameter]:
        return list(self.net.parameters())

    @property
    def tensors(self) -> list[Tensor]:
        """All that training has changed."""
        return [*self.net.parameters(), *self.net.buffers(), *self.momenta]

    def computing(self, bfloat16: bool) -> nn.Module:
        """The network to compute with: the bfloat16 copy where that is asked for."""
        return self.low if bfloat16 and self.low is not None else self.net

    def frozen(self) -> "NetworkState":
        """The network as it is now, to compute with; it is not trained on."""
        return NetworkState(copy.deepcopy(self.net), [], copy.deepcopy(self.low), self.accuracy, self.trained)

    @torch.no_grad()
    def refresh_low(self) -> None:
        """Bring the copy up to date after the weights have changed."""
        if self.low is not None:
            for copied, weight in zip(self.low.parameters(), self.weights, strict=True):
                copied.copy_(weight)


@dataclass(frozen=True)
class Training:
    """How a network is trained between matching steps."""

    lr: float
    momentum: float
    weight_decay: float
    batch: int = 64
    augment: str = "none"
    augment_one: bool = False
    cutmix: float = 0.0
    bfloat16: bool = False


def fresh_network(
    network: str,
    width: int,
    real: ImageSet,
    *,
    device: torch.device | str,
    seed: int,
    address: tuple[str | int, ...],
    bfloat16: bool = False,
) -> NetworkState:
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
    return NetworkState(net, [torch.zeros_like(weight) for weight in net.parameters()], low)


def train_batch(
    state: NetworkState, batch: Batch, training: Training, real: ImageSet, generator: torch.Generator
) -> Int[Tensor, ""]:
    """One update of the network on one batch, augmented image by image; how many images it recognized before."""
    images = normalize(batch.images, real.mean, real.std)
    images = augment(images, training.augment, generator, shared=False, one=training.augment_one)
    targets = batch.labels
    if not targets.is_floating_point():
        targets = one_hot(targets.long(), len(real.classes)).to(images.dtype)
    images, targets = cutmix(images, targets, generator, probability=training.cutmix)
    net = state.computing(training.bfloat16)
    logits = net(images.to(next(net.parameters()).dtype)).float()
    train_by_gradient(state, torch.autograd.grad(cross_entropy(logits, targets), list(net.parameters())), training)
    return (logits.argmax(1) == targets.argmax(1)).sum()


def train_by_gradient(state: NetworkState, gradient: Sequence[Tensor], training: Training) -> None:
    """One update of the network by a gradient of all its weights, of any precision."""
    sgd_step(
        state.weights,
        [part.float() for part in gradient],
        state.momenta,
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    state.refresh_low()


def train_on_real(
    state: NetworkState,
    real: ImageSet,
    samples: int,
    training: Training,
    seed: int,
    *address: str | int,
    measured: bool = False,
) -> None:
    """Train on `samples` real images drawn uniformly, in whole batches (at least one if samples is above 0).

    measured: whether the state's accuracy becomes the share of them that the network recognized.
    """
    updates = -(-samples // training.batch)
    right = torch.zeros((), dtype=torch.int64, device=real.images.device)
    for update in range(updates):
        generator = stream(seed, *address, update)
        right += train_batch(state, real.sample(training.batch, generator), training, real, generator)
    if updates and measured:
        state.accuracy = int(right) / (updates * training.batch)


def train_on_synthetic(
    state: NetworkState, images: Batch, epochs: int, training: Training, real: ImageSet, seed: int, *address: str | int
) -> None:
    """Train for `epochs` shuffled passes over synthetic images."""
    for epoch in range(epochs):
        generator = stream(seed, *address, epoch)
        order = torch.randperm(len(images), generator=generator).to(images.images.device)
        for rows in order.split(training.batch):
            train_batch(state, Batch(images.images[rows], images.labels[rows]), training, real, generator)
