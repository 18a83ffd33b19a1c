"""Train networks as a protocol says: one by itself, or several of one kind at once."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import one_hot

from distil.data.images.lazy_images import LazyImages
from distil.errors import DistilError
from distil.evaluation.labels import Loss
from distil.evaluation.protocols import Protocol, lr_at, updates_of
from distil.functional.augment import augment, cutmix, normalize
from distil.functional.optimize import adamw_step, sgd_step
from distil.functional.resized_crop import random_resized_crop
from distil.rng import stream
from distil.types import Batch

FINITE_CHECK = 50
"""Updates between two looks at the losses: a look waits for the device."""

REMEDY = (
    "Look for damaged images with `distil show`; if they are sound, the learning rate of the protocol is too high for "
    "this network: use another protocol, or from Python dataclasses.replace(protocol, lr=...)."
)


def train_network(
    net: nn.Module,
    views: Batch,
    protocol: Protocol,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    device: torch.device | str,
    classes: int,
    updates: int | None = None,
    what: str = "the network",
) -> nn.Module:
    """Train `net` in place, on `device`, as the protocol says, and return it.

    views: their labels as class indices, or as probabilities, which are learned as they are. mean, std: what images
    are normalized by. classes: number of classes.
    updates: None for the protocol's own number. what: how an error calls the network.

    Each epoch is a fresh permutation; a batch is normalized, cropped and augmented image by image, mixed, and
    learned on the cross-entropy -sum_k p_k log softmax(net(x))_k. All draws depend on `seed` and the update alone.

    Raises: DistilError when a loss or, at the end, a weight is not finite; it names the update.
    """
    views = views.to(device)
    train_together(
        [net.to(device)],
        [views.images if views.images.dtype == torch.uint8 else normalize(views.images, mean, std)],
        [probabilities(views.labels, classes)],
        protocol,
        mean=mean,
        std=std,
        seeds=[seed],
        updates=updates_of(protocol, len(views)) if updates is None else updates,
        names=[what],
    )
    return net


def train_together(
    nets: Sequence[nn.Module],
    images: Sequence[UInt8[Tensor, "m c h w"] | Float[Tensor, "m c h w"] | LazyImages],
    targets: Sequence[Float[Tensor, "m k"]],
    protocol: Protocol,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seeds: Sequence[int],
    updates: int,
    names: Sequence[str],
    loss_of: Loss | None = None,
) -> None:
    """Train networks of one kind in place, each as `train_network` would by itself, up to rounding.

    nets: on the device of the images; they are in train mode afterwards. Buffers are the running statistics of batch
    norms, of which each network keeps its own. images, targets, seeds, names: one for each network; the images
    of each are equally many, and networks may share one tensor. Floats are normalized already; uint8 images become
    normalized floats batch by batch, to save memory. targets: class probabilities. names: as errors call the networks.
    loss_of: what is learned in the place of the cross-entropy with the targets; see `distil.evaluation.labels.Loss`.

    Each network draws its own order, augmentation and mixing from its seed. The weights of several are stacked, and
    one forward and backward pass in batched operations updates all: memory grows with their number. One network
    alone is trained as it is.

    Raises: DistilError when a loss or, at the end, a weight is not finite. It names the update and the network; where
    several go wrong between two looks at the losses, which are FINITE_CHECK updates apart, the first in `nets`.
    """
    count = len(images[0])
    for net in nets:
        net.train()
    params, forward, unstack = _alone(nets[0]) if len(nets) == 1 else _stacked(nets)
    learn = _optimizer(protocol, params, vector=1 if len(nets) == 1 else 2)
    steps = ceil(count / protocol.batch)
    orders: list[Tensor] = []
    losses: list[Tensor] = []
    for update in range(updates):
        epoch, step = divmod(update, steps)
        if step == 0:
            orders = [
                torch.randperm(count, generator=stream(seed, "order", epoch)).to(images[0].device) for seed in seeds
            ]
        batches, goals = [], []
        for own_images, own_targets, order, seed in zip(images, targets, orders, seeds, strict=True):
            chosen = order[step * protocol.batch : (step + 1) * protocol.batch]
            batch, goal = own_images[chosen], own_targets[chosen]
            if batch.dtype == torch.uint8:
                batch = normalize(batch.float() / 255, mean, std)
            draws = stream(seed, "update", update)
            if protocol.resized_crop:
                batch = random_resized_crop(batch, draws, smallest=protocol.resized_crop)
            batch = augment(batch, protocol.strategy, draws, shared=False, one=protocol.one)
            batch, goal = cutmix(batch, goal, draws, probability=protocol.cutmix)
            batches.append(batch)
            goals.append(goal)
        loss = (loss_of or _cross_entropy)(forward(batches), torch.stack(batches), torch.stack(goals))
        grads = torch.autograd.grad(loss.sum(), params)
        learn(grads, update + 1, lr_at(protocol, update, updates))
        losses.append(loss.detach())
        if len(losses) == FINITE_CHECK or update == updates - 1:
            _check_losses(losses, update + 1, updates, names)
            losses.clear()
    unstack()
    for net, name in zip(nets, names, strict=True):
        if not all(bool(param.isfinite().all()) for param in net.parameters()):
            raise DistilError(f"{name}: weights are not finite after update {updates} of {updates}. {REMEDY}")


def _cross_entropy(logits: Tensor, _images: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(2)).sum(2).mean(1)


def probabilities(labels: Int[Tensor, " n"] | Float[Tensor, "n k"], classes: int) -> Float[Tensor, "n k"]:
    """One row of class probabilities an image, of class indices or of such rows."""
    return labels.float() if labels.is_floating_point() else one_hot(labels, classes).float()


Forward = Callable[[list[Tensor]], Tensor]
"""From a batch of each network, [b, c, h, w], to their logits, [networks, b, k]."""


Learn = Callable[[Sequence[Tensor], int, float], None]
"""Called with the gradients, the number of the update, counted from 1, and its learning rate."""


def _optimizer(protocol: Protocol, params: list[Tensor], *, vector: int) -> Learn:
    """Updates of these parameters. vector: dimensions that those of biases and norms have."""
    first = [torch.zeros_like(param) for param in params]
    if protocol.optimizer == "sgd":
        options = {"momentum": protocol.momentum, "weight_decay": protocol.weight_decay}
        return lambda grads, _, lr: sgd_step(params, grads, first, lr=lr, **options)
    second = [torch.zeros_like(param) for param in params]
    decays = [protocol.weight_decay if param.ndim > vector else 0.0 for param in params]
    return lambda grads, step, lr: adamw_step(params, grads, first, second, step=step, lr=lr, decays=decays)


def _alone(net: nn.Module) -> tuple[list[Tensor], Forward, Callable[[], None]]:
    """The network's own parameters, its forward pass, and nothing to be done at the end."""
    return list(net.parameters()), lambda batches: net(batches[0])[None], lambda: None


