"""CrossKD: what the teacher's head makes of the student's features, taught by what it makes of its own."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from distil.detector.adapters.protocol import DetectorAdapter, common_levels
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.distributed import moments, shared
from distil.detector.losses.maps import (
    Form,
    Kind,
    aligning,
    checked_form,
    checked_weights,
    full_precision,
    kind_of,
    paired_maps,
)
from distil.errors import DistilError
from distil.types import Trace, View

TINY = 1e-12
LEAST_OVERLAP = 1e-6
"""IoUs below count as this, so that their logarithm is finite."""


OURS = (1.0, 1.0, 1)
"""Weights of classes and boxes, and how many blocks are reused, in form "distil"."""
PUBLISHED: dict[Kind, tuple[float, float, int]] = {"retinanet": (1.0, 1.0, 1), "fcos": (0.4, 0.75, 2)}
"""These three by the teacher's kind. Source: configs/crosskd of CrossKD's code, whose heads have four blocks: that of
RetinaNet shares all but three of them, that of FCOS all but two."""


class CrossKD(DistillationLoss):
    """Cross-head distillation of one-stage detectors, over all common levels.

    In the class tower and in the box tower of the head, the student's features before the activation that the last
    `reused` blocks follow are given the teacher's mean and standard deviation of every channel, and continue through
    the rest of the teacher's tower. The predictions that result, c^ and b^, learn from the teacher's own, c and b, with
    p the teacher's class probability; a over anchors of all levels, k over classes. A 1x1 convolution goes between
    where the towers' channels differ. The towers run once more for this loss. Student and teacher may differ in classes
    and in anchors.

    - form "distil": class: sum |sigmoid(c^) - p| (BCE(c^, p) - BCE(c, p)) / sum_a max_k p; box: sum_a max_k p_a mean
      smoothL1(b^_a, b_a) / sum_a max_k p_a, of the coded boxes (of FCOS before its last ReLU)
    - form "published": class: sum |sigmoid(c^) - p| BCE(c^, p) / N; box: sum_a max_k p_a (1 - GIoU(b^_a, b_a)) / N, of
      FCOS with -log IoU in place of 1 - GIoU; N: the student's `Trace.positives` (without them its instances), at
      least 1

    Raises: DistilError when a detector has no such towers (two-stage detectors).
    Source: CrossKD (Wang et al. 2024) and its released code; quality focal loss with exponent 1.
    Differs: anchors that the matcher ignores count as well (the code leaves them out, for RetinaNet); the student's and
    the teacher's moments are of the batch of all processes; FCOS without positive points divides by 1 (the code by
    1e-6). In form "distil" also: the entropy of p is taken away, so that a student that agrees with its teacher has no
    gradient; the divisor is the teacher's confidence, which needs no matching; smooth L1 of codes serves RetinaNet and
    FCOS alike; one block is reused and both weights are 1 for both. The published form has 2.6 times the gradient
    of the class term (RetinaNet on scenes: 2.4 by the divisor, which makes 26 on images of 800 pixels, the rest by the
    entropy), and 26.6 times that of the box term (benchmarks/loss_forms.py).
    """

    name = "crosskd"

    def __init__(
        self,
        weight: float = 1.0,
        *,
        class_weight: float | None = None,
        box_weight: float | None = None,
        reused: int | None = None,
        form: Form = "distil",
    ) -> None:
        """class_weight, box_weight: of the two terms; reused: blocks. None: those of the form, and of the teacher's
        kind."""
        super().__init__(weight)
        self.given = (class_weight, box_weight, reused)
        self.form: Form = checked_form(form)
        checked_weights(self.name, class_weight=class_weight, box_weight=box_weight, reused=reused)

    def facts(self) -> dict[str, Any]:
        names = ("class_weight", "box_weight", "reused")
        return {**super().facts(), **dict(zip(names, self.given, strict=True)), "form": self.form}

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        for adapter in (student, teacher):
            if not _has_towers(adapter.model):
                raise DistilError(
                    "crosskd sends the student's features through the teacher's head and needs a one-stage detector "
                    f"(retinanet, fcos) on both sides; one side is a {type(adapter.model).__name__}. Leave crosskd "
                    "out, or use gkd, pkd or fgd"
                )
        levels = self.levels = common_levels(student.strides, teacher.strides)
        values = PUBLISHED.get(kind_of(teacher), OURS) if self.form == "published" else OURS
        chosen = [value if given is None else given for given, value in zip(self.given, values, strict=True)]
        self.class_weight, self.box_weight, reused = chosen[0], chosen[1], int(chosen[2])
        self.reused = reused
        self.models = (student.model, teacher.model)
        """In a tuple, so that neither becomes a part of this module: their weights are not its weights."""
        widths = [[_width(model, kind, reused) for model in self.models] for kind in ("class", "box")]
        self.class_aligning, self.box_aligning = (
            aligning(student_width, teacher_width, levels) for student_width, teacher_width in widths
        )

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        published = self.form == "published"
        gaps, boxes, confidences = [], [], []
        for level, (student_map, teacher_map) in enumerate(paired_maps(student, teacher, self.levels)):
            crossed_logits, teacher_logits = self.predictions(
                "class", self.class_aligning[level], student_map, teacher_map
            )
            crossed_boxes, teacher_boxes = self.predictions("box", self.box_aligning[level], student_map, teacher_map)
            anchors = teacher_boxes.shape[1] // 4
            with full_precision(student_map):
                confidence = teacher_logits.sigmoid().unflatten(1, (anchors, -1)).amax(2)
                gaps.append(_quality_focal(crossed_logits, teacher_logits, floor=not published).sum())
                crossed_codes, teacher_codes = (
                    x.unflatten(1, (anchors, 4)).movedim(2, -1) for x in (crossed_boxes, teacher_boxes)
                )
                distance = (
                    self._overlap_gap(crossed_codes, teacher_codes)
                    if published
                    else _smooth_gap(crossed_codes, teacher_codes)
                )
                boxes.append((confidence * distance).sum())
                confidences.append(confidence.sum())
        divisor = _objects(student) if published else shared(torch.stack(confidences).sum(), TINY)
        return {
            "crosskd.class": self.class_weight * torch.stack(gaps).sum() / divisor,
            "crosskd.box": self.box_weight * torch.stack(boxes).sum() / divisor,
        }

    def _overlap_gap(self, codes: Float[Tensor, "*n 4"], teacher_codes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
        head = _head(self.models[1], "box")
        if hasattr(head, "bbox_ctrness"):
            overlap, _ = _overlaps(_around_point(codes), _around_point(teacher_codes))
            return -overlap.clamp_min(LEAST_OVERLAP).log()
        overlap, empty = _overlaps(
            _on_unit_square(codes, head.box_coder), _on_unit_square(teacher_codes, head.box_coder)
        )
        return 1 - overlap + empty

    def predictions(
        self, kind: str, align: nn.Module, student_map: Tensor, teacher_map: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The rest of the teacher's head on the student's features and on the teacher's: (n, anchors * columns, h, w).

        kind: "class" or "box". align: from the student's channels at the cut to the teacher's.
        """
        student_head, teacher_head = (_head(model, kind) for model in self.models)
        student_blocks, _ = _cut(student_head, self.reused)
        teacher_blocks, rest = _cut(teacher_head, self.reused)
        predictor = teacher_head.cls_logits if kind == "class" else teacher_head.bbox_reg
        student_map = align(_run(student_blocks, student_map))
        with torch.no_grad():
            teacher_map = _run(teacher_blocks, teacher_map)
        with full_precision(student_map):
            student_map, teacher_map = student_map.float(), teacher_map.float()
            mean, deviation = moments(student_map)
            teacher_mean, teacher_deviation = moments(teacher_map)
            student_map = (student_map - mean) / deviation * teacher_deviation + teacher_mean
        crossed = predictor(_run(rest, student_map))
        with torch.no_grad():
            teacher_map = predictor(_run(rest, teacher_map))
        return crossed.float(), teacher_map.float()


