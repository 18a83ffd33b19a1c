"""The report of detectors as one HTML file that needs nothing else."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from distil.data.detection.detection_set import DetectionSource
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.gkd.reliability import ObjectReliabilities
from distil.evaluation.precision import Precision
from distil.files import write_atomic
from distil.report.detections import draw_detections, draw_prototypes, draw_reliabilities, draw_training
from distil.report.html import html_figure, html_page

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
    parts = [
        "<h1>A small detector that learned from a large one</h1>",
        f'<p class="lead">{escape(test.describe().splitlines()[0])}. All began with random weights; both '
        "students began with the same ones and saw the same images in the same order.</p>",
        _table(scores, weights, seconds),
        _tag_table(by_tag),
        "<h2>What they find</h2>",
        html_figure(
            draw_detections(pictures, columns, test.classes, least_score=LEAST_SCORE),
            "Detections beside the true boxes",
            f"Test images. Detections with a score of at least {LEAST_SCORE}.",
        ),
        "<h2>The prototypes that both share</h2>",
        html_figure(
            draw_prototypes(prototypes, data.train.image, best),
            "Gallery of prototypes",
            f"Stride {prototypes.strides[best]}, epoch {prototypes.epoch}: the training objects from which the objects "
            "of their class are best rebuilt in both feature spaces, in the order in which they were chosen.",
        ),
        "<h2>Where the two disagree most</h2>",
        html_figure(
            draw_reliabilities(_least(reliabilities, test, crops)),
            "The least reliable objects",
            "Of the objects of the test images, those judged least reliable, with their reliability.",
        ),
        _by_tag(reliabilities, test),
        "<h2>While they were trained</h2>",
        html_figure(
            draw_training(logs),
            "AP and losses against the step",
            "AP on validation images, and the losses of the student with a teacher.",
        ),
        "<h2>Preflight</h2><p>What was looked at before the student was trained with its teacher.</p>",
        f"<pre>{escape(preflight)}</pre>" if preflight else "",
        "<h2>Make it again</h2><pre>distil demo detector</pre>",
    ]
    for name, values in settings.items():
        listed = "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        parts.append(f"<details><summary>Settings: {escape(name)}</summary><pre>{escape(listed)}</pre></details>")
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in GLOSSARY.items())
    parts.append(f"<h2>Words</h2><details><summary>What the terms mean</summary><dl>{terms}</dl></details>")
    page = html_page("Distilled detector", parts)
    write_atomic(path, lambda temporary: temporary.write_text(page, encoding="utf-8", errors="replace"))


def _table(scores: Mapping[str, Precision], weights: Mapping[str, int], seconds: Mapping[str, float]) -> str:
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in (*COLUMNS, "weights", "training"))
    lines = []
    for name, row in scores.items():
        cells = "".join(f'<td class="number">{_number(getattr(row, field))}</td>' for field in COLUMNS.values())
        cells += f'<td class="number">{weights[name]:,}</td><td class="number">{seconds[name]:.0f} s</td>'
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        '<h2>How well they see</h2><div class="card"><table><thead><tr><th scope="col">Detector</th>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        '<p class="small">Average precision in percent; small, medium and large are COCO\'s sizes (below 32 x 32, '
        "below 96 x 96 pixels, above). One run each: differences of a point or two are chance.</p>"
    )


def _tag_table(by_tag: Mapping[str, Mapping[str, Precision]]) -> str:
    kinds = next(iter(by_tag.values()), {})
    if not kinds:
        return ""
    head = "".join(f'<th scope="col" class="number">{escape(f"{k} ({p.objects})")}</th>' for k, p in kinds.items())
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="number">{_number(score.ap)}</td>' for score in own.values())
        + "</tr>"
        for name, own in by_tag.items()
    )
    return (
        '<div class="card"><table><thead><tr><th scope="col">AP of objects that are</th>'
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        '<p class="small">Clear, or what the scenes did to them, and how many there are; an object may be several. The '
        "other objects then count neither for nor against; what is found where there is nothing counts against every "
        "kind: compare within a column.</p>"
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


def _by_tag(reliabilities: ObjectReliabilities, test: Any) -> str:
    table = reliability_by_tag(reliabilities, test)
    if set(table) <= {"clear"}:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(tag)}</th><td class="number">{count}</td>'
        f'<td class="number">{mean:.3f} ± {error:.3f}</td></tr>'
        for tag, (count, mean, error) in table.items()
    )
    return (
        '<div class="card"><table><thead><tr><th scope="col">Objects</th><th scope="col" class="number">How many</th>'
        '<th scope="col" class="number">Reliability, mean ± standard error</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.1f}"
