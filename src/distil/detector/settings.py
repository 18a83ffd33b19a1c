"""Settings of a detector's training and of what a teacher adds, as nested frozen dataclasses. Nothing imports torch."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from distil.detector.upgrade import nested
from distil.errors import DistilError
from distil.fields import Count, NonNegative, Positive, Range, Seed, Share, check, from_dict, leaves, refused
from distil.lookup import chosen

LOSSES = ("gkd", "mse", "pkd", "fgd", "mgd", "defeat", "response", "crosskd")
"""Losses that a teacher can add to a detector's own, by name."""
FREE = ("method", "workers", "teacher_floor")
"""Settings that determine nothing about the weights: a resumed run may have others."""


@dataclass(frozen=True)
class DetectorTraining:
    """How a detector is trained: the same with a teacher and without one."""

    epochs: Annotated[int, Range(1, 1_000_000)] = 24
    """Passes over the training images."""
    batch: Count = 16
    """Images in a step, over all processes together."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """What follows the gradients."""
    lr: Positive = 0.02
    """Learning rate, for the whole batch."""
    momentum: Annotated[float, Range(0, below=1)] = 0.9
    """Momentum of sgd; first moment of adamw."""
    weight_decay: NonNegative = 1e-4
    """Weight decay."""
    milestones: tuple[float, ...] = (2 / 3, 11 / 12)
    """Shares of the epochs after which the learning rate falls, rounded to whole epochs."""
    lr_decay: Share = 0.1
    """Factor by which it falls there."""
    warmup: Annotated[int, Range(0)] = 500
    """Steps over which the learning rate rises in a line from a thousandth; at most a tenth of the run."""
    clip: NonNegative = 0.0
    """Largest norm of the whole gradient; longer ones are shortened to it. 0: no limit."""
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    """Arithmetic of the networks' layers; distillation losses are always computed in 32 bits."""
    workers: Annotated[int, Range(0, 1024)] = 0
    """Processes that read and prepare images beside each training process."""

    flip: Share = 0.5
    """Probability that a training image is mirrored."""
    color: Annotated[float, Range(0, 1, what="it is the strength of changes, between 0 and 1")] = 0.0
    """Strength of the random changes of brightness, contrast and saturation; 0 for none."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the random enlargement of a training image."""

    validation: Annotated[float, Range(0, below=1, what="it is a share of the images, at least 0 and below 1")] = 0.1
    """Share of the training images held out to choose the best epoch, where the data has no split of its own."""
    evaluate_every: Count = 1
    """Epochs between two evaluations on the held-out images."""
    seed: Annotated[int, Seed()] = 0
    """Seed of every draw."""

    def __post_init__(self) -> None:
        check(self)
        _check_schedule(self)


