"""The built-in losses by the names that the command line has for them, and losses made ready for two detectors."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from distil.checks import shown
from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.gkd.loss import GlobalKnowledge
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.crosskd import CrossKD
from distil.detector.losses.defeat import DeFeat
from distil.detector.losses.fgd import FGD
from distil.detector.losses.mgd import MGD
from distil.detector.losses.mse import FeatureMSE
from distil.detector.losses.pkd import PKD
from distil.detector.losses.response import ResponseKL
from distil.detector.settings import Distillation, losses_named
from distil.errors import DistilError
from distil.rng import seed_at

BUILT_IN: dict[str, Callable[[float, Distillation], DistillationLoss]] = {
    "gkd": lambda weight, how: GlobalKnowledge(weight, settings=how.gkd, prototypes=how.prototypes, form=how.loss_form),
    "mse": lambda weight, how: FeatureMSE(weight),
    "pkd": lambda weight, how: PKD(weight, form=how.loss_form),
    "fgd": lambda weight, how: FGD(weight, form=how.loss_form),
    "mgd": lambda weight, how: MGD(weight, form=how.loss_form),
    "defeat": lambda weight, how: DeFeat(weight, form=how.loss_form),
    "response": lambda weight, how: ResponseKL(weight, temperature=how.gkd.temperature),
    "crosskd": lambda weight, how: CrossKD(weight, form=how.loss_form),
}
"""The losses of distil.detector.settings.LOSSES, with the settings of the command line."""


def loss_objects(losses: Sequence[str | DistillationLoss], how: Distillation) -> list[DistillationLoss]:
    """Losses as objects: names, with factors if need be ("pkd=0.05", "gkd,mse"), are built with these settings.

    Raises: DistilError on an unknown name, on what is no loss, on a name that no checkpoint can
    hold, and where two losses have one name.
    """
    made: list[DistillationLoss] = []
    for loss in losses:
        if isinstance(loss, str):
            made += [BUILT_IN[name](weight, how) for name, weight in losses_named(loss).items()]
        elif isinstance(loss, DistillationLoss):
            made.append(loss)
        else:
            raise DistilError(f"{shown(loss)} is no loss: give an object, as PKD(0.05), or a name.", field="losses")
    names = [loss.name for loss in made]
    for name in names:
        if not name or "." in name:
            raise DistilError(f"a loss is named {shown(name)}: give it a `name` without a point, as first_map.")
        if names.count(name) > 1:
            raise DistilError(f"two losses are named {name!r}: leave one out, or give it another `name`.")
    return made


def prepared(
    losses: Sequence[DistillationLoss], student: DetectorAdapter, teacher: DetectorAdapter, *, seed: int = 0
) -> nn.ModuleDict:
    """The losses by name, ready for two detectors; the initial weights of each are drawn at its own name's address.

    Raises: DistilError on detectors without common strides, and on losses that these two cannot share.
    """
    for loss in losses:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_at(seed, "knowledge", loss.name))
            loss.prepare(student, teacher)
    return nn.ModuleDict({loss.name: loss for loss in losses})
