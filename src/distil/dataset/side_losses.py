"""Losses beside the objective, whose gradients are scaled to a share of the objective's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

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
    def share(self) -> float:
        """Norm of its gradient as a share of the objective's."""
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

    def masked(self, gradient: Tensor, placed: Parameterization) -> Tensor:
        """The gradient before it is scaled, where some parameters are to stay."""
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

    def masked(self, gradient: Tensor, placed: Parameterization) -> Tensor:
        return gradient


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

    def masked(self, gradient: Tensor, placed: Parameterization) -> Tensor:
        used = cast(Crops, placed).utilization
        return gradient if not self.mask or used is None else gradient * (1 - used)[:, None]


def side_gradient(
    sides: Sequence[SideLoss], total: Tensor, placed: Parameterization, here: Here
) -> tuple[Tensor, dict[str, Tensor]]:
    """(sum of the side losses' gradients, each scaled to its share of `total`, the objective's; the losses by name)."""
    beside, losses = torch.zeros_like(total), {}
    for side in sides:
        if (images := side.images(placed)) is not None:
            targets = here.stage.targets[side.targets]
            part, losses[side.name] = params_gradient(side.objective, targets, images, side.draw, here)
            beside = beside + share_of(total, side.masked(part, placed), side.share)
    return beside, losses
