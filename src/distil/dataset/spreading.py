"""Network trajectories; in several processes each trains another one, before the steps that use it, and hands it round.

A process trains what a single one would, at the same addresses, so the networks are equal bit for bit on the CPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distil.dataset.network_state import NetworkState, Progress
from distil.dataset.protocols import NetworkSource, Targets
from distil.dataset.step import NetworkStage
from distil.processes import Processes
from distil.types import Batch


def agree(state: NetworkState, processes: Processes, owner: int = 0) -> None:
    """Give a network, and the one that classifies in its place, the weights that they have in the process `owner`."""
    if processes.count > 1:
        processes.same_(state.tensors, owner)
        state.refresh_low()
        if state.trained is not None:
            agree(state.trained, processes, owner)


def stages_of(
    outer: int,
    inner: int,
    networks: NetworkSource,
    with_targets: Callable[[NetworkStage], NetworkStage],
    preparing: Progress | None,
) -> list[NetworkStage]:
    """The stages of an outer iteration, with their real targets. preparing: called after each."""
    state, stages = networks.fresh(outer), []
    for number in range(inner):
        stage = with_targets(NetworkStage(state, {}, outer, number))
        stages.append(replace(stage, state=state.frozen()))
        if preparing:
            preparing(number + 1, inner)
        if number < inner - 1:
            networks.advance(state, outer, number, stage.targets["loss"], None)
    return stages


@dataclass
class SharedStages:
    """For runs with target reuse: called with an outer iteration, gives its stages with their real targets. Every
    process computes those of another iteration, and they last for as many iterations as there are processes.

    alone: computes the stages of an iteration; calls `preparing` after each. fresh: makes a network of their kind.
    """

    processes: Processes
    outer: int
    inner: int
    preparing: Progress | None
    alone: Callable[[int], list[NetworkStage]]
    fresh: Callable[[int], NetworkState]
    began: int | None = None
    """The iteration whose stages the first process has computed last."""
    held: list[NetworkStage] = field(default_factory=list)
    like: Mapping[str, Any] = field(default_factory=dict)
    """Shapes and types of the targets, by loss and name."""

    def __call__(self, outer: int) -> list[NetworkStage]:
        if self.began is None or not self.began <= outer < self.began + self.processes.count:
            self._compute(outer)
        assert self.began is not None
        owner = outer - self.began
        shared = [self._shared(outer, inner, owner) for inner in range(self.inner)]
        if owner == self.processes.rank:
            self.held = []
        return shared

    def _compute(self, outer: int) -> None:
        own = outer + self.processes.rank
        self.began, self.held = None, []
        if own < self.outer:
            self.held = self.alone(own)
        else:
            _keep_pace(self.preparing, 0, self.inner)
        self.began = outer
        if not self.like:
            self.like = self.processes.from_first(lambda: _like(self.held[0].targets))

    def _shared(self, outer: int, inner: int, owner: int) -> NetworkStage:
        if owner == self.processes.rank:
            stage = self.held[inner]
        else:
            device = self.processes.device
            empty = {
                loss: {name: torch.empty(shape, dtype=dtype, device=device) for name, (shape, dtype) in rows.items()}
                for loss, rows in self.like.items()
            }
            stage = NetworkStage(self.fresh(outer).frozen(), empty, outer, inner)
        agree(stage.state, self.processes, owner)
        self.processes.same_([rows for named in stage.targets.values() for rows in named.values()], owner)
        return stage


@dataclass
class NetworksAhead:
    """A source of networks that every process trains along another trajectory, a whole one, before they are needed;
    `advance` then takes the next stage from the process that has it.

    source: its training looks neither at synthetic images nor at targets. Stages wait with their momenta, for a
    checkpoint holds them. preparing: called after each stage.
    """

    processes: Processes
    outer: int
    inner: int
    preparing: Progress | None
    source: NetworkSource
    began: int | None = None
    held: dict[int, list[Tensor]] = field(default_factory=dict)
    """The stages of this process's trajectory, by how often they were trained."""

    def fresh(self, outer: int) -> NetworkState:
        return self.source.fresh(outer)

    def prepare(self, outer: int, within: int, state: NetworkState | None) -> None:
        """Have the stages of an outer iteration from number `within` on, of which `state` is the first (None: fresh),
        and those of the iterations that follow, one a process."""
        if self.began is not None and self.began <= outer < self.began + self.processes.count:
            return
        self.began, self.held = None, {}
        own = outer + self.processes.rank
        if own < self.outer:
            first = own == outer
            trained = _copy(state) if first and state is not None else self.source.fresh(own)
            start = within if first else 0
            _keep_pace(self.preparing, 0, start, self.inner)
            for inner in range(start, self.inner):
                if inner > start:
                    self.source.advance(trained, own, inner - 1, {}, None)
                    self.held[inner] = [tensor.detach().clone() for tensor in trained.tensors]
                _keep_pace(self.preparing, inner, inner + 1, self.inner)
        else:
            _keep_pace(self.preparing, 0, self.inner)
        self.began = outer

    @torch.no_grad()
    def advance(
        self, state: NetworkState, outer: int, inner: int, targets: Targets, synthetic: Callable[[], Batch] | None
    ) -> None:
        assert self.began is not None
        owner = outer - self.began
        if owner == self.processes.rank:
            for tensor, trained in zip(state.tensors, self.held.pop(inner + 1), strict=True):
                tensor.copy_(trained)
        agree(state, self.processes, owner)


def _keep_pace(preparing: Progress | None, start: int, end: int, of: int | None = None) -> None:
    """Tell stages of which there is nothing to do here: others wait after each, to be stopped together."""
    for done in range(start, end):
        if preparing:
            preparing(done + 1, end if of is None else of)


def _copy(state: NetworkState) -> NetworkState:
    copied = state.frozen()
    return NetworkState(copied.net, [momentum.clone() for momentum in state.momenta], copied.low)


def _like(targets: Mapping[str, Targets]) -> dict[str, Any]:
    return {
        loss: {name: (tuple(rows.shape), rows.dtype) for name, rows in named.items()} for loss, named in targets.items()
    }
