"""One matching step: the real targets in the present network, and the gradient that they give the parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.data.images.image_set import ImageSet
from distil.dataset.network_state import NetworkState
from distil.dataset.protocols import Objective, Remembers, Sampler, Targets, Task
from distil.functional.augment import augment, normalize
from distil.parameterizations.base import Parameterization
from distil.processes import ONE, Processes
from distil.rng import seed_at, stream

CHUNKS = {"cpu": 4}
"""Elsewhere as many as there are processes. On the CPU, where two processes give the bytes of one, it cannot depend on
them: classes share passes in a multiple of so many chunks."""
IMAGES_AT_ONCE = {"cpu": 128}
IMAGES_AT_ONCE_ELSEWHERE = 4096
REAL_IMAGES_AT_ONCE = {"cpu": 1}
REAL_IMAGES_AT_ONCE_ELSEWHERE = 4096
"""Classes share a pass as long as their images number no more than this: beyond it only memory is used. On the CPU real
batches are large enough alone."""


@dataclass(frozen=True)
class NetworkStage:
    """A network after `inner` rounds of training, number `outer` of the run, and its real targets."""

    state: NetworkState
    targets: Mapping[str, Targets]
    """By the name of the loss: "loss" is the objective's."""
    outer: int
    inner: int

    def address(self, name: str) -> tuple[str | int, ...]:
        """Where the draws of a class are made."""
        return step_address(self.outer, self.inner, name)


def step_address(outer: int, inner: int, name: str) -> tuple[str | int, ...]:
    """Where the draws of the class `name` are made in a step."""
    return ("step", outer, inner, name)


@dataclass(frozen=True)
class Augment:
    """The siamese augmentation: equal addresses give real and synthetic images of a class equal draws."""

    operations: str
    one: bool

    def __call__(
        self, images: Float[Tensor, "n c h w"], real: ImageSet, seed: int, address: tuple[str | int, ...]
    ) -> Float[Tensor, "n c h w"]:
        """Images in [0, 1], normalized and augmented."""
        images = normalize(images, real.mean, real.std)
        generator = stream(seed, *address, "augment")
        return augment(images, self.operations, generator, shared=True, one=self.one)


def real_targets(
    objectives: Mapping[str, Objective],
    net: nn.Module,
    sampler: Sampler,
    augmentation: Augment,
    task: Task,
    outer: int,
    inner: int,
    processes: Processes = ONE,
) -> dict[str, Targets]:
    """The targets of each objective, by its name, in the step (outer, inner): each class's real batch is drawn and
    augmented at the class's address. Each process computes those of its classes; all get all.

    A sampler that remembers draws the batches of all classes in every process, so that it remembers the same.
    """
    real, dtype = task.real, next(net.parameters()).dtype
    most = REAL_IMAGES_AT_ONCE.get(task.device.type, REAL_IMAGES_AT_ONCE_ELSEWHERE)
    seed = seed_at(task.seed, "objective", outer, inner)
    found: dict[str, dict[int, Targets]] = {name: {} for name in objectives}
    chunks = together(task.classes, sampler.batch, most, CHUNKS.get(task.device.type, processes.count))
    own = dict(processes.mine(chunks))
    for number, classes in enumerate(chunks) if isinstance(sampler, Remembers) else own.items():
        batches = []
        for label in classes:
            address = step_address(outer, inner, real.classes[label])
            images = sampler(real, label, net, stream(task.seed, *address, "real"), inner)
            if number in own:
                batches.append(augmentation(images, real, task.seed, address).to(dtype))
        if number in own:
            images, labels = torch.stack(batches), torch.tensor(classes, device=task.device)
            for name, objective in objectives.items():
                found[name][number] = objective.targets(net, images, labels, seed)
    sizes = [len(classes) for classes in chunks]
    return {name: processes.rows(f"targets {name}", sizes, pieces) for name, pieces in found.items()}


@dataclass(frozen=True)
class Draw:
    """Which synthetic images of a class take part in a step."""

    most: int
    """At most so many of a class."""
    name: str
    """Address of the draw where there are more."""
    everyone: bool = False
    """Whether all classes must share one pass."""


@dataclass(frozen=True)
class Here:
    """What all objectives of a step have before them."""

    params: Float[Tensor, "n ..."]
    net: nn.Module
    """The network of the stage, in the precision in which synthetic images are computed."""
    stage: NetworkStage
    augmentation: Augment
    task: Task
    low: bool = False
    """Whether that precision is bfloat16."""
    processes: Processes = ONE
    """Those that share the classes."""


def params_gradient(
    objective: Objective, targets: Targets, placed: Parameterization, draw: Draw, here: Here
) -> tuple[Float[Tensor, "n ..."], Float[Tensor, ""]]:
    """Gradient of an objective with respect to all parameters, through the images of `placed`, and the loss. Each
    process computes those of its classes; all get all."""
    task, real, dtype = here.task, here.task.real, next(here.net.parameters()).dtype
    params, net = here.params, here.net
    found: dict[int, Targets] = {}
    count = min(task.ipc * placed.images_per_item, draw.most)
    most = IMAGES_AT_ONCE.get(task.device.type, IMAGES_AT_ONCE_ELSEWHERE)
    least = CHUNKS.get(task.device.type, here.processes.count)
    chunks = [list(range(task.classes))] if draw.everyone else together(task.classes, count, most, least)
    for number, classes in here.processes.mine(chunks):
        first, last = task.rows(classes[0]).start, task.rows(classes[-1]).stop
        leaf = params[first:last].detach().requires_grad_()
        images = []
        for place, label in enumerate(classes):
            address = here.stage.address(real.classes[label])
            decoded = placed.select(task.rows(label)).decode(leaf[task.rows(place)])
            if len(decoded) > draw.most:
                order = torch.randperm(len(decoded), generator=stream(task.seed, *address, draw.name))
                decoded = decoded[order[: draw.most].to(decoded.device)]
            images.append(here.augmentation(decoded, real, task.seed, address).to(dtype))
        wanted = {name: rows[classes[0] : classes[-1] + 1] for name, rows in targets.items()}
        labels = torch.tensor(classes, device=task.device)
        loss = objective.loss(net, torch.stack(images), labels, wanted)
        found[number] = {"gradient": torch.autograd.grad(loss, leaf)[0], "loss": loss.detach().expand(last - first)}
    sizes = [len(classes) * task.ipc for classes in chunks]
    shared = here.processes.rows(f"gradient {type(objective).__qualname__} {draw.name}", sizes, found)
    firsts = [task.rows(classes[0]).start for classes in chunks]
    return shared["gradient"], shared["loss"][firsts].sum()


def together(classes: int, images: int, most: int, least: int = 1) -> list[list[int]]:
    """Chunks of classes that share a pass: together `most` images at most, or one class. They are as equal as can be,
    and their number is a multiple of `least` where there are so many classes."""
    count = -(-classes // max(1, most // images))
    count = min(classes, -(-count // least) * least)
    size, more = divmod(classes, count)
    starts = [number * size + min(number, more) for number in range(count + 1)]
    return [list(range(*ends)) for ends in pairwise(starts)]


def share_of(whole: Tensor, part: Tensor, share: float) -> Tensor:
    """`part` scaled so that its norm is `share` of that of `whole`; zeros stay zeros."""
    return part * (share * whole.norm() / part.norm().clamp_min(1e-12))
