"""The three label regimes of an evaluation: hard labels, soft labels of the file, a teacher at training time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from distil.checks import is_finite, shown
from distil.distilled_set.labeling import STORED_TEMPERATURE, soft_labels
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.functional.temperature import divergence_at
from distil.networks.classifiers import AnyClassifier

Regime = Literal["hard", "stored", "teacher"]
REGIMES: tuple[Regime, ...] = ("hard", "stored", "teacher")
TEACHER_TEMPERATURE = 20.0
"""Of a teacher at training time. Source: RDED (Sun et al. 2024), released code."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Whose labels networks learn.

    regime: "hard": one class an image. "stored": the class probabilities in the file; of real images, those that the
        teacher gives once to every image. "teacher": the teacher labels every augmented and mixed batch while networks
        train, and labels of the set are not used.
    teacher: for "teacher", and for "stored" with real images.
    temperature: T of the teacher's softmax; None: 20 for "teacher", 1 for "stored".

    Raises: DistilError on a regime that is none, one without the teacher that it needs, and a temperature that is not
    above 0.
    """

    regime: Regime = "hard"
    teacher: AnyClassifier | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.regime not in REGIMES:
            raise DistilError(f"{{labels}} is {shown(self.regime)}: use hard, stored or teacher:MODEL.", field="labels")
        if self.regime == "teacher" and self.teacher is None:
            raise DistilError(
                "{labels=teacher:MODEL} needs a teacher: name the file of a classifier in the place of MODEL.",
                field="labels",
            )
        usual = {"hard": None, "stored": STORED_TEMPERATURE, "teacher": TEACHER_TEMPERATURE}[self.regime]
        value = usual if self.temperature is None else self.temperature
        if self.temperature is not None and not (is_finite(value) and value > 0):
            raise DistilError(f"{{temperature}} is {shown(value)}: it must be above 0.", field="temperature")
        object.__setattr__(self, "temperature", None if self.regime == "hard" else value)


HARD = Labels()


def usual_labels(distilled: DistilledSet) -> Labels:
    """The labels that a set has: its soft ones if it has them, else its hard ones."""
    return Labels("stored") if distilled.labels.is_floating_point() else HARD


def targets_of(distilled: DistilledSet, labels: Labels) -> Float[Tensor, "images k"]:
    """Class probabilities of every decoded image of a set; hard ones, which nobody learns, where a teacher labels.

    Hard labels of a set of soft labels: the class that is stored beside them, or else the most probable one.

    Raises: DistilError when stored soft labels are asked for and the set has none.
    """
    soft, classes, each = distilled.labels.is_floating_point(), len(distilled.classes), distilled.images_per_item
    if labels.regime == "stored" and not soft:
        raise DistilError(
            f"{{labels=stored}}: the set of {distilled.source} by {distilled.method} has hard labels alone: use "
            "{labels=hard}, or store soft ones with `distil label`.",
            field="labels",
        )
    if soft and labels.regime != "stored" and distilled.item_classes is None and distilled.labels.ndim == 3:
        return one_hot(distilled.labels.float().argmax(-1).flatten(), classes).float()
    if soft and labels.regime == "stored":
        stored = distilled.labels.float()
        return stored.flatten(0, 1) if stored.ndim == 3 else stored.repeat_interleave(each, 0)
    return one_hot(distilled.class_of.repeat_interleave(each), classes).float()


def label_bytes(distilled: DistilledSet, labels: Labels) -> int:
    """Stored bytes of the labels that networks learn; those of a teacher are counted apart (`AnyClassifier.bytes`)."""
    if labels.regime == "stored":
        stored = distilled.stored()["labels"]
        return stored.numel() * stored.element_size()
    if labels.regime == "teacher":
        return 0
    soft = distilled.labels.is_floating_point()
    each = distilled.images_per_item if soft and distilled.item_classes is None and distilled.labels.ndim == 3 else 1
    return len(distilled.params) * each * index_bytes(len(distilled.classes))


def index_bytes(classes: int) -> int:
    """Bytes of a class index in the smallest integer type that holds it, as the artifact counts them."""
    return 1 if classes <= 2**8 else 2 if classes <= 2**15 else 4


def given_once(labels: Labels, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """The teacher's soft labels of images in [0, 1], on the device of both, as a file would have them."""
    assert labels.teacher is not None
    assert labels.temperature is not None
    return soft_labels(labels.teacher, images, labels.temperature).float()


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of logits [networks b k], normalized images [networks b c h w], class probabilities [networks b k]: the loss of each
network, [networks]."""


def loss_of(labels: Labels, mean: Sequence[float], std: Sequence[float]) -> Loss | None:
    """The loss by which networks learn from a teacher: the mean of T^2 KL(teacher || network) over the batch as it was
    augmented and mixed. None for the other regimes: the cross-entropy.

    mean, std: what the images were normalized by.
    Source: RDED (Sun et al. 2024), released code, where the teacher labels every mixed batch at T = 20.
    Differs: the factor T^2, which the released code leaves out. Under its optimizer, AdamW, a factor of the loss is
    almost nothing; under the SGD of our protocols it would be a learning rate 400 times lower.
    """
    if labels.regime != "teacher":
        return None
    teacher, temperature = labels.teacher, labels.temperature
    assert teacher is not None
    assert temperature is not None

    def loss(logits: Tensor, images: Tensor, _targets: Tensor) -> Tensor:
        shift, scale = (images.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
        with torch.no_grad():
            wanted = teacher.logits(images.flatten(0, 1) * scale + shift).view_as(logits)
        return divergence_at(logits, wanted, temperature).mean(1)

    return loss
