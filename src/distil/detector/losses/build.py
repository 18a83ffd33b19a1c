"""Kinds of knowledge by name, built for two detectors and added up."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distil.detector.adapters import common_levels
from distil.detector.gkd.loss import GlobalKnowledge, GlobalSettings, Reliabilities
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.losses import published
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.crosskd import CrossKD
from distil.detector.losses.defeat import DeFeat
from distil.detector.losses.fgd import FGD
from distil.detector.losses.maps import Pyramids
from distil.detector.losses.mgd import MGD
from distil.detector.losses.mse import FeatureMSE
from distil.detector.losses.pkd import PKD
from distil.detector.losses.response import ResponseKL
from distil.errors import DistilError
from distil.rng import seed_at
from distil.settings import check_loss
from distil.types import Trace, View


class Knowledge(nn.Module):
    """Several kinds of knowledge added up: forward returns the union of their named losses."""

    def __init__(self, parts: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None) -> None:
        """parts: by name. weights: factors on all losses of a part, 1 where a name is missing."""
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.weights = dict(weights or {})

    @property
    def global_knowledge(self) -> GlobalKnowledge | None:
        """The part that measures by prototypes."""
        return next((part for part in self.parts.values() if isinstance(part, GlobalKnowledge)), None)

    @property
    def wants_prototypes(self) -> bool:
        """Whether any part makes use of prototypes: whether to generate them at all."""
        part = self.global_knowledge
        if part is None:
            return False
        return part.settings.reliability == "measured" or (part.settings.use_global and part.settings.global_weight > 0)

    @property
    def last(self) -> Reliabilities | None:
        """Reliabilities of the latest batch."""
        part = self.global_knowledge
        return None if part is None else part.last

    @property
    def hooked(self) -> list[DistillationLoss]:
        """The parts that may ask something of the training."""
        return [part for part in self.parts.values() if isinstance(part, DistillationLoss)]

    def use(self, prototypes: PrototypeSet) -> None:
        """Give prototypes to the part that measures by them."""
        part = self.global_knowledge
        if part is not None:
            part.use(prototypes)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        losses = {}
        for name, part in self.parts.items():
            weight = self.weights.get(name, 1.0)
            losses.update({key: weight * loss for key, loss in part(student, teacher, view, progress).items()})
        return losses


Build = Callable[[Any, Any, GlobalSettings], nn.Module]
"""From the student's adapter, the teacher's adapter and the settings of gkd."""


def _pyramids(student: Any, teacher: Any) -> Pyramids:
    levels = common_levels(student.strides, teacher.strides)
    return Pyramids(student.channels, teacher.channels, levels, tuple(student.strides[ours] for ours, _ in levels))


def _mse(student: Any, teacher: Any, settings: GlobalSettings) -> nn.Module:
    return FeatureMSE(_pyramids(student, teacher))


def _pkd(student: Any, teacher: Any, settings: GlobalSettings) -> nn.Module:
    pyramids = _pyramids(student, teacher)
    if settings.form == "distil":
        return PKD(pyramids)
    pyramids = published.first_levels(pyramids, published.FOUR)
    one_stage = "two-stage" not in (published.kind_of(student), published.kind_of(teacher))
    each = published.PKD_ONE_STAGE if one_stage else published.PKD
    return PKD(pyramids, weight=each * len(pyramids.levels))


def _fgd(student: Any, teacher: Any, settings: GlobalSettings) -> nn.Module:
    if settings.form == "distil":
        return FGD(_pyramids(student, teacher))
    return FGD(_published_pyramids(student, teacher), **published.FGD[published.kind_of(student)], form="published")


def _mgd(student: Any, teacher: Any, settings: GlobalSettings) -> nn.Module:
    if settings.form == "distil":
        return MGD(_pyramids(student, teacher))
    return MGD(_published_pyramids(student, teacher), **published.MGD[published.kind_of(student)], form="published")


def _published_pyramids(student: Any, teacher: Any) -> Pyramids:
    """The levels of FGD's and MGD's released settings: of a two-stage student the finest four."""
    pyramids = _pyramids(student, teacher)
    two_stage = published.kind_of(student) == "two-stage"
    return published.first_levels(pyramids, published.FOUR) if two_stage else pyramids


def _defeat(student: Any, teacher: Any, settings: GlobalSettings) -> nn.Module:
    weights = published.DEFEAT if settings.form == "published" else {}
    return DeFeat(_pyramids(student, teacher), **weights, form=settings.form)


def _gkd(student: Any, teacher: Any, settings: GlobalSettings) -> nn.Module:
    if settings.soft_label > 0:
        _see_activations("gkd", student, teacher)
    return GlobalKnowledge(_pyramids(student, teacher), settings)


def _response(student: Any, teacher: Any, settings: GlobalSettings) -> nn.Module:
    _see_activations("response", student, teacher)
    return ResponseKL(temperature=settings.temperature)


def _crosskd(student: Any, teacher: Any, settings: GlobalSettings) -> nn.Module:
    levels = common_levels(student.strides, teacher.strides)
    if settings.form == "distil":
        return CrossKD(student, teacher, levels)
    return CrossKD(student, teacher, levels, **published.CROSSKD.get(published.kind_of(teacher), {}), form="published")


def _see_activations(name: str, student: Any, teacher: Any) -> None:
    if student.activation != teacher.activation:
        instead = "switch that off (--soft-weight 0)" if name == "gkd" else "leave it out"
        raise DistilError(
            f"{name} compares class responses, but the student's end in a {student.activation} and the teacher's in a "
            f"{teacher.activation}: {instead}, or use a teacher of the student's kind"
        )


KNOWLEDGE: dict[str, Build] = {
    "gkd": _gkd,
    "mse": _mse,
    "pkd": _pkd,
    "fgd": _fgd,
    "mgd": _mgd,
    "defeat": _defeat,
    "response": _response,
    "crosskd": _crosskd,
}
"""Kinds of knowledge by name: those of distil.settings.LOSSES."""


def build_knowledge(
    names: Sequence[str],
    student: Any,
    teacher: Any,
    settings: GlobalSettings | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    more: Sequence[DistillationLoss] = (),
) -> Knowledge:
    """The named kinds of knowledge between two detectors, given by their adapters.

    settings: of gkd; its temperature is that of `response` too, and its form that of all losses: "published" gives them
    the weights and levels of distil.detector.losses.maps. weights: factors by name. seed: of the initial weights of the
    adapting parts, each drawn at its own name's address. more: losses given as objects, which are added.

    Raises: DistilError on an unknown or repeated name, on detectors without common strides, and on kinds that these two
    detectors cannot share.
    """
    if not names and not more:
        raise DistilError(f"no knowledge is named: choose from {', '.join(KNOWLEDGE)}")
    for name in [*names, *(weights or {})]:
        check_loss(name)
    repeated = [name for name in KNOWLEDGE if list(names).count(name) > 1]
    if repeated:
        raise DistilError(f"the loss {repeated[0]!r} is named more than once: give it a factor instead")
    idle = [name for name in weights or {} if name not in names]
    if idle:
        raise DistilError(f"a weight is given for {idle[0]!r}, which is not among the knowledge: {', '.join(names)}")
    parts = {}
    for name in names:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_at(seed, "knowledge", name))
            parts[name] = KNOWLEDGE[name](student, teacher, settings or GlobalSettings())
    for loss in more:
        if loss.name in parts or loss.name in KNOWLEDGE:
            raise DistilError(f"two losses are named {loss.name!r}: give one of them another `name`.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_at(seed, "knowledge", loss.name))
            loss.prepare(student, teacher)
        parts[loss.name] = loss
    return Knowledge(parts, {**(weights or {}), **{loss.name: loss.weight for loss in more}})