@dataclass(frozen=True)
class GlobalSettings:
    """Which terms of global knowledge (gkd), and how strong."""

    global_weight: NonNegative = 5.0
    """gkd: weight of the global loss, on the projections of instances on prototypes."""
    foreground_weight: NonNegative = 1.0
    """gkd: weight of the local loss inside objects."""
    background_weight: NonNegative = 4.0
    """gkd: weight of the local loss outside objects."""
    soft_weight: NonNegative = 1.0
    """gkd: weight of the loss on the teacher's class probabilities."""
    temperature: Positive = 2.0
    """gkd, response: temperature of those probabilities."""
    decay: bool = True
    """gkd: let the global and local weights fall in a line to zero over the epochs."""
    reliability: Literal["measured", "one"] = "measured"
    """gkd: weigh instances by how alike both detectors place them among the prototypes, or all alike."""
    projection: Literal["cosine", "pursuit", "ridge"] = "cosine"
    """gkd: how an instance is projected on the prototypes."""
    penalty: Positive = 10.0
    """gkd: penalty of pursuit and ridge."""
    use_global: bool = True
    """gkd: have the global loss at all; without it prototypes only measure reliability."""
    global_levels: Literal["all", "own"] = "all"
    """gkd: compare an instance with the prototypes of every level, or of the level of its size alone."""
    local_scale: Literal["raw", "teacher"] = "raw"
    """gkd: units of the local losses: features as they are, or the mean square of the teacher's features."""
    adapting_kernel: Literal[1, 3] = 3
    """gkd: side of the convolutions that adapt the student's maps; 1 costs a ninth of the published 3, gains less."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PrototypeSettings:
    """How and when prototypes are chosen. The numbers are those of the released code, except where said to be ours."""

    prefix: ClassVar = "prototype_"
    count: Annotated[int, Range(1, 100_000)] = 10
    """Prototypes of each class on each pyramid level."""
    start: Annotated[int, Range(0)] = 1
    """Epochs before the first choice of prototypes: a fresh student's features are noise."""
    every: Count = 1
    """Epochs between two choices of prototypes."""
    features: Literal["fresh", "training"] = "fresh"
    """Features that prototypes are chosen by: of a pass over their images at that moment, or those that the training
    steps of the epoch before had anyway (of a pass where there was none)."""
    images: Count = 800
    """At most so many images of a class among which prototypes are looked for."""
    side: NonNegative = 30.0
    """Prototypes are objects wider and higher than this, in pixels of their image. Meant for COCO's images of some 640
    pixels: lower it for small ones."""
    alpha: NonNegative = 10.0
    """How alike the two detectors' projections on a prototype must be."""
    quantile: Share = 0.4
    """Share of the objects of least density, in either space, that cannot be prototypes."""
    bandwidth: Positive = 0.1
    """Width of the density's kernel, in units of 1 - cosine."""
    unique: bool = False
    """Choose no object twice on a level (ours)."""
    orthogonal: bool = False
    """Count only the part of candidates that is orthogonal to the prototypes chosen before (ours)."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Distillation:
    """What a teacher adds to a training."""

    loss: str = "gkd"
    """Losses that the teacher adds, joined by commas, with factors if need be: gkd (prototypes, reliability), mse, pkd,
    fgd, mgd, defeat, response, crosskd; gkd,pkd=0.05 weighs one. none: the teacher is not used."""
    loss_form: Literal["distil", "published"] = "distil"
    """Reductions, weights, levels and masks of all losses: those that serve every pair of detectors alike, or those of
    each loss's released code (docs/detector.md)."""
    gkd: GlobalSettings = field(default_factory=GlobalSettings)
    prototypes: PrototypeSettings = field(default_factory=PrototypeSettings)
    teacher_floor: NonNegative = 10.0
    """AP50 of the teacher on this data, in percent, under which the preflight stops."""

    def __post_init__(self) -> None:
        check(self)
        if self.loss != "none":
            losses_named(self.loss)


@dataclass(frozen=True)
class DetectorSettings:
    """How a detector is trained, and what a teacher adds.

    Raises: DistilError that names the field, its value and what is accepted.
    """

    method: str = "gkd"
    """Name under which the result is filed."""
    training: DetectorTraining = field(default_factory=DetectorTraining)
    distillation: Distillation = field(default_factory=lambda: Distillation(loss="none"))

    def __post_init__(self) -> None:
        check(self)

    @property
    def taught(self) -> bool:
        """Whether a teacher adds a loss that is named here."""
        return self.distillation.loss != "none"


def _check_schedule(training: DetectorTraining) -> None:
    """Refuse what single ranges do not catch."""
    rising = all(one < other for one, other in pairwise((0.0, *training.milestones, 1.0)))
    if not rising and training.milestones:
        shares = " ".join(map(str, training.milestones))
        raise refused("milestones", f"is {shares}: give rising shares of the epochs, each above 0 and below 1.")
    low, high = training.scale
    if not 0 < low <= high < float("inf"):
        raise refused("scale", f"is {low} {high}: give the lowest and the highest enlargement, both above 0.")


def losses_named(text: str) -> dict[str, float]:
    """Names and factors of the losses that a teacher adds: "gkd,pkd=0.5" gives {"gkd": 1.0, "pkd": 0.5}.

    Raises: DistilError on an unknown name, telling the nearest, on a repeated one, and on a factor that is not above 0.
    """
    factors: dict[str, float] = {}
    for part in text.split(","):
        name, has_factor, factor = (word.strip() for word in part.partition("="))
        check_loss(name)
        if name in factors:
            raise DistilError(f"the loss {name!r} is named more than once: give it a factor instead.")
        try:
            factors[name] = float(factor) if has_factor else 1.0
        except ValueError:
            factors[name] = -1.0
        if not 0 < factors[name] < float("inf"):
            raise refused("loss", f"is {text}: {factor!r} is no factor; write {name}=0.5, say.")
    return factors


def check_loss(name: str) -> None:
    """Raises: DistilError when no loss has this name, telling the nearest."""
    chosen("loss", name, LOSSES)


def detector_settings_from_dict(values: Any) -> DetectorSettings:
    """The settings that `distil.fields.to_dict` turned into plain values, also those that version 0.1 wrote.

    Raises: DistilError that names the field if this version does not know it, or no run can use its value.
    """
    return from_dict(DetectorSettings, nested(values))


def determining(settings: DetectorSettings) -> dict[str, Any]:
    """The settings that determine the weights, by name: all that are not FREE."""
    return {leaf.name: leaf.value for leaf in leaves(settings) if leaf.name not in FREE}
