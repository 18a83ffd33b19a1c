"""Networks of every age: a queue of them, trained on real images between matching steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distil.dataset.config import Pool
from distil.dataset.network_sources import FreshNetworks
from distil.dataset.network_state import NetworkState, Training, train_on_real
from distil.dataset.protocols import Expected, Targets
from distil.dataset.restoring import LARGEST_WEIGHT
from distil.rng import stream
from distil.types import Batch


@dataclass
class PoolNetworks:
    """A queue of networks. Before each outer iteration but the first, `settings.trained` of them, drawn at random, are
    trained for `settings.steps` updates each; every `settings.every` iterations a fresh one joins, in the place of the
    oldest where there are `settings.most`. Then one is drawn, in which the iteration's images are matched.

    Source: IDM (Zhao et al. 2023), section 3.3, and its released code. Differs: a network's accuracy is that of its
    last training here; there it is a mean since the last evaluation.
    """

    settings: Pool
    drawn: FreshNetworks
    training: Training
    queue: list[NetworkState] = field(default_factory=list)
    at: int = -1
    """The outer iteration that the queue is ready for."""

    def fresh(self, outer: int) -> NetworkState:
        while self.at < outer:
            self._move_on()
        generator = stream(self.drawn.seed, "pool", "matched", outer)
        return self.queue[int(torch.randint(len(self.queue), (1,), generator=generator))]

    def advance(
        self, state: NetworkState, outer: int, inner: int, targets: Targets, synthetic: Callable[[], Batch] | None
    ) -> None:
        """Nothing: the queue moves between outer iterations."""

    def _move_on(self) -> None:
        chosen, seed = self.settings, self.drawn.seed
        self.at += 1
        if self.at == 0:
            self.queue = [self.drawn.fresh(number) for number in range(chosen.first)]
        else:
            order = torch.randperm(len(self.queue), generator=stream(seed, "pool", "trained", self.at))
            for place in order[: chosen.trained].tolist():
                samples = chosen.steps * self.training.batch
                address = ("pool", "training", self.at, place)
                train_on_real(self.queue[place], self.drawn.real, samples, self.training, seed, *address, measured=True)
        if self.at % chosen.every == 0:
            self.queue = [*self.queue, self.drawn.fresh(chosen.first + self.at // chosen.every)][-chosen.most :]

    def state(self) -> dict[str, Tensor]:
        """Weights and momenta of all networks, stacked, their accuracies, and the iteration they are ready for."""
        rows = zip(*(state.weights for state in self.queue), strict=True)
        momenta = zip(*(state.momenta for state in self.queue), strict=True)
        found = {f"pool.weight.{i}": torch.stack([w.detach() for w in row]) for i, row in enumerate(rows)}
        found |= {f"pool.momentum.{i}": torch.stack(row) for i, row in enumerate(momenta)}
        accuracies = torch.tensor([state.accuracy for state in self.queue], dtype=torch.float32)
        return found | {"pool.accuracy": accuracies, "pool.at": torch.tensor(self.at)}

    def expected(self, outer: int) -> dict[str, Expected]:
        count = min(self.settings.most, self.settings.first + 1 + outer // self.settings.every)
        found = {}
        for i, weight in enumerate(self.drawn.fresh(0).weights):
            shape = (count, *weight.shape)
            found[f"pool.weight.{i}"] = Expected(shape, -LARGEST_WEIGHT, LARGEST_WEIGHT)
            found[f"pool.momentum.{i}"] = Expected(shape, -LARGEST_WEIGHT, LARGEST_WEIGHT)
        found["pool.accuracy"] = Expected((count,), 0, 1)
        return found | {"pool.at": Expected((), outer, outer, torch.int64)}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.at, self.queue = int(tensors["pool.at"]), []
        for place, accuracy in enumerate(tensors["pool.accuracy"].tolist()):
            state = self.drawn.fresh(0)
            for i, weight in enumerate(state.weights):
                weight.copy_(tensors[f"pool.weight.{i}"][place])
                state.momenta[i] = tensors[f"pool.momentum.{i}"][place].clone()
            state.accuracy = accuracy
            state.refresh_low()
            self.queue.append(state)
