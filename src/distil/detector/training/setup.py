"""What a training run and its preflight start from: student, losses, the two detectors' classes, the processes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distil.data.detection.detection_set import ClassMatch, DetectionSet, match_classes
from distil.data.detection.transforms import Augmentation
from distil.detector.adapters import adapt
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.named import loss_objects, prepared
from distil.detector.settings import DetectorSettings, DetectorTraining
from distil.detector.training.step import Columns
from distil.errors import DistilError
from distil.networks.detectors import Architecture, build_detector


def make_student(
    student: Architecture | Any, seed: int, data: DetectionSet, weights: Mapping[str, Tensor] | None
) -> tuple[Architecture | None, Any]:
    """The student's architecture, if it is known, and its adapter.

    student: an architecture, whose weights are drawn from the seed, or an adapter, taken as it is.
    weights: loaded strictly, if given.

    Raises: DistilError when its classes are not those of the data, or the weights are another detector's.
    """
    if isinstance(student, Architecture):
        architecture, adapter = student, adapt(build_detector(student, seed=seed))
        if architecture.classes != data.classes:
            raise DistilError(
                f"the student's classes are {_some(architecture.classes)} and those of {data.name} are "
                f"{_some(data.classes)}: give the student the classes of its data, in their order."
            )
    else:
        architecture, adapter = None, student
        if adapter.classes != len(data.classes):
            raise DistilError(
                f"the student tells {adapter.classes} classes apart and {data.name} has {len(data.classes)}: build it "
                f"for {_some(data.classes)}."
            )
    if weights is not None:
        try:
            adapter.model.load_state_dict(dict(weights), strict=True)
        except RuntimeError as error:
            raise DistilError(
                f"the first weights are another detector's ({str(error).splitlines()[-1].strip()}): give weights of "
                "the student's architecture, or none."
            ) from error
    return architecture, adapter


def make_losses(
    student: Any,
    teacher: Any,
    teacher_classes: Sequence[str] | None,
    data: DetectionSet,
    settings: DetectorSettings,
    losses: Sequence[DistillationLoss] | None = None,
) -> tuple[nn.ModuleDict, Columns]:
    """The losses of the settings, or those given, ready for the two detectors, and which of the detectors' class logits
    mean the same.

    Raises: DistilError when the detectors share no class or no stride, or a loss cannot serve them.
    """
    how = settings.distillation
    chosen = loss_objects([how.loss], how) if losses is None else losses
    columns = class_columns(class_match(teacher, teacher_classes, data), teacher)
    return prepared(chosen, student, teacher, seed=settings.training.seed), columns


def class_match(teacher: Any, teacher_classes: Sequence[str] | None, data: DetectionSet) -> ClassMatch:
    """The teacher's label of each of the data's classes; without names of the teacher's classes, in the same order.

    Raises: DistilError when no class is shared, or when nameless classes are not equally many.
    """
    if teacher_classes is None:
        if teacher.classes != len(data.classes):
            raise DistilError(
                f"the teacher tells {teacher.classes} classes apart and {data.name} has {len(data.classes)}: give the "
                "names of the teacher's classes."
            )
        teacher_classes = data.classes
    elif len(teacher_classes) != teacher.classes:
        raise DistilError(
            f"{len(teacher_classes)} names are given for the teacher's {teacher.classes} classes: give one for each."
        )
    return match_classes(tuple(teacher_classes or ()), data.classes)


def class_columns(match: ClassMatch, teacher: Any) -> Columns:
    """Which class logits of student and teacher are of the same class."""
    return Columns(match.labels, teacher.classes)


def in_data_labels(found: Sequence[Mapping[str, Tensor]], match: ClassMatch) -> list[dict[str, Tensor]]:
    """A teacher's predictions with the data's labels; those of classes that the data lacks are left out."""
    largest = max([label for label in match.labels if label is not None], default=0)
    largest = max([largest, *(int(one["labels"].max()) for one in found if len(one["labels"]))])
    data_label = torch.zeros(largest + 1, dtype=torch.int64)
    for label, teacher_label in enumerate(match.labels, start=1):
        if teacher_label is not None:
            data_label[teacher_label] = label
    translated = [{**one, "labels": data_label[one["labels"]]} for one in found]
    return [{name: x[one["labels"] > 0] for name, x in one.items()} for one in translated]


def make_augmentation(training: DetectorTraining) -> Augmentation:
    """The part of the settings that says how training images are changed."""
    return Augmentation(flip=training.flip, color=training.color, scale=training.scale)


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """What is drawn within leaves the global generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])} and {len(names) - 8} more"
