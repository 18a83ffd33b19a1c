"""The matching loop. It knows roles only: DC, DSA, DM, IDC and UDD are compositions that stand in `methods`.

Every draw is addressed by (seed, name, step, class): a resumed run is equal bit for bit on the CPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distil.dataset.config import Matching
from distil.dataset.image_optimizer import image_optimizer
from distil.dataset.labels import hard_labels
from distil.dataset.network_state import Progress
from distil.dataset.protocols import NetworkSource, Objective, Sampler, Selection, Task
from distil.dataset.restoring import LARGEST, check_state, load_state, state_of
from distil.dataset.side_losses import SideLoss, side_gradient
from distil.dataset.spreading import NetworksAhead, agree, stages_of
from distil.dataset.step import Augment, Draw, Here, NetworkStage, params_gradient, real_targets
from distil.distilled_set.record import DistilledSet
from distil.parameterizations.base import Parameterization
from distil.processes import ONE, Processes
from distil.rng import stream
from distil.types import Batch


@dataclass
class MatchingLoop:
    """Each of `outer` network trajectories serves `inner` network stages. In a step every class's real batch and
    synthetic images, augmented alike, are matched in one stage and all parameters move once.

    With target_reuse 1 the network is trained after each step. Above 1, a trajectory's stages and their real targets
    are computed first, since they do not depend on the parameters, and each serves so many steps, in random order.
    stages: computes them where runs or processes share them. preparing: called with progress, between whole steps.
    processes: those that share the classes of a step. whole: whether the state is that after a whole step.

    Differs: IDC moves the pixels after every class; only the moment at which the momentum acts differs. DC, DSA and DM
    work on normalized pixels without bounds; here the learning rate carries the normalization.
    """

    task: Task
    settings: Matching
    selection: Selection
    objective: Objective
    networks: NetworkSource
    sampler: Sampler
    finish: Callable[[Tensor, Parameterization], DistilledSet]
    side_losses: Sequence[SideLoss] = ()
    stages: Callable[[int], list[NetworkStage]] | None = None
    preparing: Progress | None = None
    processes: Processes = ONE
    whole: bool = True
    done: int = 0
    held: list[NetworkStage] = field(default_factory=list)
    """The stages of the present trajectory: all of them, or the one in training."""

    def __post_init__(self) -> None:
        self.each = self.settings.inner * self.settings.target_reuse
        self.steps = self.settings.outer * self.each
        self.optimizer = image_optimizer(self.settings.optimizer, self.steps)
        self.augmentation = Augment(self.settings.augment, self.settings.augment_one)
        self.draw = Draw(self.settings.batch_synthetic, "views")

    def begin(self) -> None:
        self.placed, self.params = self.selection.initial()
        self.moments = {name: torch.zeros_like(self.params) for name in self.optimizer.moments}
        self.done, self.held = 0, []
        self.told = self.selection.event(self.placed)

    def step(self) -> dict[str, Tensor]:
        outer, within = divmod(self.done, self.each)
        self._prepare(outer, within)
        if within == 0:
            self.whole = False
            self.placed.project_(self.params)
            before, moments = self.placed, list(self.moments.values())
            self.placed = self.selection.refresh(outer, before, self.params, moments)
            self.told = self.told if self.placed is before else self.selection.event(self.placed)
        stage = self._stage(outer, within)
        gradient, losses = self.gradient(stage)
        self.whole = False
        scale = self.optimizer.scale(self.placed, self.params, self.task.real.std)
        self.optimizer.move_(self.params, self.moments, gradient, self.done, scale)
        if self.settings.target_reuse == 1 and within < self.settings.inner - 1:
            self.networks.advance(stage.state, outer, within, stage.targets["loss"], self.synthetic)
        self.done += 1
        if self.done == self.steps:
            self.placed.project_(self.params)
        self.whole = True
        return losses

    def _prepare(self, outer: int, within: int) -> None:
        """What takes long before a step, while the state is that after a whole one: a stop may come."""
        if self.settings.target_reuse > 1 and (within == 0 or not self.held):
            self.held = self.stages(outer) if self.stages else self.all_stages(outer)
        if isinstance(self.networks, NetworksAhead):
            self.networks.prepare(outer, within, self.held[0].state if within else None)

    def _stage(self, outer: int, within: int) -> NetworkStage:
        if self.settings.target_reuse > 1:
            visit, turn = divmod(within, self.settings.inner)
            order = torch.randperm(self.settings.inner, generator=stream(self.task.seed, "visit", outer, visit))
            return self.held[order[turn]]
        state = self.networks.fresh(outer) if within == 0 else self.held[0].state
        self.held = [self.with_targets(NetworkStage(state, {}, outer, within))]
        return self.held[0]

    def all_stages(self, outer: int) -> list[NetworkStage]:
        """The stages of an outer iteration, with their real targets."""
        return stages_of(outer, self.settings.inner, self.networks, self.with_targets, self.preparing)

    def with_targets(self, stage: NetworkStage) -> NetworkStage:
        agree(stage.state, self.processes)
        net = stage.state.computing("real" in self.settings.bfloat16)
        objectives = {side.targets: side.objective for side in self.side_losses} | {"loss": self.objective}
        how = (self.sampler, self.augmentation, self.task, stage.outer, stage.inner, self.processes)
        return replace(stage, targets=real_targets(objectives, net, *how))

    def gradient(self, stage: NetworkStage) -> tuple[Tensor, dict[str, Tensor]]:
        low = "synthetic" in self.settings.bfloat16
        here = Here(self.params, stage.state.computing(low), stage, self.augmentation, self.task, low, self.processes)
        total, loss = params_gradient(self.objective, stage.targets["loss"], self.placed.matched, self.draw, here)
        beside, losses = side_gradient(self.side_losses, total, self.placed, here)
        return total + beside, {"loss": loss, **losses}

    @torch.no_grad()
    def synthetic(self) -> Batch:
        """All synthetic images as they are, with their classes' labels."""
        images = self.placed.decode(self.params)
        return Batch(images, hard_labels(self.task.classes, len(images) // self.task.classes).to(images.device))

    def sound(self) -> Tensor:
        return self.params.abs().max() < LARGEST

    def state_dict(self) -> dict[str, Tensor]:
        return state_of(self)

    def check(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        check_state(self, step, tensors)

    def load_state_dict(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        load_state(self, step, {name: tensor.to(self.task.device) for name, tensor in tensors.items()})

    def snapshot(self) -> DistilledSet:
        return self.finish(*self.selection.finished(self.placed, self.params).quantize(self.params))

    def event(self) -> tuple[str, dict[str, Any]] | None:
        return self.told
