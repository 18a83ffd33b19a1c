"""What the adapters of torchvision's RetinaNet and FCOS share: heads at every anchor, matches, traces."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.detector.adapters import torchvision
from distil.types import Trace, View

CHUNK = 32
"""Instances compared with all anchors at a time."""


class OneStageAdapter(torchvision.TorchvisionAdapter):
    """A detector with class logits at every anchor; torchvision's column 0, never trained, is left out of them.

    Raises: DistilError when the model's pyramid is not torchvision's.
    """

    activation: Literal["sigmoid"] = "sigmoid"

    def __init__(self, model: Any):
        self.model = model
        self.classes: int = model.head.classification_head.num_classes - 1
        self.strides, self.channels, _ = torchvision.probe(model)


def head_outputs(model: Any, view: View) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
    """Pyramid, the head's outputs at every anchor, and the anchors of each image, level by level."""
    from torchvision.models.detection.image_list import ImageList

    maps = list(torchvision.feature_maps(model, view.images).values())
    outputs = {name: torchvision.widened(x) for name, x in model.head(maps).items()}
    return maps, outputs, model.anchor_generator(ImageList(view.images, list(view.sizes)), maps)


@contextlib.contextmanager
def recorded_matches(head: Any) -> Iterator[list[Int[Tensor, " a"]]]:
    """While active, what the model matched each image's anchors to, when it computes its losses, is kept in a list."""
    compute_loss, matches = head.compute_loss, []

    def recording(targets: Any, outputs: Any, anchors: Any, matched: list[Tensor]) -> Any:
        matches.extend(matched)
        return compute_loss(targets, outputs, anchors, matched)

    head.compute_loss = recording
    try:
        yield matches
    finally:
        del head.compute_loss


def positives_of(matches: list[Int[Tensor, " a"]]) -> tuple[Int[Tensor, " i"], Int[Tensor, " i"], Int[Tensor, " i"]]:
    """Image, anchor and object of every anchor that has an object."""
    matched = torch.stack(matches)
    image, position = (matched >= 0).nonzero(as_tuple=True)
    return image, position, matched[image, position]


def of_targets(name: str, image: Int[Tensor, " i"], target: Int[Tensor, " i"], view: View) -> Tensor:
    """Rows of the targets' tensors of this name: of each image the row of an object."""
    starts = torch.tensor([0, *(len(item[name]) for item in view.targets)], device=image.device).cumsum(0)
    return torch.cat([item[name] for item in view.targets])[starts[image] + target]


def student_trace(
    maps: list[Tensor],
    strides: tuple[int, ...],
    outputs: dict[str, Tensor],
    view: View,
    matches: list[Tensor],
    where: tuple[Tensor, Tensor],
    boxes: Tensor,
    losses: dict[str, Tensor],
    counts: dict[str, Tensor],
    positives: Float[Tensor, ""],
) -> Trace:
    image, position = where
    dense = outputs["cls_logits"][:, :, 1:]
    many = torch.bincount(image, minlength=len(view)).tolist()
    return Trace(
        pyramid=tuple(maps),
        strides=strides,
        boxes=boxes.detach().split(many),
        labels=of_targets("labels", image, torch.stack(matches)[image, position], view),
        logits=dense[image, position],
        activation="sigmoid",
        positions=position.split(many),
        dense=dense,
        positives=positives,
        losses=losses,
        counts=counts,
    )


def teacher_trace(
    maps: list[Tensor], strides: tuple[int, ...], logits: Tensor, positions: list[Tensor], regions: Trace
) -> Trace:
    dense = logits[:, :, 1:]
    return Trace(
        pyramid=tuple(maps),
        strides=strides,
        boxes=regions.boxes,
        labels=regions.labels,
        logits=dense[torchvision.image_of(positions), torch.cat(positions)],
        activation="sigmoid",
        positions=tuple(positions),
        dense=dense,
    )


def clipped(boxes: Float[Tensor, "i 4"], image: Int[Tensor, " i"], view: View) -> Float[Tensor, "i 4"]:
    """Boxes cut off at the borders of the image that they are on, without its padding."""
    limits = torch.tensor([(w, h, w, h) for h, w in view.sizes], dtype=boxes.dtype, device=boxes.device)
    return boxes.clamp_min(0).minimum(limits[image])


def nearest(boxes: Float[Tensor, "m 4"], anchors: Float[Tensor, "a 4"]) -> Int[Tensor, " m"]:
    """For each box the anchor of highest IoU with it."""
    from torchvision.ops import box_iou

    return torch.cat([box_iou(part.to(anchors.dtype), anchors).argmax(1) for part in boxes.split(CHUNK)])
