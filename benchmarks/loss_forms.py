"""Gradients of the teachers' losses in both forms, on one batch of scenes: the table of docs/detector.md.

    python benchmarks/loss_forms.py OUT

Trains, in OUT, a teacher and a student without a teacher, of each kind, on scenes (EPOCHS; what is done is not
done again). Then, on eight other scenes, the norm of each loss's gradient on all weights of the student, with
--loss-form distil and published, weights included, and what single differences come to. Without prototypes, so that
every reliability is 1. Writes benchmarks/results/loss-forms.json.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from distil import Architecture, adapt, average_precision, load_detector, open_detection, train_detector
from distil.data.detection.detection_set import DetectionSet
from distil.detector.adapters import freeze
from distil.detector.gkd.loss import GlobalKnowledge
from distil.detector.gkd.pooling import pool_instances
from distil.detector.losses.crosskd import CrossKD
from distil.detector.losses.maps import Form, painted, pyramids_of
from distil.detector.losses.named import loss_objects, prepared
from distil.detector.presets import detector_preset, student_preset
from distil.detector.settings import Distillation, GlobalSettings
from distil.fields import with_values
from distil.functional.boxes import pyramid_levels, released_levels
from distil.networks.detectors import build_detector
from distil.report.progress import show_progress
from distil.types import Trace, View

RESULTS = Path(__file__).parent / "results" / "loss-forms.json"
IMAGES = 488
EPOCHS = {"retinanet": {"teacher": 16, "student": 4}, "faster-rcnn": {"teacher": 4, "student": 1}}
BATCH = 8
FORMS: tuple[Form, ...] = ("distil", "published")
GKD = GlobalSettings(local_scale="teacher", decay=False)


def shape(role: str, kind: str, data: DetectionSet) -> Architecture:
    fields: dict[str, Any] = student_preset(kind, "scenes", teacher=role == "teacher") | {"head_convs": 4}
    return Architecture(classes=data.classes, **fields)


def trained(role: str, kind: str, data: DetectionSet, out: Path) -> Any:
    epochs = EPOCHS[kind][role]
    settings = with_values(detector_preset("plain", "scenes"), epochs=epochs, evaluate_every=epochs)
    with show_progress(f"{role} {kind}") as shown:
        file = train_detector(
            shape(role, kind, data),
            data,
            settings,
            out=out / f"{role}-{kind}",
            measure=average_precision,
            resume=True,
            events=shown,
        )
    return adapt(load_detector(file)[0])


def traced(student: Any, teacher: Any, data: DetectionSet) -> tuple[Trace, Trace, View]:
    """A training pass of the student on the last images, and the teacher's on its instances."""
    rows = range(max(0, len(data) - BATCH), len(data))
    truths = [data.annotations(row) for row in rows]
    targets = [{"boxes": truth.boxes, "labels": truth.labels} for truth in truths]
    view = student.view([data.image(row).float() / 255 for row in rows], targets, seeds=rows)
    student.model.train()
    trace = student.trace(view)
    return trace, teacher.trace(teacher.restyle(view), regions=trace), view


def norm(model: nn.Module, loss: Tensor) -> float:
    """Of a loss's gradient on all weights of the student."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return torch.cat([x.flatten() for x in found if x is not None]).norm().item()


def both_forms(student: Any, teacher: Any, traces: tuple[Trace, Trace, View]) -> dict[str, dict[str, float]]:
    """Of every loss: value and gradient in both forms, and the ratio of gradients, published to distil."""
    names = ["gkd", "pkd", "fgd", "mgd", "defeat"]
    names += ["crosskd"] if student.activation == teacher.activation == "sigmoid" else []
    found: dict[str, dict[str, float]] = {}
    for form in FORMS:
        losses = prepared(loss_objects(names, Distillation(loss_form=form, gkd=GKD)), student, teacher)
        values = {name: value for part in losses.values() for name, value in part(*traces, 0.0).items()}
        for name, loss in values.items():
            found.setdefault(name, {})[form] = loss.item()
            found[name][f"gradient {form}"] = norm(student.model, loss)
    for values in found.values():
        values["ratio"] = values["gradient published"] / values["gradient distil"]
    total = torch.stack(list(traces[0].losses.values())).sum()
    return found | {"the student's own": {"distil": total.item(), "gradient distil": norm(student.model, total)}}


def crossing_parts(student: Any, teacher: Any, traces: tuple[Trace, Trace, View]) -> dict[str, float]:
    """What of crosskd's class term is its divisor, and what the entropy that "distil" takes away."""
    parts = []
    for form in FORMS:
        torch.manual_seed(0)
        parts.append(CrossKD(form=form))
        parts[-1].prepare(student, teacher)
    probabilities = traces[1].dense
    assert probabilities is not None
    assert traces[0].positives is not None
    confidence = probabilities.sigmoid().amax(2).sum().item()
    divisor = max(1.0, traces[0].positives.item())
    losses = [part(*traces, 0.0)["crosskd.class"] for part in parts]
    gradients = [norm(student.model, loss) for loss in losses]
    return {
        "sum of confidences": confidence,
        "positives": divisor,
        "by the divisor": confidence / divisor,
        "ratio": gradients[1] / gradients[0],
        "by the entropy": gradients[1] / gradients[0] / (confidence / divisor),
    }


