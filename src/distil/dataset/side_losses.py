"""Losses beside the objective: their gradients are added to its own, scaled."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import torch
from torch import Tensor

from distil.dataset.network_state import NetworkState
from distil.dataset.objectives.classification import ClassificationObjective
from distil.dataset.objectives.contrastive import ContrastiveObjective
from distil.dataset.protocols import Objective
from distil.dataset.step import Draw, Here, params_gradient, share_of
from distil.parameterizations.base import Parameterization
from distil.parameterizations.crops import Crops

CONTRASTED = 1024
"""At most so many synthetic images take part in one evaluation of the contrastive loss."""


class SideLoss(Protocol):
    """One more objective, on images of its own."""

    @property
    def name(self) -> str:
        """Name of its loss in the events of a run."""
        ...

    @property
    def targets(self) -> str:
        """Name of the loss whose targets it takes: its own, or "loss", the objective's."""
        ...

    @property
    def objective(self) -> Objective: ...

    @property
    def draw(self) -> Draw: ...

    def images(self, placed: Parameterization) -> Parameterization | None:
        """The images that it looks at; None while there are none."""
        ...

    def network(self, state: NetworkState) -> NetworkState:
        """The network in which it looks at them, of a stage with that of the objective."""
        ...

    def scaled(self, gradient: Tensor, total: Tensor, placed: Parameterization, state: NetworkState) -> Tensor:
        """Its gradient as it is added to `total`, that of the objective."""
        ...


@dataclass(frozen=True)
class ContrastiveLoss:
    """UDD's contrastive loss across classes, on the images that no policy has added. With very many images a random
    part of each class's stands for it (CONTRASTED in all)."""

    objective: ContrastiveObjective
    share: float
    classes: int
    name: str = "contrast"
    targets: str = "contrast"

    @property
    def draw(self) -> Draw:
        return Draw(max(1, CONTRASTED // self.classes), "contrast", everyone=True)

    def images(self, placed: Parameterization) -> Parameterization:
        return placed.unmined

    def network(self, state: NetworkState) -> NetworkState:
        return state

    def scaled(self, gradient: Tensor, total: Tensor, placed: Parameterization, state: NetworkState) -> Tensor:
        return share_of(total, gradient, self.share)


@dataclass(frozen=True)
class ClassTerm:
    """The cross-entropy of the matched images, in the trained network where the stage has one beside that of the
    features. by_accuracy: its weight is multiplied by the network's training accuracy in percent."""

    weight: float
    by_accuracy: bool
    draw: Draw
    objective: Objective = field(default_factory=ClassificationObjective)
    name: str = "classification"
    targets: str = "loss"

    def images(self, placed: Parameterization) -> Parameterization:
        return placed.matched

    def network(self, state: NetworkState) -> NetworkState:
        return state.trained or state

    def scaled(self, gradient: Tensor, total: Tensor, placed: Parameterization, state: NetworkState) -> Tensor:
        return self.weight * (100 * state.accuracy if self.by_accuracy else 1.0) * gradient


@dataclass(frozen=True)
class MinedWindowsLoss:
    """The objective on mined windows alone. mask: its gradient is multiplied by 1 - utilization, so that it moves
    underutilized pixels. UDD's windows as this library reconstructs them."""

    objective: Objective
    share: float
    mask: bool
    draw: Draw
    name: str = "mined"
    targets: str = "loss"

    def images(self, placed: Parameterization) -> Parameterization | None:
        windows = cast(Crops, placed)
        return windows.mined_alone if windows.mined else None

    def network(self, state: NetworkState) -> NetworkState:
        return state

    def scaled(self, gradient: Tensor, total: Tensor, placed: Parameterization, state: NetworkState) -> Tensor:
        used = cast(Crops, placed).utilization
        masked = gradient if not self.mask or used is None else gradient * (1 - used)[:, None]
        return share_of(total, masked, self.share)


def side_gradient(
    sides: Sequence[SideLoss], total: Tensor, placed: Parameterization, here: Here
) -> tuple[Tensor, dict[str, Tensor]]:
    """(sum of the side losses' gradients, each scaled beside `total`, the objective's; the losses by name)."""
    beside, losses = torch.zeros_like(total), {}
    for side in sides:
        if (images := side.images(placed)) is not None:
            targets, state = here.stage.targets[side.targets], here.stage.state
            seen = replace(here, net=side.network(state).computing(here.low))
            part, losses[side.name] = params_gradient(side.objective, targets, images, side.draw, seen)
            beside = beside + side.scaled(part, total, placed, state)
    return beside, losses
