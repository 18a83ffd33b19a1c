"""The adapters of torchvision's RetinaNet and FCOS."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.detector import views
from distil.types import Trace, View

REACH = 12
"""A point of FCOS of size a answers for objects whose longer side is about 8 a to 16 a: for a square of 12 a."""
CHUNK = 32
"""Instances compared with all anchors at a time."""
CLOSE = 1e-2
"""Pixels within which two anchors are the same."""


class RetinaNetAdapter:
    """RetinaNet: what `distil.detector.adapters.DetectorAdapter` describes.

    Instances are the anchors that the model's matcher gives an object, clipped to the image; of more than 128 in an
    image 128 at random. A teacher takes the same anchors if it has them, or else of its own the one of highest IoU with
    each instance. torchvision's column 0, the background that is never trained, is left out of all logits. Its losses
    are classification and bbox_regression, means over images.

    Raises: DistilError when the model's pyramid is not torchvision's.
    """

    activation: Literal["sigmoid"] = "sigmoid"

    def __init__(self, model: Any):
        self.model = model
        self.classes: int = model.head.classification_head.num_classes - 1
        self.strides, self.channels, _ = views.probe(model)

    def view(
        self,
        images: Sequence[Float[Tensor, "3 _h _w"]],
        targets: Sequence[dict[str, Tensor]],
        *,
        seeds: Sequence[int] | None = None,
    ) -> View:
        return views.make_view(self.model, images, targets, seeds, classes=self.classes)

    def restyle(self, view: View) -> View:
        return views.restyle(view, self.model)

    def pyramid(self, view: View) -> tuple[Tensor, ...]:
        return views.pyramid(self.model, view)

    def predict(self, images: Sequence[Float[Tensor, "3 _h _w"]]) -> list[dict[str, Tensor]]:
        return views.predict(self.model, images)

    def trace(self, view: View, *, regions: Trace | None = None) -> Trace:
        view = self.restyle(view)
        if regions is not None:
            with torch.no_grad(), views.evaluating(self.model):
                maps, outputs, anchors = _head(self.model, view)
                positions = self._positions(anchors[0], view, regions)
                return _taught(maps, self.strides, outputs["cls_logits"], positions, regions)
        views.check_training(self.model)
        maps, outputs, anchors = _head(self.model, view)
        with _recorded_matches(self.model.head) as matches:
            losses = self.model.compute_loss(list(view.targets), outputs, anchors)
        image, position, _ = _positives(matches)
        positives = torch.bincount(image, minlength=len(view)).clamp_min(1).sum().float()
        kept = views.some_instances(image, view)
        image, position = image[kept], position[kept]
        boxes = _clipped(anchors[0][position], image, view)
        counts = dict.fromkeys(losses, view.images.new_tensor(len(view), dtype=torch.float32))
        return _student(maps, self.strides, outputs, view, matches, (image, position), boxes, losses, counts, positives)

    def _positions(self, anchors: Float[Tensor, "a 4"], view: View, regions: Trace) -> list[Int[Tensor, " _m"]]:
        if regions.positions is not None:
            image, boxes = views.image_of(regions.boxes), torch.cat(regions.boxes)
            own = anchors[torch.cat(regions.positions).clamp_max(len(anchors) - 1)]
            if bool(((_clipped(own, image, view) - boxes).abs() < CLOSE).all()):
                return list(regions.positions)
        return [
            _nearest(boxes, _clipped(anchors, torch.full_like(anchors[:, 0], index, dtype=torch.int64), view))
            for index, boxes in enumerate(regions.boxes)
        ]


class FCOSAdapter:
    """FCOS: what `distil.detector.adapters.DetectorAdapter` describes.

    Instances are the points that FCOS gives an object; of more than 128 in an image 128 at random. The box of a point
    is the object's. A teacher takes the same points if it has them, or else for each instance one of its own: that
    whose square of 12 times the point's size, the middle of what the point answers for, has the highest IoU with the
    instance (ours). torchvision's column 0, the background that is never trained, is left out of all logits. Its
    losses are classification, bbox_regression and bbox_ctrness, means over the batch's positive points, of which 1 is
    counted where there are none.

    Raises: DistilError when the model's pyramid is not torchvision's.
    """

    activation: Literal["sigmoid"] = "sigmoid"

    def __init__(self, model: Any):
        self.model = model
        self.classes: int = model.head.classification_head.num_classes - 1
        self.strides, self.channels, _ = views.probe(model)

    def view(
        self,
        images: Sequence[Float[Tensor, "3 _h _w"]],
        targets: Sequence[dict[str, Tensor]],
        *,
        seeds: Sequence[int] | None = None,
    ) -> View:
        return views.make_view(self.model, images, targets, seeds, classes=self.classes)

    def restyle(self, view: View) -> View:
        return views.restyle(view, self.model)

    def pyramid(self, view: View) -> tuple[Tensor, ...]:
        return views.pyramid(self.model, view)

    def predict(self, images: Sequence[Float[Tensor, "3 _h _w"]]) -> list[dict[str, Tensor]]:
        return views.predict(self.model, images)

    def trace(self, view: View, *, regions: Trace | None = None) -> Trace:
        view = self.restyle(view)
        if regions is not None:
            with torch.no_grad(), views.evaluating(self.model):
                maps, outputs, anchors = _head(self.model, view)
                positions = self._positions(anchors[0], regions)
                return _taught(maps, self.strides, outputs["cls_logits"], positions, regions)
        views.check_training(self.model)
        maps, outputs, anchors = _head(self.model, view)
        cells = [x.shape[2] * x.shape[3] for x in maps]
        with _recorded_matches(self.model.head) as matches:
            losses = self.model.compute_loss(list(view.targets), outputs, anchors, cells)
        image, position, target = _positives(matches)
        counts = dict.fromkeys(losses, view.images.new_tensor(max(1, len(image)), dtype=torch.float32))
        boxes = _of_targets("boxes", image, target, view)
        positives = _centerness(anchors[0][position], boxes).sum()
        kept = views.some_instances(image, view)
        image, position, boxes = image[kept], position[kept], boxes[kept]
        return _student(maps, self.strides, outputs, view, matches, (image, position), boxes, losses, counts, positives)

    def _positions(self, anchors: Float[Tensor, "a 4"], regions: Trace) -> list[Int[Tensor, " _m"]]:
        same = regions.dense is not None and regions.dense.shape[1] == len(anchors) and regions.strides == self.strides
        if same and regions.positions is not None:
            return list(regions.positions)
        centres, sizes = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        squares = torch.cat([centres - REACH / 2 * sizes, centres + REACH / 2 * sizes], dim=1)
        return [_nearest(boxes, squares) for boxes in regions.boxes]


def _head(model: Any, view: View) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
    """Pyramid, the head's outputs at every anchor, and the anchors of each image, level by level."""
    from torchvision.models.detection.image_list import ImageList

    maps = list(views.feature_maps(model, view.images).values())
    outputs = {name: views.widened(x) for name, x in model.head(maps).items()}
    return maps, outputs, model.anchor_generator(ImageList(view.images, list(view.sizes)), maps)


