"""Networks between an expert's first weights and its last."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distil.dataset.network_sources import FreshNetworks
from distil.dataset.network_state import NetworkState
from distil.dataset.protocols import Expected, Targets, Task
from distil.rng import stream
from distil.types import Batch


@dataclass(frozen=True)
class InterpolatedNetworks:
    """In each outer iteration l theta_first + (1 - l) theta_last of an expert drawn at random, l ~ U(0, 1). The trained
    network stands beside it, for what classifies images.

    Source: NCFM (Wang et al. 2025), its released code.
    """

    task: Task
    drawn: FreshNetworks

    def fresh(self, outer: int) -> NetworkState:
        experts, generator = self.task.experts, stream(self.task.seed, "interpolated", outer)
        if experts is None:
            raise ValueError("interpolated networks need experts")
        run = int(torch.randint(experts.runs, (1,), generator=generator))
        share = float(torch.rand((), generator=generator))
        first, last = experts.weights(run, 0), experts.last(run)
        state = self._with([share * a + (1 - share) * b for a, b in zip(first, last, strict=True)])
        state.trained = self._with(last)
        return state

    @torch.no_grad()
    def _with(self, weights: list[Tensor]) -> NetworkState:
        state = self.drawn.fresh(0)
        for weight, value in zip(state.weights, weights, strict=True):
            weight.copy_(value)
        state.refresh_low()
        return state

    def advance(
        self, state: NetworkState, outer: int, inner: int, targets: Targets, synthetic: Callable[[], Batch] | None
    ) -> None:
        """Nothing."""

    def state(self) -> dict[str, Tensor]:
        """Nothing is carried: the experts and the draws give every network again."""
        return {}

    def expected(self, outer: int) -> dict[str, Expected]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""
