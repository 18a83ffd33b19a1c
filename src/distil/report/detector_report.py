"""The report of detectors as one HTML file that needs nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from distil.data.detection.detection_set import DetectionSource
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.gkd.reliability import ObjectReliabilities
from distil.evaluation.precision import Precision
from distil.report.detections import draw_detections, draw_prototypes, draw_reliabilities, draw_training
from distil.report.page import picture, write_page

LEAST_SCORE = 0.3
"""Detections below it are not drawn."""

COLUMNS = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "small": "small", "medium": "medium", "large": "large"}

GLOSSARY = {
    "AP": "Average precision: the area under precision against recall, over overlaps of 0.50 to 0.95 and classes. On "
    "test scenes that nothing else has seen; the epoch was chosen on validation scenes.",
    "teacher": "A larger detector, trained first and then frozen.",
    "prototype": "A real object whose features stand for its class on one level of the pyramid, in the teacher's space "
    "and in the student's alike.",
    "reliability": "1 - the difference between how near student and teacher place an object to the prototypes of its "
    "class. What is unreliable counts for less in every loss of gkd.",
    "gkd": "Distilling Object Detectors With Global Knowledge (ECCV 2022), rebuilt from its equations.",
}


def write_detector_report(
    path: Path | str,
    *,
    data: DetectionSource,
    scores: Mapping[str, Precision],
    by_tag: Mapping[str, Mapping[str, Precision]],
    weights: Mapping[str, int],
    seconds: Mapping[str, float],
    found: Mapping[str, Sequence[Mapping[str, Tensor]]],
    logs: Mapping[str, Iterable[Mapping[str, Any]]],
    prototypes: PrototypeSet,
    reliabilities: ObjectReliabilities,
    preflight: str,
    settings: Mapping[str, Mapping[str, Any]],
    images: int = 5,
    crops: int = 16,
) -> None:
    """Write scores, detections, prototypes and the least reliable objects of a teacher and its students.

    scores, by_tag (of each kind of hard object), weights (parameters), seconds (of training), found (predictions on the
    test images), logs and settings: by the name of the detector, teacher first. prototypes: from `data.train`.
    reliabilities: of the objects of the test images. images, crops: how many are shown.
    Raises: DistilError if the file cannot be written.
    """
    test = data.test or data.val or data.train
    shown = list(range(min(images, len(test))))
    pictures = [test.image(index) for index in shown]
    truth = [test.annotations(index) for index in shown]
    columns: dict[str, Sequence[Mapping[str, Tensor]]] = {
        "true": [{"boxes": x.boxes, "labels": x.labels} for x in truth]
    }
    columns |= {name: [predictions[index] for index in shown] for name, predictions in found.items()}
    best = max(range(len(prototypes.strides)), key=lambda level: -abs(prototypes.strides[level] - 8))
    hard = reliability_by_tag(reliabilities, test)
    write_page(
        path,
        "detectors.html",
        title="Distilled detector",
        data=test.describe().splitlines()[0],
        columns=COLUMNS,
        scores=scores,
        weights=weights,
        seconds=seconds,
        by_tag=by_tag,
        kinds=next(iter(by_tag.values()), {}),
        detections=picture(
            draw_detections(pictures, columns, test.classes, least_score=LEAST_SCORE),
            "Detections beside the true boxes",
            f"Test images. Detections with a score of at least {LEAST_SCORE}.",
        ),
        prototypes=picture(
            draw_prototypes(prototypes, data.train.image, best),
            "Gallery of prototypes",
            f"Stride {prototypes.strides[best]}, epoch {prototypes.epoch}: the training objects from which the objects "
            "of their class are best rebuilt in both feature spaces, in the order in which they were chosen.",
        ),
        disagreements=picture(
            draw_reliabilities(_least(reliabilities, test, crops)),
            "The least reliable objects",
            "The objects of the test images with the least reliability, and their reliability.",
        ),
        reliabilities={} if set(hard) <= {"clear"} else hard,
        curves=picture(
            draw_training(logs),
            "AP and losses against the step",
            "AP on validation images, and the losses of the student with a teacher.",
        ),
        preflight=preflight,
        settings=settings,
        glossary=GLOSSARY,
    )


def _least(reliabilities: ObjectReliabilities, test: Any, count: int) -> list[tuple[Tensor, list[float], float, str]]:
    order = reliabilities.values.argsort(stable=True)[:count].tolist()
    return [
        (
            test.image(int(reliabilities.images[row])),
            reliabilities.boxes[row].tolist(),
            float(reliabilities.values[row]),
            test.classes[int(reliabilities.labels[row]) - 1],
        )
        for row in order
    ]


def reliability_by_tag(reliabilities: ObjectReliabilities, data: Any) -> dict[str, tuple[int, float, float]]:
    """Objects, mean reliability and its standard error of each kind of hard object that the data's tags tell, and of
    those without a tag ("clear")."""
    groups: dict[str, list[float]] = {}
    cached: dict[int, list[frozenset[str]]] = {}
    rows = zip(reliabilities.images.tolist(), reliabilities.places.tolist(), reliabilities.values.tolist(), strict=True)
    for image, place, value in rows:
        tags = cached.setdefault(image, data.tags(image))
        for tag in (tags[place] if place < len(tags) else frozenset()) or {"clear"}:
            groups.setdefault(tag, []).append(value)
    table = {}
    for tag, values in sorted(groups.items()):
        mean = sum(values) / len(values)
        spread = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
        table[tag] = (len(values), mean, spread / len(values) ** 0.5)
    return table
