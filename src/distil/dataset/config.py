"""Settings of dataset distillation as nested frozen dataclasses: each holds what its part uses. Nothing imports torch.

A dataclass with a `kind` is one of several that can stand in its place; a `prefix` goes before the names of its fields
where they are flags.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from distil.errors import DistilError
from distil.fields import Count, NonNegative, Positive, Range, Seed, Share, check

STAGES = ("real", "network", "synthetic")
"""Stages of a matching step that can be computed in bfloat16: gradients of real images, training of the network, second
derivatives through the decoded images."""

# ------------------------------------------------------------------------------------------------- policies of UDD


@dataclass(frozen=True)
class Fixed:
    """A choice that looks at nothing: the first windows, the lowest frequencies."""

    kind: ClassVar = "fixed"


@dataclass(frozen=True)
class Random:
    """A random choice."""

    kind: ClassVar = "random"


@dataclass(frozen=True)
class Variance:
    """What varies most among real images, whatever a network makes of it (the criterion of FreD), is kept."""

    kind: ClassVar = "variance"


@dataclass(frozen=True)
class Response:
    """What a proxy network responds to least is underutilized (UDD's response-based policy)."""

    kind: ClassVar = "response"
    proxy_steps: Annotated[int, Range(0)] = 1000
    """Updates, on real images, of the proxy network that measures utilization."""


@dataclass(frozen=True)
class Jitter:
    """What can be jittered without changing a proxy network's predictions is underutilized (UDD's data-jittering-based
    policy)."""

    kind: ClassVar = "jitter"
    proxy_steps: Annotated[int, Range(0)] = 1000
    """Updates, on real images, of the proxy network that measures utilization."""


@dataclass(frozen=True)
class WindowJitter(Jitter):
    """The same for windows."""

    jitter: Positive = 0.1
    """Standard deviation of the jitter, in pixels of [0, 1]."""
    jitter_draws: Count = 4
    """Draws of the jitter for each window."""


# ---------------------------------------------------------------------------------------------- parameterizations


@dataclass(frozen=True)
class Grid:
    """Stored parameters are pixels; each item is cut into the cells of a grid, each enlarged to an image."""

    kind: ClassVar = "grid"
    factor: Annotated[int, Range(1, 31)] = 1
    """Cut every item into factor x factor cells, each enlarged to an image (IDC's multi-formation)."""
    init: Literal["noise", "real", "mix"] = "real"
    """Start from noise, from real images, or from real images shrunk into the cells."""
    init_from: Literal["random", "kmeans", "recognized"] = "random"
    """Real images to start from: random ones, those nearest to k-means centers of their class (DREAM), or random ones
    among those that experts recognize (DATM)."""
    storage: Literal["uint8", "float32"] = "uint8"
    """How finished pixels are stored: one byte a value, like the real images they replace, or four."""


@dataclass(frozen=True)
class Joint:
    """Mined windows are matched together with the cells, as images like any other."""

    kind: ClassVar = "joint"


@dataclass(frozen=True)
class Apart:
    """Mined windows have a matching loss of their own, whose gradient is scaled to that of the cells."""

    kind: ClassVar = "apart"
    windows_share: NonNegative = 0.2
    """Norm of the windows' gradient as a share of the cells'; 0 lets windows be images without moving pixels."""
    windows_mask: bool = True
    """Move underutilized pixels only: multiply the windows' gradient by 1 - utilization."""


@dataclass(frozen=True)
class Windows(Grid):
    """A grid whose underutilized regions, found during training, become further images."""

    kind: ClassVar = "windows"
    policy: Fixed | Random | Response | WindowJitter | Any = field(default_factory=Response)
    windows: Annotated[int, Range(1, 1000)] = 1
    """Windows mined on each item."""
    windows_factor: Annotated[int, Range(0, 1024)] = 0
    """Mined windows have the size of cells of a grid of this factor; 0: of the item's own grid."""
    windows_init: Literal["kept", "real"] = "kept"
    """What mined windows begin with: the pixels as they are, or a real image of the class each, shrunk."""
    windows_loss: Joint | Apart = field(default_factory=Apart)
    windows_start: Share = 0.2
    """Share of the run after which windows are mined."""
    windows_freeze: Share = 0.1
    """Last share of the run in which the windows stay as they are."""
    refresh: Count = 10
    """Outer iterations between two choices of the windows."""


@dataclass(frozen=True)
class Dct:
    """Stored parameters are DCT coefficients, of few frequencies each image: those that a policy keeps."""

    kind: ClassVar = "dct"
    images: Annotated[int, Range(1, 512)] = 24
    """At least so many images in each item; each has their share of its numbers as coefficients."""
    bits: Literal[4, 8, 32] = 4
    """Bits of a stored coefficient. With 4 an item has two coefficients for each byte of a real image."""
    init: Literal["noise", "real"] = "real"
    """Start from noise, or from real images as the kept frequencies show them."""
    init_from: Literal["random", "kmeans", "recognized"] = "random"
    """Real images to start from: random ones, those nearest to k-means centers of their class (DREAM), or random ones
    among those that experts recognize (DATM)."""
    policy: Fixed | Random | Variance | Response | Jitter | Any = field(default_factory=Response)
    start: Literal["policy", "fixed", "random"] = "policy"
    """Frequencies that images begin with: those that the policy chooses, the lowest ones, or any."""
    refresh: Annotated[int, Range(0)] = 0
    """Outer iterations between two choices of the frequencies, by the images as they are; 0: choose once."""
    freeze: Share = 0.1
    """Last share of the run in which the frequencies stay as they are."""

    def __post_init__(self) -> None:
        if self.refresh and isinstance(self.policy, (Fixed, Random, Variance)):
            raise DistilError(
                f"{{refresh}} {self.refresh} chooses frequencies again by a network's response: use {{policy}} "
                "response or jitter, or {refresh} 0.",
                field=("refresh", "policy"),
            )


@dataclass(frozen=True)
class Fred:
    """Stored parameters are DCT coefficients of each color channel, at frequencies that each class keeps (FreD)."""

    kind: ClassVar = "fred"
    images: Annotated[int, Range(1, 512)] = 16
    """At least so many images in each item; each has their share of its numbers as coefficients."""
    bits: Literal[4, 8, 32] = 8
    """Bits of a stored coefficient. With 4 an item has two coefficients for each byte of a real image."""
    init_from: Literal["random", "kmeans", "recognized"] = "random"
    """Real images to start from: random ones, those nearest to k-means centers of their class (DREAM), or random ones
    among those that experts recognize (DATM)."""


# ------------------------------------------------------------------------------------------------------ objectives


@dataclass(frozen=True)
class GradientMatching:
    """Match the gradients of the classification loss on real and on synthetic images."""

    kind: ClassVar = "gradient"
    distance: Literal["cosine", "squared", "l1"] = "squared"
    """Distance between two gradients: one minus cosine by output row, squared error, absolute error."""
    layers: Literal["all", "convolutions"] = "convolutions"
    """Weights whose gradients are matched; vectors (biases, norms) never are."""


@dataclass(frozen=True)
class FeatureMatching:
    """Match the mean embeddings of real and of synthetic images."""

    kind: ClassVar = "feature"


@dataclass(frozen=True)
class CharacteristicMatching:
    """Match the characteristic functions of the embeddings of real and of synthetic images (NCFM)."""

    kind: ClassVar = "characteristic"
    frequencies: Count = 4096
    """Frequencies, drawn anew in each step, at which the characteristic functions are compared."""
    amplitude: NonNegative = 0.5
    """Weight of the difference between the amplitudes."""
    phase: NonNegative = 0.5
    """Weight of the difference between the phases."""
    scale: Positive = 300.0
    """What multiplies the loss."""


@dataclass(frozen=True)
class Classification:
    """The cross-entropy of the synthetic images beside the objective."""

    kind: ClassVar = "ce"
    prefix: ClassVar = "ce_"
    weight: NonNegative = 1.0
    """Weight of the cross-entropy beside the objective."""
    by_accuracy: bool = False
    """Multiply the weight by the network's present training accuracy, in percent (IDM)."""


@dataclass(frozen=True)
class Contrastive:
    """UDD's category-wise feature contrastive loss beside the objective."""

    kind: ClassVar = "cfc"
    prefix: ClassVar = "cfc_"
    share: Positive = 0.1
    """Norm of the contrastive loss's gradient as a share of the objective's."""
    temperature: Positive = 0.1
    """Temperature of the contrastive loss."""


# -------------------------------------------------------------------------------------------------- network sources


@dataclass(frozen=True)
class Fresh:
    """Networks stay as they were drawn."""

    kind: ClassVar = "fresh"


@dataclass(frozen=True)
class _Training:
    prefix: ClassVar = "network_"
    lr: NonNegative = 0.01
    """Learning rate of the network's training."""
    momentum: NonNegative = 0.9
    """Momentum of the network's training."""
    weight_decay: NonNegative = 5e-4
    """Weight decay of the network's training."""


@dataclass(frozen=True)
class _BatchTraining(_Training):
    batch: Count = 64
    """Batch of the network's training."""
    cutmix: Share = 0.5
    """Probability of CutMix in the network's training."""
    augment: str = "color_crop"
    """Operations of the augmentation in the network's training, joined by underscores, or none."""


@dataclass(frozen=True)
class TrainedOnReal(_BatchTraining):
    """Networks are trained on real images between matching steps."""

    kind: ClassVar = "real"
    samples: Annotated[int, Range(0)] = 2000
    """Images that the network sees after each matching step."""


@dataclass(frozen=True)
class TrainedOnSynthetic(_BatchTraining):
    """Networks are trained on the synthetic images between matching steps."""

    kind: ClassVar = "synthetic"
    epochs: Annotated[int, Range(0)] = 1
    """Passes over the synthetic images after each matching step."""


@dataclass(frozen=True)
class TrainedOnTargets(_Training):
    """Networks take one step along the real gradients that are matched anyway."""

    kind: ClassVar = "targets"


@dataclass(frozen=True)
class Pool(_BatchTraining):
    """A queue of networks of every age, trained on real images between matching steps (IDM)."""

    kind: ClassVar = "pool"
    batch: Count = 256
    """Batch of the network's training."""
    cutmix: Share = 0.0
    """Probability of CutMix in the network's training."""
    augment: str = "none"
    """Operations of the augmentation in the network's training, joined by underscores, or none."""
    first: Count = 3
    """Fresh networks that the queue begins with."""
    most: Count = 100
    """Networks in the queue, at most: a further one replaces the oldest."""
    every: Count = 30
    """Matching steps after which a fresh network joins."""
    trained: Count = 2
    """Networks, drawn from the queue, that are trained after each matching step."""
    steps: Annotated[int, Range(0)] = 10
    """Updates of each of them."""


@dataclass(frozen=True)
class Experts:
    """Networks trained on real images beforehand, whose weights are kept after every epoch."""

    prefix: ClassVar = "expert_"
    runs: Annotated[int, Range(1, 100_000)] = 100
    """Networks to be trained beforehand, where no folder of experts is given."""
    epochs: Annotated[int, Range(1, 100_000)] = 50
    """Passes of each over the real images."""
    every: Count = 1
    """Epochs after each of which their weights are kept, those of the first and of the last always."""
    lr: Positive = 0.01
    """Learning rate of their training."""
    lr_decay: Literal["none", "steps"] = "none"
    """Learning rate over their training: constant, or a fifth of it from 2/3 and again from 5/6 on."""
    momentum: NonNegative = 0.0
    """Momentum of their training."""
    weight_decay: NonNegative = 0.0
    """Weight decay of their training."""
    batch: Count = 256
    """Batch of their training."""
    cutmix: Share = 0.0
    """Probability of CutMix in their training."""
    augment: str = "color_crop_cutout_flip_scale_rotate"
    """Operations of the augmentation in their training, joined by underscores, or none."""
    augment_one: bool = True
    """One random operation an image in their training (DSA); otherwise flip, color and cutout always, plus one."""


@dataclass(frozen=True)
class Interpolated:
    """Networks between an expert's first weights and its last, anew in each outer iteration (NCFM)."""

    kind: ClassVar = "interpolated"
    experts: Experts = field(default_factory=Experts)


# ------------------------------------------------------------------------------------------------- sampler, optimizer


@dataclass(frozen=True)
class Uniform:
    """Real images of a class are drawn uniformly, without replacement within a step."""

    kind: ClassVar = "uniform"
    batch: Count = 64
    """Real images of a class in a matching step."""

    def __call__(self, real: Any, label: int, net: Any, generator: Any, inner: int) -> Any:
        """`batch` images of the class [b, c, h, w] in [0, 1]."""
        return real.sample_class(label, self.batch, generator)


@dataclass(frozen=True)
class KMeans:
    """Real images of a class are those nearest to the centers of its clusters in the network's embedding (DREAM)."""

    kind: ClassVar = "kmeans"
    batch: Count = 128
    """Real images of a class in a matching step."""
    cluster_every: Count = 10
    """Matching steps on one network for which the same images serve."""
    cluster_pool: Annotated[int, Range(0)] = 0
    """Random images of a class among which clusters are found; 0: all of them."""


@dataclass(frozen=True)
class ImageAdam:
    """AdamW on the stored parameters."""

    kind: ClassVar = "adam"
    lr: Positive = 0.01
    """Learning rate of the stored parameters."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run: constant, or falling to zero along half a cosine."""
    betas: Annotated[tuple[float, float], Range(0, below=1)] = (0.9, 0.999)
    """Decay of the mean of the gradients, and of the mean of their squares, in a step."""
    weight_decay: NonNegative = 0.01
    """Decay of the stored parameters in a step, times the learning rate."""


@dataclass(frozen=True)
class ImageSGD:
    """Gradient descent with momentum on the stored parameters."""

    kind: ClassVar = "sgd"
    lr: Positive = 5e-3
    """Learning rate of the stored parameters."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run: constant, or falling to zero along half a cosine."""
    lr_space: Literal["pixel", "normalized"] = "pixel"
    """Units of the learning rate where parameters are pixels: those of [0, 1], or divided by the standard deviation."""
    gradient_scale: Literal["raw", "item"] = "raw"
    """Gradients as they are, or each item's divided by its root mean square: the learning rate is then the size of a
    step, whatever the distance, the network's width and the number of images."""
    momentum: NonNegative = 0.5
    """Momentum of the stored parameters."""


# ------------------------------------------------------------------------------------------------------- whole methods


@dataclass(frozen=True)
class Matching:
    """Learn stored parameters by matching what networks compute on real images and on the decoded ones."""

    method: str = "idc"
    """Name under which the result is filed."""
    ipc: Annotated[int, Range(1, 100_000)] = 1
    """Images per class: items, each as large as one stored real image."""
    outer: Count = 2000
    """Fresh networks, one after another."""
    inner: Count = 100
    """Matching steps on each network."""
    seed: Annotated[int, Seed()] = 0
    """Seed of every draw."""
    network: str = "convnet3"
    """Network in which real and synthetic images are matched."""
    width: Annotated[int, Range(1, 4096)] = 128
    """Channels of the network's layers."""
    parameterization: Grid | Windows | Dct | Fred | Any = field(default_factory=Grid)
    optimizer: ImageSGD | ImageAdam = field(default_factory=ImageSGD)
    objective: GradientMatching | FeatureMatching | CharacteristicMatching | Any = field(
        default_factory=GradientMatching
    )
    contrastive: Contrastive | None = None
    classification: Classification | None = None
    sampler: Uniform | KMeans | Any = field(default_factory=Uniform)
    batch_synthetic: Count = 128
    """At most so many decoded images of a class in a matching step."""
    target_reuse: Count = 1
    """Matching steps that one computation of a network stage's real targets serves, in random order over the stages."""
    augment: str = "color_crop_cutout"
    """Operations of the matching augmentation, joined by underscores, or none."""
    augment_one: bool = False
    """One random operation a step (DC, DSA); otherwise flip, color and cutout always, plus one of the rest (IDC)."""
    networks: Fresh | TrainedOnReal | TrainedOnSynthetic | TrainedOnTargets | Pool | Interpolated | Any = field(
        default_factory=TrainedOnReal
    )
    bfloat16: str = "none"
    """Stages computed in bfloat16, joined by underscores (real, network, synthetic), or none."""
    validation: Annotated[
        float, Range(0, below=1, what="it is the share of images held out, at least 0 and below 1")
    ] = 0.1
    """Share of the training images held out to follow progress; nothing is selected on it. 0 uses every image."""
    validations: Annotated[int, Range(0, 10_000)] = 4
    """Evaluations on the held-out share during the run."""


@dataclass(frozen=True)
class HardLabels:
    """Every item keeps the class that it was made for."""

    kind: ClassVar = "hard"


@dataclass(frozen=True)
class LearnedLabels:
    """Every image has class probabilities of its own: at first those that experts give it, then learned (DATM)."""

    kind: ClassVar = "learned"
    label_lr: NonNegative = 5.0
    """Learning rate of the labels' logits."""
    label_momentum: NonNegative = 0.9
    """Momentum of the labels' logits."""


@dataclass(frozen=True)
class Trajectory:
    """Learn stored parameters on which a student's training leads where an expert's training on real images led."""

    method: str = "mtt"
    """Name under which the result is filed."""
    ipc: Annotated[int, Range(1, 100_000)] = 1
    """Images per class: items, each as large as one stored real image."""
    steps: Count = 5000
    """Steps: segments of experts' training that are matched, one after another."""
    seed: Annotated[int, Seed()] = 0
    """Seed of every draw."""
    network: str = "convnet3"
    """Network whose training is matched."""
    width: Annotated[int, Range(1, 4096)] = 128
    """Channels of the network's layers."""
    parameterization: Grid | Windows | Dct | Fred | Any = field(default_factory=Grid)
    optimizer: ImageSGD | ImageAdam = field(default_factory=ImageSGD)
    labels: HardLabels | LearnedLabels = field(default_factory=HardLabels)
    student_steps: Count = 50
    """Updates of the student in a step."""
    span: Count = 2
    """Epochs of the expert for which they stand."""
    start_from: Annotated[int, Range(0)] = 0
    """First epoch of the expert at which a student may start."""
    start_to: Annotated[int, Range(0)] = 2
    """Last epoch of the expert at which a student may start."""
    start_to_first: Annotated[int, Range(0)] | None = None
    """The same in the first step; it grows to start_to over the run. None: constant."""
    student_lr: Positive = 0.01
    """Learning rate of the student at first; it is learned, and stored in the set."""
    student_lr_lr: NonNegative = 1e-5
    """Learning rate of the student's learning rate; 0 keeps it."""
    hold_weights: bool = False
    """Leave out how an update depends on those before it (TESLA's approximation of MTT's gradient)."""
    skip_above: NonNegative = 0.0
    """Steps with a loss above this change nothing; 0: none is skipped."""
    batch_synthetic: Count = 256
    """Synthetic images, of all classes together, in an update of the student, at most."""
    augment: str = "color_crop_cutout_flip_scale_rotate"
    """Operations of the augmentation in the student's training, joined by underscores, or none."""
    augment_one: bool = True
    """One random operation an image (DSA); otherwise flip, color and cutout always, plus one of the rest (IDC)."""
    experts: Experts = field(default_factory=Experts)
    validation: Annotated[
        float, Range(0, below=1, what="it is the share of images held out, at least 0 and below 1")
    ] = 0.1
    """Share of the training images held out to follow progress; nothing is selected on it. 0 uses every image."""
    validations: Annotated[int, Range(0, 10_000)] = 4
    """Evaluations on the held-out share during the run."""


@dataclass(frozen=True)
class Observer:
    """A network trained on the images, in whose embedding distances between images are measured."""

    kind: ClassVar = "observer"
    network: str = "convnet3"
    """Network whose embedding measures distances."""
    width: Annotated[int, Range(1, 4096)] = 128
    """Channels of the network's layers."""
    network_epochs: Annotated[int, Range(0)] = 20
    """Passes over the training set that the network is trained for."""


@dataclass(frozen=True)
class PretrainedObserver:
    """A trained classifier, in whose embedding distances between images are measured."""

    kind: ClassVar = "pretrained"
    model: str = ""
    """FILE.safetensors of a classifier, a name of timm, or NAME@FILE.safetensors for timm weights in a file."""


@dataclass(frozen=True)
class Tiles:
    """Items are tiled from the crops of real images that the observer recognizes most surely."""

    kind: ClassVar = "tiles"
    images: Count = 300
    """Random real images of a class that are looked at."""
    crops: Count = 5
    """Random crops of each of them, of which the best one counts."""
    smallest: Annotated[float, Range(above=0, high=1)] = 0.08
    """Smallest share of an image's area that a crop has; the largest is all of it."""
    factor: Annotated[int, Range(0, 31)] = 0
    """Tile every item from factor x factor crops, each enlarged to an image; 0: 2 from 128 pixels on, else 1."""


@dataclass(frozen=True)
class Selection:
    """Choose real images: no synthesis."""

    method: Literal["random", "herding", "k-center", "k-means", "rded"] = "random"
    """The selection rule."""
    ipc: Annotated[int, Range(1, 100_000)] = 1
    """Images per class."""
    seed: Annotated[int, Seed()] = 0
    """Seed of every draw."""
    observer: Observer | PretrainedObserver | None = None
    tiles: Tiles | None = None
    validation: Annotated[
        float, Range(0, below=1, what="it is the share of images held out, at least 0 and below 1")
    ] = 0.1
    """Share of the training images held out, as every method here holds them out."""


Settings = Matching | Trajectory | Selection
Learning = Matching | Trajectory
"""Settings of the methods that learn stored parameters step by step."""


def updates_of(settings: Learning) -> int:
    """Matching steps of a whole run, or updates of its students."""
    if isinstance(settings, Trajectory):
        return settings.steps * settings.student_steps
    return settings.outer * settings.inner * settings.target_reuse


def experts_of(settings: Settings) -> Experts | None:
    """The experts that a run needs; None if it needs none."""
    return getattr(settings, "experts", None) or getattr(getattr(settings, "networks", None), "experts", None)


def with_experts(settings: Learning, experts: Experts) -> Learning:
    """The settings with other experts. Raises: DistilError if their method uses none."""
    if isinstance(settings, Trajectory):
        return replace(settings, experts=experts)
    if isinstance(settings.networks, Interpolated):
        return replace(settings, networks=replace(settings.networks, experts=experts))
    raise DistilError(
        f"{settings.method} uses no experts: leave {{experts}} out, or use {{networks}} interpolated.", field="experts"
    )


def check_settings(settings: Settings) -> None:
    """Refuse values that no run can use. Raises: DistilError that names the field, its value and what is accepted."""
    check(settings)
    if getattr(getattr(settings, "parameterization", None), "init_from", "") == "recognized" and not experts_of(
        settings
    ):
        raise DistilError(
            "{init_from} recognized asks experts, and this method has none: use {init_from} random or kmeans.",
            field="init_from",
        )
    if isinstance(settings, Selection):
        if (settings.observer is None) != (settings.method == "random"):
            needs = "asks no network" if settings.observer else "asks a network about the images"
            give = "None" if settings.observer else "an Observer() or a PretrainedObserver()"
            raise DistilError(f"the rule {settings.method} {needs}: give {{observer}} {give}.", field="observer")
        if (settings.tiles is None) == (settings.method == "rded"):
            give = "Tiles()" if settings.tiles is None else "None"
            raise DistilError(f"rded alone tiles its items: give tiles {give} to the rule {settings.method}.")
        if isinstance(settings.observer, PretrainedObserver) and not settings.observer.model:
            raise DistilError(
                "{observer} pretrained needs {model}: FILE.safetensors of a classifier, or a name of timm.",
                field=("observer", "model"),
            )
        return
    if isinstance(settings, Trajectory):
        _check_trajectory(settings)
        return
    unknown = [word for word in settings.bfloat16.split("_") if word not in STAGES]
    if settings.bfloat16 != "none" and unknown:
        raise DistilError(
            f"{{bfloat16}} {settings.bfloat16} names no stage {unknown[0]!r}: join some of {', '.join(STAGES)} by "
            "underscores, or give none.",
            field="bfloat16",
        )
    if settings.target_reuse > 1 and isinstance(settings.networks, TrainedOnSynthetic):
        raise DistilError(
            f"{{target_reuse}} {settings.target_reuse} computes a network's real targets beforehand, and {{networks}} "
            "synthetic trains it on the images as they change: use {target_reuse} 1.",
            field=("target_reuse", "networks"),
        )
    if isinstance(settings.networks, TrainedOnTargets) and not isinstance(settings.objective, GradientMatching):
        raise DistilError(
            "{networks} targets trains by the real gradients, and this objective computes none: use {networks} real "
            "or fresh.",
            field="networks",
        )
    if isinstance(settings.networks, (Pool, Interpolated)) and settings.inner > 1:
        raise DistilError(
            f"{{networks}} {settings.networks.kind} takes another network in every step: use {{inner}} 1 and as many "
            f"{{outer}} iterations, not {{inner}} {settings.inner}.",
            field=("inner", "outer", "networks"),
        )
    weighed = settings.classification is not None and settings.classification.by_accuracy
    if weighed and not isinstance(settings.networks, Pool):
        raise DistilError(
            "{ce_by_accuracy} weighs by the training accuracy of networks in a pool: use {networks} pool, or leave it "
            "out.",
            field=("ce_by_accuracy", "networks"),
        )


def _check_trajectory(settings: Trajectory) -> None:
    first = settings.start_to if settings.start_to_first is None else settings.start_to_first
    if not settings.start_from <= first <= settings.start_to:
        raise DistilError(
            f"{{start_from}} {settings.start_from}, {{start_to_first}} {first} and {{start_to}} {settings.start_to} "
            "must not fall: they are epochs of an expert between which students start.",
            field=("start_from", "start_to", "start_to_first"),
        )
    if settings.start_to + settings.span > settings.experts.epochs:
        raise DistilError(
            f"{{start_to}} {settings.start_to} and {{span}} {settings.span} reach beyond the {settings.experts.epochs} "
            "epochs of the experts: lower them, or train experts for longer ({expert_epochs}).",
            field=("start_to", "span", "expert_epochs"),
        )
    if settings.experts.every > 1 and not starts(settings, settings.start_to):
        raise DistilError(
            f"the experts keep their weights every {settings.experts.every} epochs ({{expert_every}}), and none of "
            f"those has another {settings.span} later ({{span}}): use a multiple of it for {{span}}.",
            field=("expert_every", "span"),
        )
    if isinstance(settings.labels, LearnedLabels) and isinstance(settings.parameterization, Windows):
        raise DistilError(
            "{labels} learned gives every image probabilities of its own, and {parameterization} windows finds further "
            "images during the run: use {labels} hard, or another parameterization.",
            field=("labels", "parameterization"),
        )
    matched = getattr(settings.parameterization, "windows_loss", None)
    if isinstance(matched, Apart):
        raise DistilError(
            "{windows_loss} apart needs an objective, and a trajectory has none: use {windows_loss} joint.",
            field="windows_loss",
        )


def kept_epochs(experts: Experts) -> tuple[int, ...]:
    """Epochs after which the weights of experts are kept."""
    return tuple(e for e in range(experts.epochs + 1) if e % experts.every == 0 or e == experts.epochs)


def starts(settings: Trajectory, last: int) -> list[int]:
    """Epochs of an expert at which a student may start, `last` at most."""
    kept = kept_epochs(settings.experts)
    return [e for e in kept if settings.start_from <= e <= last and e + settings.span in kept]