def crossing_of_large_images(data: DetectionSet) -> dict[str, float]:
    """The same between detectors that know nothing yet, of images of the published size."""
    size: dict[str, Any] = {"min_size": 800, "max_size": 1333, "anchor": 32.0}
    student, teacher = (
        adapt(build_detector(replace(shape(role, "retinanet", data), **size), seed=seed))
        for seed, role in enumerate(("student", "teacher"))
    )
    freeze(teacher)
    return crossing_parts(student, teacher, traced(student, teacher, data.subset(range(2))))


def rectified(loss: GlobalKnowledge) -> GlobalKnowledge:
    """With a ReLU after every adapting convolution."""
    loss.adapting = nn.ModuleList(nn.Sequential(convolution, nn.ReLU()) for convolution in loss.adapting)
    return loss


def single_differences(student: Any, teacher: Any, traces: tuple[Trace, Trace, View]) -> dict[str, float]:
    """Effects of what differs within gkd and fgd, one at a time."""
    trace, _, view = traces
    pyramids = pyramids_of(student, teacher)
    objects = torch.cat([target["boxes"] for target in view.targets])

    def local(change: Callable[[GlobalKnowledge], GlobalKnowledge]) -> float:
        torch.manual_seed(0)
        loss = GlobalKnowledge(settings=GKD)
        loss.prepare(student, teacher)
        losses = change(loss)(*traces, 0.0)
        return norm(student.model, losses["gkd.foreground"] + losses["gkd.background"])

    painting = {}
    for cells in ("centers", "floor", "outward"):
        boxes = [target["boxes"].float() for target in view.targets]
        maps = [
            painted(boxes, [torch.ones(len(some)) for some in boxes], (x.shape[2], x.shape[3]), stride, cells=cells)
            for x, stride in zip(trace.pyramid, trace.strides, strict=True)
        ]
        painting[cells] = [one.sum().item() for one in maps]
    exact, cropped = pool_instances(trace.pyramid, trace.strides, view_boxes(view)), cropped_means(trace, view)
    strides = pyramids.strides
    return {
        "objects": len(objects),
        "local gradient with a ReLU / without": local(rectified) / local(lambda one: one),
        "objects on another level": (pyramid_levels(objects, strides) != released_levels(objects, len(strides)))
        .float()
        .mean()
        .item(),
        "cells painted, floor / centers, finest level": painting["floor"][0] / painting["centers"][0],
        "cells painted, floor / centers, all levels": sum(painting["floor"]) / sum(painting["centers"]),
        "cells painted, outward / centers, finest level": painting["outward"][0] / painting["centers"][0],
        "cells painted, outward / centers, all levels": sum(painting["outward"]) / sum(painting["centers"]),
        "cosine of exact and cropped means, finest level": cosine_similarity(exact[0], cropped[0], dim=1).mean().item(),
        "cosine of exact and cropped means, all levels": cosine_similarity(exact, cropped, dim=2).mean().item(),
        "columns of class logits": traces[1].logits.shape[1],
    }


def view_boxes(view: View) -> list[Tensor]:
    return [target["boxes"] for target in view.targets]


def cropped_means(trace: Trace, view: View) -> Tensor:
    """The released pooling: mean of the cells from int(x1 / stride) to int(x2 / stride), the last included."""
    levels = []
    for maps, stride in zip(trace.pyramid, trace.strides, strict=True):
        rows = []
        for image, boxes in enumerate(view_boxes(view)):
            for x1, y1, x2, y2 in (boxes / stride).int().tolist():
                rows.append(maps[image, :, y1 : y2 + 1, x1 : x2 + 1].mean((1, 2)))
        levels.append(torch.stack(rows))
    return torch.stack(levels)


def moved_by_a_pixel() -> float:
    """Share of boxes that the added pixel puts on another level, sides drawn evenly up to 640 pixels (P2 to P6)."""
    sides = 640 * torch.rand(1_000_000, 2, generator=torch.Generator().manual_seed(0))
    boxes = torch.cat([torch.zeros_like(sides), sides], 1)
    return (pyramid_levels(boxes, (4, 8, 16, 32, 64)) != released_levels(boxes, 5)).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    data = open_detection(f"scenes:{IMAGES}").train
    seen = data.subset(range(IMAGES - BATCH))
    found: dict[str, Any] = {"scenes": IMAGES, "epochs": EPOCHS, "boxes moved by a pixel": moved_by_a_pixel()}
    for kind in EPOCHS:
        teacher, student = (trained(role, kind, seen, args.out) for role in ("teacher", "student"))
        freeze(teacher)
        traces = traced(student, teacher, data)
        found[kind] = {"losses": both_forms(student, teacher, traces)}
        found[kind]["single differences"] = single_differences(student, teacher, traces)
        if kind == "retinanet":
            found[kind]["crosskd.class"] = crossing_parts(student, teacher, traces)
            fresh = adapt(build_detector(shape("student", kind, data), seed=0))
            again = traced(fresh, teacher, data)
            found[kind]["crosskd.class of a fresh student"] = crossing_parts(fresh, teacher, again)
            found[kind]["crosskd.class of fresh detectors at 800 pixels"] = crossing_of_large_images(data)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
