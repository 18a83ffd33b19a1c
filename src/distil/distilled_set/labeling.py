"""Soft labels of a distilled set, from a teacher that sees its decoded images once."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distil.checks import is_finite, shown
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.networks.classifiers import AnyClassifier, Ensemble

STORED_TEMPERATURE = 1.0
AT_A_TIME = 256
"""Images that a teacher sees at a time."""


@torch.no_grad()
def soft_labels(teacher: AnyClassifier, images: Float[Tensor, "n c h w"], temperature: float) -> Float[Tensor, "n k"]:
    """softmax(logits / T) of images in [0, 1], on the device of both, as float16.

    Rounding moves a probability by at most 1 part in 2,048, which is less than two teachers of one kind differ by, and
    a file holds half the bytes.
    """
    rows = [(teacher.logits(some).float() / temperature).softmax(1) for some in images.split(AT_A_TIME)]
    return torch.cat(rows).half()


def labeled_by(
    made: DistilledSet,
    teacher: AnyClassifier,
    *,
    temperature: float = STORED_TEMPERATURE,
    device: torch.device | str = "cpu",
) -> DistilledSet:
    """The set with a teacher's soft labels for every decoded image, [n, k], or [n, r, k] where an item gives r images.

    The class of each item is kept beside them (`item_classes`), and who the teacher was (`label_source`). Networks see
    augmented images, the teacher saw them as they are: where that matters, let it label at training time.

    Raises: DistilError when the teacher is for other classes or channels, and when the temperature is not above 0.
    """
    if not (is_finite(temperature) and temperature > 0):
        raise DistilError(f"{{temperature}} is {shown(temperature)}: it must be above 0.", field="temperature")
    teacher.check_matches(made.classes, len(made.mean), f"the distilled set of {made.source}")
    batch = made.decoded()
    labels = soft_labels(teacher.to(device), batch.images.to(device), temperature).cpu()
    if made.images_per_item > 1:
        labels = labels.view(len(made.params), made.images_per_item, -1)
    source = {**teacher_facts(teacher), "temperature": float(temperature)}
    return replace(made, labels=labels, item_classes=made.class_of, label_source=source)


def teacher_facts(teacher: AnyClassifier) -> dict[str, Any]:
    """What files say of a teacher: its words (several of an ensemble), its hash and its bytes."""
    words = list(teacher.words) if isinstance(teacher, Ensemble) else [teacher.word]
    return {"words": words, "sha256": teacher.fingerprint(), "bytes": teacher.bytes}
