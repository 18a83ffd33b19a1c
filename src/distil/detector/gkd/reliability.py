"""How far student and teacher agree on the true objects of a data set: for reports, and to see what is filtered."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.data.detection.detection_set import DetectionSet
from distil.detector.adapters import common_levels
from distil.detector.adapters.torchvision import evaluating
from distil.detector.gkd.pooling import pool_pair
from distil.detector.gkd.prototypes import PrototypeSet
from distil.functional.boxes import pyramid_levels
from distil.functional.prototypes import nearest_cosine, reliability


@dataclass(frozen=True, eq=False)
class ObjectReliabilities:
    """Reliability of every object, in the order of the images and of their annotations; ignored ones are left out."""

    images: Int[Tensor, " m"]
    """Index into the data."""
    places: Int[Tensor, " m"]
    """Place of the object among its image's annotations."""
    boxes: Float[Tensor, "m 4"]
    """xyxy in pixels of the original image."""
    labels: Int[Tensor, " m"]
    values: Float[Tensor, " m"]
    """1 - |q^s - q^t| on the level of the object's size, in [0, 1]."""


@torch.no_grad()
def measure_objects(
    student: Any, teacher: Any, prototypes: PrototypeSet, data: DetectionSet, *, batch: int = 8
) -> ObjectReliabilities:
    """The reliability that the robust distilling module gives to each true object of `data`.

    student, teacher: adapters. Both see the student's view, in eval mode. q is the largest cosine of an object's pooled
    feature to a prototype of its class on the level of its size (`distil.functional.prototypes.nearest_cosine`).
    Raises: DistilError when the detectors share no stride.
    Source: omega of "Distilling Object Detectors With Global Knowledge" (ECCV 2022), there taken on proposals.
    """
    pairs = common_levels(student.strides, teacher.strides)
    strides = tuple(student.strides[level] for level, _ in pairs)
    device = next(student.model.parameters()).device
    prototypes = prototypes.to(device)
    bases = [prototypes.of(prototypes.strides.index(stride)) for stride in strides]
    images, places, boxes, labels, values = [], [], [], [], []
    with evaluating(student.model), evaluating(teacher.model):
        for rows in torch.arange(len(data)).split(batch):
            pictures, targets = [], []
            for index in rows.tolist():
                annotations = data.annotations(index)
                kept = (~annotations.ignored).nonzero().flatten()
                images.append(torch.full_like(kept, index))
                places.append(kept)
                boxes.append(annotations.boxes[kept])
                labels.append(annotations.labels[kept])
                pictures.append(data.image(index).to(device).float() / 255)
                targets.append({"boxes": boxes[-1].to(device), "labels": labels[-1].to(device)})
            view = student.view(pictures, targets)
            seen = [target["boxes"] for target in view.targets]
            student_pyramid, teacher_pyramid = student.pyramid(view), teacher.pyramid(teacher.restyle(view))
            student_features, teacher_features = pool_pair(
                [student_pyramid[first] for first, _ in pairs],
                [teacher_pyramid[second] for _, second in pairs],
                strides,
                seen,
            )
            classes = torch.cat([target["labels"] for target in view.targets])
            by_level = torch.stack(
                [
                    reliability(
                        nearest_cosine(student_features[level], classes, basis.student, basis.labels),
                        nearest_cosine(teacher_features[level], classes, basis.teacher, basis.labels),
                    )
                    for level, basis in enumerate(bases)
                ]
            )
            level = pyramid_levels(torch.cat(seen), strides)
            values.append(by_level.gather(0, level[None])[0].cpu())
    return ObjectReliabilities(
        torch.cat(images), torch.cat(places), torch.cat(boxes), torch.cat(labels), torch.cat(values)
    )
