"""Where the networks come from in which images are matched: fresh, then trained on real images, on the synthetic ones,
or along the matched gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from distil.data.images.image_set import ImageSet
from distil.dataset.network_state import (
    NetworkState,
    Training,
    fresh_network,
    train_by_gradient,
    train_on_real,
    train_on_synthetic,
)
from distil.dataset.protocols import Targets
from distil.types import Batch


@dataclass(frozen=True)
class FreshNetworks:
    """Networks that stay as they were drawn (DM)."""

    network: str
    width: int
    real: ImageSet
    seed: int
    bfloat16: bool = False
    """Whether some stage computes in bfloat16, so that a copy of that precision is kept."""

    def fresh(self, outer: int) -> NetworkState:
        address = ("network", outer)
        device = self.real.images.device
        return fresh_network(
            self.network,
            self.width,
            self.real,
            device=device,
            seed=self.seed,
            address=address,
            bfloat16=self.bfloat16,
        )

    def advance(
        self, state: NetworkState, outer: int, inner: int, targets: Targets, synthetic: Callable[[], Batch] | None
    ) -> None:
        """Nothing."""


@dataclass(frozen=True)
class RealNetworks:
    """Networks trained on `samples` real images after each matching step (IDC, section 4.2)."""

    drawn: FreshNetworks
    training: Training
    samples: int

    ahead: ClassVar[bool] = True
    """Whether training looks neither at the synthetic images nor at the targets, so that several processes can train
    several networks before they are needed."""

    def fresh(self, outer: int) -> NetworkState:
        return self.drawn.fresh(outer)

    def advance(
        self, state: NetworkState, outer: int, inner: int, targets: Targets, synthetic: Callable[[], Batch] | None
    ) -> None:
        drawn = self.drawn
        train_on_real(state, drawn.real, self.samples, self.training, drawn.seed, "network", outer, inner)


@dataclass(frozen=True)
class SyntheticNetworks:
    """Networks trained for `epochs` passes over the synthetic images after each matching step (DC)."""

    drawn: FreshNetworks
    training: Training
    epochs: int

    def fresh(self, outer: int) -> NetworkState:
        return self.drawn.fresh(outer)

    def advance(
        self, state: NetworkState, outer: int, inner: int, targets: Targets, synthetic: Callable[[], Batch] | None
    ) -> None:
        if synthetic is None:
            raise ValueError("networks that are trained on synthetic images cannot be trained before these are known")
        drawn = self.drawn
        address = ("network", outer, inner)
        train_on_synthetic(state, synthetic(), self.epochs, self.training, drawn.real, drawn.seed, *address)


@dataclass(frozen=True)
class TargetNetworks:
    """Networks that take one step along the mean over classes of the gradients that are matched anyway.

    The objective must be `GradientObjective(..., every=True)`, whose targets hold the gradient of every weight.
    """

    drawn: FreshNetworks
    training: Training

    def fresh(self, outer: int) -> NetworkState:
        return self.drawn.fresh(outer)

    def advance(
        self, state: NetworkState, outer: int, inner: int, targets: Targets, synthetic: Callable[[], Batch] | None
    ) -> None:
        gradient = [targets[name].float().mean(0) for name, _ in state.net.named_parameters()]
        train_by_gradient(state, gradient, self.training)
