"""Settings of detector training, as a frozen dataclass that the command line shows as flags. Nothing imports torch."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from distil.checks import check_seed, check_text, is_finite, is_integer, shown
from distil.errors import DistilError

LOSSES = ("gkd", "mse", "pkd", "fgd", "mgd", "defeat", "response", "crosskd")
"""Losses that a teacher can add to a detector's own."""


@dataclass(frozen=True)
class DetectorSettings:
    """Train a detector, with the knowledge of a teacher or without one; everything else stays the same between both."""

    method: str = "gkd"
    """Name under which the result is filed."""
    knowledge: str = "none"
    """Losses that a teacher adds, joined by commas, with factors if need be (gkd,pkd=0.05), or none."""

    epochs: int = 24
    """Passes over the training images."""
    batch: int = 16
    """Images in a step, over all processes together."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """What follows the gradients."""
    lr: float = 0.02
    """Learning rate, for the whole batch."""
    momentum: float = 0.9
    """Momentum of sgd; first moment of adamw."""
    weight_decay: float = 1e-4
    """Weight decay."""
    milestones: tuple[float, ...] = (2 / 3, 11 / 12)
    """Shares of the epochs after which the learning rate falls, rounded to whole epochs."""
    lr_decay: float = 0.1
    """Factor by which it falls there."""
    warmup: int = 500
    """Steps over which the learning rate rises in a line from a thousandth; at most a tenth of the run."""
    clip: float = 0.0
    """Largest norm of the whole gradient; longer ones are shortened to it. 0: no limit."""
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    """Arithmetic of the networks' layers; knowledge losses are always computed in 32 bits."""
    workers: int = 0
    """Processes that read and prepare images beside each training process."""

    flip: float = 0.5
    """Probability that a training image is mirrored."""
    colour: float = 0.0
    """Strength of the random changes of brightness, contrast and saturation; 0 for none."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the random enlargement of a training image."""

    validation: float = 0.1
    """Share of the training images held out to choose the best epoch, where the data has no split of its own."""
    evaluate_every: int = 1
    """Epochs between two evaluations on the held-out images."""
    seed: int = 0
    """Seed of every draw."""

    global_weight: float = 5.0
    """gkd: weight of the global loss, on the projections of instances on prototypes."""
    foreground_weight: float = 1.0
    """gkd: weight of the local loss inside objects."""
    background_weight: float = 4.0
    """gkd: weight of the local loss outside objects."""
    soft_weight: float = 1.0
    """gkd: weight of the loss on the teacher's class probabilities."""
    temperature: float = 2.0
    """gkd: temperature of those probabilities."""
    decay: bool = True
    """gkd: let the global and local weights fall in a line to zero over the epochs."""
    reliability: Literal["measured", "one"] = "measured"
    """gkd: weigh instances by how alike both detectors place them among the prototypes, or all alike."""
    projection: Literal["cosine", "pursuit", "ridge"] = "cosine"
    """gkd: how an instance is projected on the prototypes."""
    penalty: float = 10.0
    """gkd: penalty of pursuit and ridge."""
    use_global: bool = True
    """gkd: have the global loss at all; without it prototypes only measure reliability."""
    global_levels: Literal["all", "own"] = "all"
    """gkd: compare an instance with the prototypes of every level, or of the level of its size alone."""
    local_scale: Literal["raw", "teacher"] = "raw"
    """gkd: units of the local losses: features as they are, or the mean square of the teacher's features."""
    loss_form: Literal["distil", "published"] = "distil"
    """Reductions, weights, levels and masks of all losses: those that serve every pair of detectors alike, or those of
    each loss's released code (docs/detector.md)."""
    adapting_kernel: Literal[1, 3] = 3
    """gkd: side of the convolutions that adapt the student's maps; 1 costs a ninth of the published 3, gains less."""

    prototypes: int = 10
    """Prototypes of each class on each pyramid level."""
    prototype_start: int = 1
    """Epochs before the first choice of prototypes: a fresh student's features are noise."""
    prototype_every: int = 1
    """Epochs between two choices of prototypes."""
    prototype_features: Literal["fresh", "training"] = "fresh"
    """Features that prototypes are chosen by: of a pass over their images at that moment, or those that the training
    steps of the epoch before had anyway (of a pass where there was none)."""
    prototype_images: int = 800
    """At most so many images of a class among which prototypes are looked for."""
    prototype_side: float = 30.0
    """Prototypes are objects wider and higher than this, in pixels of their image."""
    prototype_alpha: float = 10.0
    """How alike the two detectors' projections on a prototype must be."""
    prototype_quantile: float = 0.4
    """Share of the objects of least density that cannot be prototypes."""
    prototype_bandwidth: float = 0.1
    """Width of the density's kernel, in units of 1 - cosine."""
    prototype_unique: bool = False
    """Choose no object twice."""
    prototype_orthogonal: bool = False
    """Make candidates orthogonal to the prototypes chosen before."""

    teacher_floor: float = 10.0
    """AP50 of the teacher on this data, in percent, under which the preflight stops."""


LARGEST = 10**9
"""Of any whole number in the settings but the seed, unless LIMITS says less."""
LIMITS = {"epochs": 1_000_000, "prototypes": 100_000, "workers": 1024}
"""More than these no machine can serve."""


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--loss" if name == "knowledge" else "--" + name.replace("_", "-")


