"""Prototypes are real objects, chosen so that either detector's view of all objects is rebuilt from them.

`generate_prototypes` is the prototype generation module (PGM) of Distilling Object Detectors with Global Knowledge.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distil.data.detection.detection_set import DetectionSet
from distil.detector.adapters.protocol import DetectorAdapter, common_levels
from distil.detector.adapters.torchvision import device_of, evaluating
from distil.detector.gkd.pooling import pool_pair
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.settings import PrototypeSettings
from distil.errors import DistilError
from distil.functional.prototypes import dense_enough, select_prototypes
from distil.rng import stream

LARGEST_SHARE = 0.2
"""Share of the boxes of a class without large ones that is taken, the largest first."""


@dataclass(frozen=True)
class Candidates:
    """Objects that may become prototypes, images in rising order, and remarks on how they were found."""

    images: Int[Tensor, " i"]
    objects: Int[Tensor, " i"]
    """Place among the annotations of the image."""
    boxes: Float[Tensor, "i 4"]
    labels: Int[Tensor, " i"]
    notes: tuple[str, ...]

    def only(self, rows: Int[Tensor, " j"]) -> "Candidates":
        """Some of them."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ("images", "objects", "boxes", "labels")})


def generate_prototypes(
    student: DetectorAdapter,
    teacher: DetectorAdapter,
    data: DetectionSet,
    settings: PrototypeSettings,
    *,
    seed: int = 0,
    epoch: int = 0,
    batch: int = 8,
) -> PrototypeSet:
    """Choose the prototypes of every class on every level that student and teacher have in common.

    Objects are pooled from both pyramids in one pass over the images that hold them; of each class and level, those in
    dense regions of both spaces are candidates (functional.prototypes.dense_enough), and a few of them are chosen
    (select_prototypes). Both detectors see the student's view, in eval mode and without gradients; the modes of all
    their modules are restored. The same images serve at every epoch: `epoch` is only recorded. batch: images in one
    pass.

    Raises: DistilError if the data holds no usable object, the detectors share no stride, or a feature is not finite.
    Source: the prototype generation module of Distilling Object Detectors with Global Knowledge (2022), section 3.1,
    and its released code.
    """
    pairs = common_levels(student.strides, teacher.strides)
    candidates = choose_candidates(data, settings, seed)
    features = pool_candidates(student, teacher, data, candidates, pairs, batch)
    strides = tuple(student.strides[first] for first, _ in pairs)
    return prototypes_among(candidates, features, data, strides, settings, epoch=epoch, device=device_of(student.model))


def prototypes_among(
    candidates: Candidates,
    features: tuple[Float[Tensor, "l i s"], Float[Tensor, "l i t"]],
    data: DetectionSet,
    strides: tuple[int, ...],
    settings: PrototypeSettings,
    *,
    epoch: int,
    device: torch.device,
) -> PrototypeSet:
    """The prototypes among candidates of which features are known: filtered by density, then selected, on `device`.

    features: the student's and the teacher's, on every common level. strides: of those levels.
    Raises: DistilError if a feature is not finite.
    """
    for who, pooled in zip(("student", "teacher"), features, strict=True):
        if not bool(pooled.isfinite().all()):
            raise DistilError(
                f"the {who}'s features of {data.name} are not finite, so no prototypes can be chosen. Its weights or "
                "its training have broken: use the last good checkpoint, a lower learning rate or precision 32."
            )
    rows, levels = [], []
    for level in range(len(strides)):
        for label in range(1, len(data.classes) + 1):
            of_class = (candidates.labels == label).nonzero().flatten()
            chosen = of_class[
                _choose(features[0][level, of_class].to(device), features[1][level, of_class].to(device), settings)
            ]
            rows.append(chosen)
            levels.append(torch.full_like(chosen, level))
    row, level = torch.cat(rows), torch.cat(levels)
    images = candidates.images[row]
    return PrototypeSet(
        student=features[0][level, row],
        teacher=features[1][level, row],
        levels=level,
        labels=candidates.labels[row],
        images=images,
        boxes=candidates.boxes[row],
        classes=tuple(data.classes),
        strides=strides,
        source=data.name,
        epoch=epoch,
        identifiers=tuple(data.identifier(index) for index in images.tolist()),
        notes=candidates.notes,
    )


