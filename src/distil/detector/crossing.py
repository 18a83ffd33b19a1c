"""CrossKD: what the teacher's head makes of the student's features, taught by what it makes of its own."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from distil.detector.maps import Levels, aligning, full_precision, moments, paired_maps, shared
from distil.errors import DistilError
from distil.types import Trace, View

TINY = 1e-12


class CrossKD(nn.Module):
    """Cross-head distillation of one-stage detectors, over all common levels.

    In the class tower and in the box tower of the head, the student's features before the activation that the last
    block follows are given the teacher's mean and standard deviation of every channel, and go on through the rest of
    the teacher's tower. The predictions that result, c^ and b^, learn from the teacher's own, c and b, with p the
    teacher's class probability: class: sum |sigmoid(c^) - p| (BCE(c^, p) - BCE(c, p)) / sum_a max_k p; box: sum_a
    max_k p_a mean smoothL1(b^_a, b_a) / sum_a max_k p_a, a over anchors, k over classes. A 1x1 convolution goes
    between where the towers' channels differ. The towers run once more for this loss. Student and teacher may differ
    in classes and in anchors.

    Raises: DistilError when a detector has no such towers (two-stage detectors).
    Source: CrossKD (Wang et al. 2024) and its released code; quality focal loss with exponent 1; one block of the
    teacher's head reused. Differs: the divisor is the teacher's confidence (the paper: its number of positives);
    smooth L1 on the coded boxes (of FCOS before its last ReLU) in place of GIoU; the centre-ness of FCOS is not
    taught; both weights 1.
    """

    def __init__(
        self, student: Any, teacher: Any, levels: Levels, *, class_weight: float = 1.0, box_weight: float = 1.0
    ) -> None:
        super().__init__()
        for adapter in (student, teacher):
            if not _has_towers(adapter.model):
                raise DistilError(
                    "crosskd sends the student's features through the teacher's head and needs a one-stage detector "
                    f"(retinanet, fcos) on both sides; one side is a {type(adapter.model).__name__}. Leave crosskd "
                    "out, or use gkd, pkd or fgd"
                )
        self.levels, self.class_weight, self.box_weight = levels, class_weight, box_weight
        self.models = (student.model, teacher.model)
        """In a tuple, so that neither becomes a part of this module: their weights are not its weights."""
        self.class_aligning = aligning(_width(student.model, "class"), _width(teacher.model, "class"), levels)
        self.box_aligning = aligning(_width(student.model, "box"), _width(teacher.model, "box"), levels)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        gaps, boxes, confidences = [], [], []
        for level, (own, aim) in enumerate(paired_maps(student, teacher, self.levels)):
            crossed, aims = self._predictions("class", self.class_aligning[level], own, aim)
            crossed_boxes, aim_boxes = self._predictions("box", self.box_aligning[level], own, aim)
            anchors = aim_boxes.shape[1] // 4
            with full_precision(own):
                confidence = aims.sigmoid().unflatten(1, (anchors, -1)).amax(2)
                gaps.append(_quality_focal(crossed, aims).sum())
                distance = smooth_l1_loss(crossed_boxes, aim_boxes, reduction="none").unflatten(1, (anchors, 4)).mean(2)
                boxes.append((confidence * distance).sum())
                confidences.append(confidence.sum())
        divisor = shared(torch.stack(confidences).sum(), TINY)
        return {
            "crosskd.class": self.class_weight * torch.stack(gaps).sum() / divisor,
            "crosskd.box": self.box_weight * torch.stack(boxes).sum() / divisor,
        }

    def _predictions(self, kind: str, align: nn.Module, own: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        """The rest of the teacher's head on the student's features and on its own: (n, anchors * columns, h, w)."""
        student_head, teacher_head = (_head(model, kind) for model in self.models)
        own_blocks, _ = _cut(student_head)
        aim_blocks, rest = _cut(teacher_head)
        predictor = teacher_head.cls_logits if kind == "class" else teacher_head.bbox_reg
        own = align(_run(own_blocks, own))
        with torch.no_grad():
            aim = _run(aim_blocks, aim)
        with full_precision(own):
            own, aim = own.float(), aim.float()
            mean, deviation = moments(own)
            aim_mean, aim_deviation = moments(aim)
            own = (own - mean) / deviation * aim_deviation + aim_mean
        crossed = predictor(_run(rest, own))
        with torch.no_grad():
            aim = predictor(_run(rest, aim))
        return crossed.float(), aim.float()


def _has_towers(model: Any) -> bool:
    return all(isinstance(getattr(_head(model, kind), "conv", None), nn.Sequential) for kind in ("class", "box"))


def _head(model: Any, kind: str) -> Any:
    return getattr(getattr(model, "head", None), "classification_head" if kind == "class" else "regression_head", None)


def _cut(head: Any) -> tuple[list[nn.Module], list[nn.Module]]:
    """A tower before, and from, the activation that its last block follows (of one block: its only activation)."""
    layers = _layers(head.conv)
    activations = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    at = activations[-2] if len(activations) > 1 else len(layers) - 1
    return layers[:at], layers[at:]


def _layers(module: nn.Module) -> list[nn.Module]:
    if not isinstance(module, nn.Sequential):
        return [module]
    return [layer for part in module for layer in _layers(part)]


def _run(layers: list[nn.Module], maps: Tensor) -> Tensor:
    for layer in layers:
        maps = layer(maps)
    return maps


def _width(model: Any, kind: str) -> int:
    """Channels of the features at the cut."""
    return next(layer.out_channels for layer in _cut(_head(model, kind))[0][::-1] if isinstance(layer, nn.Conv2d))


def _quality_focal(logits: Float[Tensor, "n c h w"], aims: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """|sigmoid(x) - p| (BCE(x, p) - BCE(y, p)) with p = sigmoid(y): 0 where x = y."""
    p = aims.sigmoid()
    own = binary_cross_entropy_with_logits(logits, p, reduction="none")
    floor = binary_cross_entropy_with_logits(aims, p, reduction="none")
    return (logits.sigmoid() - p).abs() * (own - floor)