def check_settings(settings: DetectorSettings) -> None:
    """Refuse values that no run can use.

    Raises: DistilError that names the flag, its value and what is accepted.
    """
    positive = {"epochs", "batch", "lr", "evaluate_every", "temperature", "prototypes", "prototype_every"}
    positive |= {"prototype_images", "prototype_bandwidth"}
    shares = {"flip", "lr_decay", "prototype_quantile"}
    for field in fields(settings):
        value = getattr(settings, field.name)
        flag = flag_of(field.name)
        _check_type(field.type, value, flag)
        if field.name == "seed":
            check_seed(value, flag)
        elif is_integer(value) and value > (most := LIMITS.get(field.name, LARGEST)):
            raise DistilError(f"{flag} is {shown(value)}: give at most {most}.")
        elif is_finite(value):
            if field.name in positive and value <= 0:
                raise DistilError(f"{flag} is {value}: it must be above 0.")
            if value < 0:
                raise DistilError(f"{flag} is {value}: it cannot be negative.")
            if field.name in shares and value > 1:
                raise DistilError(f"{flag} is {value}: it is a share, between 0 and 1.")
            if field.name == "validation" and value >= 1:
                raise DistilError(f"{flag} is {value}: it is the share of images held out, at least 0 and below 1.")
    _check_detector_settings(settings)


def _check_type(kind: Any, value: Any, flag: str) -> None:
    """Refuse a value of another type than its field has, and numbers that are not finite."""
    if get_origin(kind) is Literal:
        known = get_args(kind)
        if type(value) not in {type(word) for word in known} or value not in known:
            raise DistilError(f"{flag} is {shown(value)}: choose from {', '.join(str(word) for word in known)}.")
    elif get_origin(kind) is tuple:
        count = None if Ellipsis in get_args(kind) else len(get_args(kind))
        numbers = isinstance(value, tuple) and all(is_finite(number) for number in value)
        if not numbers or count not in (None, len(value)):
            raise DistilError(f"{flag} is {shown(value)}: give {'' if count is None else f'{count} '}finite numbers.")
    elif kind is int and not is_integer(value):
        raise DistilError(f"{flag} is {shown(value)}: give a whole number.")
    elif kind is float and not is_finite(value):
        raise DistilError(f"{flag} is {shown(value)}: give a finite number.")
    elif kind is bool and not isinstance(value, bool):
        raise DistilError(f"{flag} is {shown(value)}: it must be true or false.")
    elif kind is str:
        check_text(value, flag)


def _restored(values: Any) -> DetectorSettings:
    if not isinstance(values, dict):
        raise DistilError(
            f"the settings in the saved run are {shown(values)}: expected a value for each name. Copy the run again, "
            "or start another."
        )
    known = {field.name for field in fields(DetectorSettings)}
    if unknown := sorted(map(str, set(values) - known)):
        raise DistilError(
            f"unknown setting {shown(unknown[0])} in the saved run: it was made by another version of distil."
        )
    restored: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
    try:
        for field in fields(DetectorSettings):
            if field.name in restored:
                _check_type(field.type, restored[field.name], flag_of(field.name))
        settings = DetectorSettings(**restored)
        check_settings(settings)
    except DistilError as error:
        raise DistilError(f"the settings in the saved run cannot be used: {error}") from error
    return settings


def losses_named(knowledge: str) -> tuple[list[str], dict[str, float]]:
    """Names and factors of the losses that a teacher adds: "gkd,pkd=0.5" gives ["gkd", "pkd"] and {"pkd": 0.5}.

    Raises: DistilError on an unknown name, telling the nearest, on a repeated one, and on a factor that is not above 0.
    """
    names, factors = [], {}
    for part in knowledge.split(","):
        name, has_factor, factor = (text.strip() for text in part.partition("="))
        check_loss(name)
        if name in names:
            raise DistilError(f"the loss {name!r} is named more than once: give it a factor instead")
        names.append(name)
        if has_factor:
            try:
                factors[name] = float(factor)
            except ValueError:
                factors[name] = -1.0
            if not 0 < factors[name] < float("inf"):
                raise DistilError(f"--loss {knowledge}: {factor!r} is no factor; write {name}=0.5, say.")
    return names, factors


def check_loss(name: str) -> None:
    """Raises: DistilError when no loss has this name, telling the nearest."""
    if name not in LOSSES:
        near = get_close_matches(name.lower(), LOSSES, n=3)
        near.sort(key=lambda known: sorted(known) != sorted(name.lower()))  # swapped letters first: gdk is gkd
        suggestion = f" Did you mean {near[0]}?" if near else ""
        raise DistilError(f"unknown loss {name!r}.{suggestion} Known: {', '.join(LOSSES)}")


def _check_detector_settings(settings: DetectorSettings) -> None:
    """Refuse what single bounds do not catch."""
    if settings.knowledge != "none":
        losses_named(settings.knowledge)
    if settings.momentum >= 1:
        raise DistilError(f"--momentum is {settings.momentum}: it must be below 1.")
    rising = all(one < other for one, other in pairwise((0.0, *settings.milestones, 1.0)))
    if not rising and settings.milestones:
        raise DistilError(
            f"--milestones is {' '.join(map(str, settings.milestones))}: give rising shares of the epochs, each above "
            "0 and below 1."
        )
    low, high = settings.scale
    if not 0 < low <= high < float("inf"):
        raise DistilError(f"--scale is {low} {high}: give the lowest and the highest enlargement, both above 0.")


def detector_settings_from_dict(values: Any) -> DetectorSettings:
    """The detector settings that were saved as JSON by a run.

    Raises: DistilError that names the field if this version does not know it, or no run can use its value.
    """
    return _restored(values)
