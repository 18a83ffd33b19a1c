"""Network trajectories of several processes: each trains another one, before the steps that use it, and hands it round.

A process trains what a single one would, at the same addresses, so the networks are equal bit for bit on the CPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from distil.dataset.network_state import NetworkState, Progress
from distil.dataset.protocols import NetworkSource, Targets
from distil.dataset.step import NetworkStage
from distil.processes import Processes
from distil.types import Batch


def agree(state: NetworkState, processes: Processes, owner: int = 0) -> None:
    """Give a network, and that which classifies in its place, the weights that they have in the process `owner`."""
    if processes.count > 1:
        processes.same_(state.tensors, owner)
        state.refresh_low()
        if state.trained is not None:
            agree(state.trained, processes, owner)


class Stages(Protocol):
    """A loop as far as it computes the stages of a trajectory by itself."""

    networks: NetworkSource
    preparing: Progress | None

    def all_stages(self, outer: int) -> list[NetworkStage]: ...


@dataclass
class SharedStages:
    """For runs with target reuse: called with an outer iteration, gives its stages with their real targets. Every
    process computes those of another iteration, and they serve as many iterations as there are processes.

    loop: of one process alone. outer, inner: of the run.
    """

    loop: Stages
    processes: Processes
    outer: int
    inner: int
    began: int = -1
    """The iteration whose stages the first process has computed last."""
    held: list[NetworkStage] = field(default_factory=list)

    def __call__(self, outer: int) -> list[NetworkStage]:
        processes, loop = self.processes, self.loop
        if self.began < 0 or not self.began <= outer < self.began + processes.count:
            self.began = outer
            if outer + processes.rank < self.outer:
                self.held = loop.all_stages(outer + processes.rank)
            else:
                for inner in range(self.inner if loop.preparing else 0):
                    loop.preparing(inner + 1, self.inner)  # pyright: ignore[reportOptionalCall]
        owner = outer - self.began
        like = processes.from_first(lambda: _like(self.held[0].targets)) if processes.rank or self.held else {}
        return [self._shared(outer, inner, owner, like) for inner in range(self.inner)]
