"""The adapter of torchvision's FCOS."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.detector.adapters import torchvision
from distil.detector.adapters.one_stage import (
    OneStageAdapter,
    head_outputs,
    nearest,
    of_targets,
    positives_of,
    recorded_matches,
    student_trace,
    teacher_trace,
)
from distil.types import Trace, View

REACH = 12
"""A point of FCOS of size a answers for objects whose longer side is about 8 a to 16 a: for a square of 12 a."""


class FCOSAdapter(OneStageAdapter):
    """FCOS: what `distil.detector.adapters.DetectorAdapter` describes.

    Instances are the points that FCOS gives an object; of more than 128 in an image 128 at random. The box of a point
    is the object's. A teacher takes the same points if it has them, or else for each instance one of its own: that
    whose square of 12 times the point's size, the middle of what the point answers for, has the highest IoU with the
    instance (ours). torchvision's column 0, the background that is never trained, is left out of all logits. Its
    losses are classification, bbox_regression and bbox_ctrness, means over the batch's positive points, of which 1 is
    counted where there are none.

    Raises: DistilError when the model's pyramid is not torchvision's.
    """

    def trace(self, view: View, *, regions: Trace | None = None) -> Trace:
        view = self.restyle(view)
        if regions is not None:
            with torch.no_grad(), torchvision.evaluating(self.model):
                maps, outputs, anchors = head_outputs(self.model, view)
                positions = self._positions(anchors[0], regions)
                return teacher_trace(maps, self.strides, outputs["cls_logits"], positions, regions)
        torchvision.check_training(self.model)
        maps, outputs, anchors = head_outputs(self.model, view)
        cells = [x.shape[2] * x.shape[3] for x in maps]
        with recorded_matches(self.model.head) as matches:
            losses = self.model.compute_loss(list(view.targets), outputs, anchors, cells)
        image, position, target = positives_of(matches)
        counts = dict.fromkeys(losses, view.images.new_tensor(max(1, len(image)), dtype=torch.float32))
        boxes = of_targets("boxes", image, target, view)
        positives = _centerness(anchors[0][position], boxes).sum()
        kept = torchvision.some_instances(image, view)
        image, position, boxes = image[kept], position[kept], boxes[kept]
        return student_trace(
            maps, self.strides, outputs, view, matches, (image, position), boxes, losses, counts, positives
        )

    def _positions(self, anchors: Float[Tensor, "a 4"], regions: Trace) -> list[Int[Tensor, " _m"]]:
        same = regions.dense is not None and regions.dense.shape[1] == len(anchors) and regions.strides == self.strides
        if same and regions.positions is not None:
            return list(regions.positions)
        centers, sizes = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        squares = torch.cat([centers - REACH / 2 * sizes, centers + REACH / 2 * sizes], dim=1)
        return [nearest(boxes, squares) for boxes in regions.boxes]


def _centerness(points: Float[Tensor, "i 4"], boxes: Float[Tensor, "i 4"]) -> Float[Tensor, " i"]:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of the middles of `points`, which lie in their boxes.

    l, t, r, b: distances to the box's sides. Source: FCOS (Tian et al. 2019)."""
    middles = (points[:, :2] + points[:, 2:]) / 2
    before, after = middles - boxes[:, :2], boxes[:, 2:] - middles
    shares = torch.minimum(before, after).clamp_min(0) / torch.maximum(before, after).clamp_min(1e-6)
    return shares.prod(1).sqrt()