def _has_towers(model: Any) -> bool:
    return all(isinstance(getattr(_head(model, kind), "conv", None), nn.Sequential) for kind in ("class", "box"))


def _head(model: Any, kind: str) -> Any:
    return getattr(getattr(model, "head", None), "classification_head" if kind == "class" else "regression_head", None)


def _cut(head: Any, reused: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """A tower before, and from, the activation that its last `reused` blocks follow (of fewer blocks: its first)."""
    layers = _layers(head.conv)
    activations = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    at = activations[max(0, len(activations) - 1 - reused)]
    return layers[:at], layers[at:]


def _layers(module: nn.Module) -> list[nn.Module]:
    if not isinstance(module, nn.Sequential):
        return [module]
    return [layer for part in module for layer in _layers(part)]


def _run(layers: list[nn.Module], maps: Tensor) -> Tensor:
    for layer in layers:
        maps = layer(maps)
    return maps


def _width(model: Any, kind: str, reused: int) -> int:
    """Channels of the features at the cut."""
    before = _cut(_head(model, kind), reused)[0]
    return next(layer.out_channels for layer in before[::-1] if isinstance(layer, nn.Conv2d))


def _quality_focal(
    logits: Float[Tensor, "n c h w"], wanted: Float[Tensor, "n c h w"], *, floor: bool
) -> Float[Tensor, "n c h w"]:
    """|sigmoid(x) - p| BCE(x, p) with p = sigmoid(y); with `floor` BCE(y, p) is taken from BCE(x, p), 0 where x = y."""
    p = wanted.sigmoid()
    losses = binary_cross_entropy_with_logits(logits, p, reduction="none")
    if floor:
        losses = losses - binary_cross_entropy_with_logits(wanted, p, reduction="none")
    return (logits.sigmoid() - p).abs() * losses


def _objects(student: Trace) -> Float[Tensor, ""]:
    """What the released code divides sums over anchors by, shared by all processes."""
    if student.positives is not None:
        return shared(student.positives)
    return shared(student.logits.new_full((), float(len(student.labels)), dtype=torch.float32))


def _smooth_gap(codes: Float[Tensor, "*n 4"], teacher_codes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    return smooth_l1_loss(codes, teacher_codes, reduction="none").mean(-1)


def _on_unit_square(codes: Float[Tensor, "*n 4"], coder: Any) -> Float[Tensor, "*n 4"]:
    """Boxes (xyxy) that RetinaNet's codes make of a unit square around 0.

    Overlaps of two boxes that one anchor codes do not depend on where it is and how large: no anchors are needed.
    """
    x, y, w, h = (code / weight for code, weight in zip(codes.unbind(-1), coder.weights, strict=True))
    half_w, half_h = (side.clamp_max(coder.bbox_xform_clip).exp() / 2 for side in (w, h))
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)


def _around_point(codes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Boxes (xyxy) that FCOS's distances to left, top, right and bottom make around 0."""
    distances = codes.relu()
    return torch.cat([-distances[..., :2], distances[..., 2:]], -1)


def _overlaps(
    boxes: Float[Tensor, "*n 4"], others: Float[Tensor, "*n 4"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """IoU of boxes with the same number of others, and what neither fills of the smallest box around both, as a share.

    The first less the second is the generalized IoU (Rezatofighi et al. 2019). Where both have no area, both are 0.
    """
    pairs = list(zip(boxes.split(2, -1), others.split(2, -1), strict=True))
    (low, first), (high, last) = ((torch.maximum(*pair), torch.minimum(*pair)) for pair in pairs)
    common, around = (last - low).clamp_min(0).prod(-1), (high - first).prod(-1)
    areas = [(some[..., 2:] - some[..., :2]).prod(-1) for some in (boxes, others)]
    union = areas[0] + areas[1] - common
    return common / union.clamp_min(TINY), (around - union) / around.clamp_min(TINY)