def choose_candidates(data: DetectionSet, settings: PrototypeSettings, seed: int) -> Candidates:
    """The objects of the data that may become prototypes.

    Boxes wider and higher than settings.side that are not marked as ignored, from at most
    settings.images images of each class, drawn at the class's address. Of a class without such a box, the
    fifth of its boxes with the longest shorter side, with a note (ours).
    Raises: DistilError if no box of the data is usable.
    """
    annotations = [data.annotations(index) for index in range(len(data))]
    counts = torch.tensor([len(each.labels) for each in annotations], dtype=torch.int64)
    images = torch.arange(len(data)).repeat_interleave(counts)
    objects = torch.arange(len(images)) - (counts.cumsum(0) - counts)[images]
    boxes = torch.cat([each.boxes.float() for each in annotations] or [torch.zeros(0, 4)])
    labels = torch.cat([each.labels.long() for each in annotations] or [torch.zeros(0, dtype=torch.int64)])
    ignored = torch.cat([each.ignored for each in annotations] or [torch.zeros(0, dtype=torch.bool)])
    side = (boxes[:, 2:] - boxes[:, :2]).amin(1)
    usable = ~ignored & (side > 0)
    taken = torch.zeros_like(usable)
    notes = []
    for label, name in enumerate(data.classes, start=1):
        of_class = usable & (labels == label)
        if not bool(of_class.any()):
            notes.append(f"{name} has no object in {data.name}, so it has no prototype")
            continue
        large = of_class & (side > settings.side)
        if not bool(large.any()):
            large = _largest(of_class, side)
            notes.append(
                f"no box of {name} is wider and higher than {settings.side:g} pixels, "
                f"so its {int(large.sum())} largest were taken"
            )
        taken |= large & _in_some_images(large, images, settings.images, stream(seed, "prototypes", name))
    if not bool(taken.any()):
        raise DistilError(
            f"{data.name} holds no object that could become a prototype: {len(labels)} boxes in {len(data)} images, "
            "all ignored, of no area or of another class. Check its annotations and classes."
        )
    return Candidates(images[taken], objects[taken], boxes[taken], labels[taken], tuple(notes))


def _largest(of_class: Bool[Tensor, " m"], side: Float[Tensor, " m"]) -> Bool[Tensor, " m"]:
    """The share LARGEST_SHARE of the boxes in `of_class` with the longest shorter side."""
    rows = of_class.nonzero().flatten()
    order = side[rows].argsort(descending=True, stable=True)
    return torch.zeros_like(of_class).scatter(0, rows[order[: math.ceil(LARGEST_SHARE * len(rows))]], True)


def _in_some_images(
    boxes: Bool[Tensor, " m"], images: Int[Tensor, " m"], count: int, generator: torch.Generator
) -> Bool[Tensor, " m"]:
    """Which boxes lie in one of `count` images, drawn among the images that hold one of `boxes`."""
    holding = images[boxes].unique()
    return torch.isin(images, holding[torch.randperm(len(holding), generator=generator)[:count]])


@torch.no_grad()
def pool_candidates(
    student: DetectorAdapter,
    teacher: DetectorAdapter,
    data: DetectionSet,
    candidates: Candidates,
    pairs: Sequence[tuple[int, int]],
    batch: int,
) -> tuple[Float[Tensor, "l i s"], Float[Tensor, "l i t"]]:
    """Every candidate pooled on every common level, as the student and as the teacher sees it; kept on the CPU."""
    device = device_of(student.model)
    strides = [student.strides[first] for first, _ in pairs]
    pooled: tuple[list[Tensor], list[Tensor]] = ([], [])
    with evaluating(student.model), evaluating(teacher.model):
        for indices in candidates.images.unique().split(batch):
            pictures, targets = [], []
            for index in indices.tolist():
                of_image = candidates.images == index
                pictures.append(data.image(index).to(device).float() / 255)
                target = {
                    "boxes": candidates.boxes[of_image].to(device),
                    "labels": candidates.labels[of_image].to(device),
                }
                targets.append(target)
            view = student.view(pictures, targets)
            boxes = [target["boxes"] for target in view.targets]
            if [len(each) for each in boxes] != [len(target["boxes"]) for target in targets]:
                raise DistilError(
                    f"the view of {type(student).__name__} has other boxes than it was given. A view must keep the "
                    "boxes of its targets, in their order."
                )
            first, second = student.pyramid(view), teacher.pyramid(teacher.restyle(view))
            maps = [first[pair[0]] for pair in pairs], [second[pair[1]] for pair in pairs]
            for kept, features in zip(pooled, pool_pair(*maps, strides, boxes), strict=True):
                kept.append(features.cpu())
    return torch.cat(pooled[0], dim=1), torch.cat(pooled[1], dim=1)


def _choose(
    student: Float[Tensor, "i s"], teacher: Float[Tensor, "i t"], settings: PrototypeSettings
) -> Int[Tensor, " p"]:
    """Filter by density, then select. Returns positions on the CPU."""
    dense = dense_enough(student, teacher, quantile=settings.quantile, bandwidth=settings.bandwidth)
    options = {"alpha": settings.alpha, "unique": settings.unique, "orthogonal": settings.orthogonal}
    return select_prototypes(student, teacher, settings.count, candidates=dense, **options).cpu()