def _stacked(nets: Sequence[nn.Module]) -> tuple[list[Tensor], Forward, Callable[[], None]]:
    """Copies of the networks' parameters, stacked along a new first dimension, the forward pass of all, and what copies
    parameters and buffers back into the networks. A forward pass updates the buffers, each network's own."""
    weights, buffers = stack_module_state(list(nets))

    def logits(parameters: dict[str, Tensor], statistics: dict[str, Tensor], batch: Tensor) -> Tensor:
        return functional_call(nets[0], (parameters, statistics), (batch,))

    # grad of vmap, not vmap of grad: the same gradients in up to 40 % less time, measured on a CPU
    return (
        list(weights.values()),
        lambda batches: vmap(logits)(weights, buffers, torch.stack(batches)),
        lambda: _unstack({**weights, **buffers}, nets),
    )


@torch.no_grad()
def _unstack(tensors: Mapping[str, Tensor], nets: Sequence[nn.Module]) -> None:
    """Copy stacked parameters and buffers back into their networks."""
    for index, net in enumerate(nets):
        for name, own in (*net.named_parameters(), *net.named_buffers()):
            own.copy_(tensors[name][index])


def _check_losses(losses: Sequence[Float[Tensor, " networks"]], done: int, total: int, names: Sequence[str]) -> None:
    """Refuse losses, the last ones of `done` updates, that are NaN or infinite."""
    values = torch.stack(list(losses), 1)
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        network, first = bad[0].tolist()
        update = done - len(losses) + first + 1
        raise DistilError(
            f"{names[network]}: the loss is {float(values[network, first])} at update {update} of {total}. {REMEDY}"
        )