@contextlib.contextmanager
def _recorded_matches(head: Any) -> Iterator[list[Int[Tensor, " a"]]]:
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


def _positives(matches: list[Int[Tensor, " a"]]) -> tuple[Int[Tensor, " i"], Int[Tensor, " i"], Int[Tensor, " i"]]:
    """Image, anchor and object of every anchor that has an object."""
    matched = torch.stack(matches)
    image, position = (matched >= 0).nonzero(as_tuple=True)
    return image, position, matched[image, position]


def _of_targets(name: str, image: Int[Tensor, " i"], target: Int[Tensor, " i"], view: View) -> Tensor:
    """Rows of the targets' tensors of this name: of each image the row of an object."""
    starts = torch.tensor([0, *(len(own[name]) for own in view.targets)], device=image.device).cumsum(0)
    return torch.cat([own[name] for own in view.targets])[starts[image] + target]


def _student(
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
        labels=_of_targets("labels", image, torch.stack(matches)[image, position], view),
        logits=dense[image, position],
        activation="sigmoid",
        positions=position.split(many),
        dense=dense,
        positives=positives,
        losses=losses,
        counts=counts,
    )


def _taught(
    maps: list[Tensor], strides: tuple[int, ...], logits: Tensor, positions: list[Tensor], regions: Trace
) -> Trace:
    dense = logits[:, :, 1:]
    return Trace(
        pyramid=tuple(maps),
        strides=strides,
        boxes=regions.boxes,
        labels=regions.labels,
        logits=dense[views.image_of(positions), torch.cat(positions)],
        activation="sigmoid",
        positions=tuple(positions),
        dense=dense,
    )


def _centerness(points: Float[Tensor, "i 4"], boxes: Float[Tensor, "i 4"]) -> Float[Tensor, " i"]:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of the middles of `points`, which lie in their boxes.

    l, t, r, b: distances to the box's sides. Source: FCOS (Tian et al. 2019)."""
    middles = (points[:, :2] + points[:, 2:]) / 2
    before, after = middles - boxes[:, :2], boxes[:, 2:] - middles
    shares = torch.minimum(before, after).clamp_min(0) / torch.maximum(before, after).clamp_min(1e-6)
    return shares.prod(1).sqrt()


def _clipped(boxes: Float[Tensor, "i 4"], image: Int[Tensor, " i"], view: View) -> Float[Tensor, "i 4"]:
    """Boxes cut off at the borders of the image that they are on, without its padding."""
    limits = torch.tensor([(w, h, w, h) for h, w in view.sizes], dtype=boxes.dtype, device=boxes.device)
    return boxes.clamp_min(0).minimum(limits[image])


def _nearest(boxes: Float[Tensor, "m 4"], anchors: Float[Tensor, "a 4"]) -> Int[Tensor, " m"]:
    """For each box the anchor of highest IoU with it."""
    from torchvision.ops import box_iou

    return torch.cat([box_iou(part.to(anchors.dtype), anchors).argmax(1) for part in boxes.split(CHUNK)])
