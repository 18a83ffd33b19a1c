"""The adapter of torchvision's RetinaNet."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.detector.adapters import torchvision
from distil.detector.adapters.one_stage import (
    OneStageAdapter,
    clipped,
    head_outputs,
    nearest,
    positives_of,
    recorded_matches,
    student_trace,
    teacher_trace,
)
from distil.types import Trace, View

CLOSE = 1e-2
"""Pixels within which two anchors are the same."""


class RetinaNetAdapter(OneStageAdapter):
    """RetinaNet: what `distil.detector.adapters.DetectorAdapter` describes.

    Instances are the anchors that the model's matcher gives an object, clipped to the image; of more than 128 in an
    image 128 at random. A teacher takes the same anchors if it has them, or else of its own the one of highest IoU with
    each instance. torchvision's column 0, the background that is never trained, is left out of all logits. Its losses
    are classification and bbox_regression, means over images.

    Raises: DistilError when the model's pyramid is not torchvision's.
    """

    def trace(self, view: View, *, regions: Trace | None = None) -> Trace:
        view = self.restyle(view)
        if regions is not None:
            with torch.no_grad(), torchvision.evaluating(self.model):
                maps, outputs, anchors = head_outputs(self.model, view)
                positions = self._positions(anchors[0], view, regions)
                return teacher_trace(maps, self.strides, outputs["cls_logits"], positions, regions)
        torchvision.check_training(self.model)
        maps, outputs, anchors = head_outputs(self.model, view)
        with recorded_matches(self.model.head) as matches:
            losses = self.model.compute_loss(list(view.targets), outputs, anchors)
        image, position, _ = positives_of(matches)
        positives = torch.bincount(image, minlength=len(view)).clamp_min(1).sum().float()
        kept = torchvision.some_instances(image, view)
        image, position = image[kept], position[kept]
        boxes = clipped(anchors[0][position], image, view)
        counts = dict.fromkeys(losses, view.images.new_tensor(len(view), dtype=torch.float32))
        return student_trace(
            maps, self.strides, outputs, view, matches, (image, position), boxes, losses, counts, positives
        )

    def _positions(self, anchors: Float[Tensor, "a 4"], view: View, regions: Trace) -> list[Int[Tensor, " _m"]]:
        if regions.positions is not None:
            image, boxes = torchvision.image_of(regions.boxes), torch.cat(regions.boxes)
            chosen = anchors[torch.cat(regions.positions).clamp_max(len(anchors) - 1)]
            if bool(((clipped(chosen, image, view) - boxes).abs() < CLOSE).all()):
                return list(regions.positions)
        return [
            nearest(boxes, clipped(anchors, torch.full_like(anchors[:, 0], index, dtype=torch.int64), view))
            for index, boxes in enumerate(regions.boxes)
        ]
