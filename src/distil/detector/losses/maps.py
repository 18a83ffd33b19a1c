"""What losses on feature maps share: maps of equal stride side by side, painted boxes, distances of two maps.

In form "distil" all losses are mean-reduced and free of the scale of features, so that one weight serves every
detector: squared differences are divided by the mean square of the teacher's map (`relative`). Form "published" has the
reductions, masks, levels and weights of each loss's released code. Effects in the docstrings of losses are ratios of
gradients on the student's weights, RetinaNet and Faster R-CNN on scenes (benchmarks/loss_forms.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.rnn import pad_sequence

from distil.checks import is_finite, shown
from distil.detector.adapters.protocol import DetectorAdapter, common_levels
from distil.detector.losses.distributed import shared
from distil.errors import DistilError
from distil.functional.boxes import Cells, paint_boxes
from distil.lookup import chosen
from distil.types import Trace

Form = Literal["distil", "published"]
"""Form of a loss: what serves every pair of detectors with one weight, or what its authors released."""


def checked_form(form: str) -> Form:
    """The form. Raises: DistilError with the nearest name where there is none of this name."""
    chosen("form", form, get_args(Form), field="form")
    return "published" if form == "published" else "distil"


def checked_weights(name: str, **weights: float | None) -> None:
    """Refuse weights of a loss's terms that are negative or not finite; None stands for the form's own.

    Raises: DistilError that names the loss and the term.
    """
    for term, value in weights.items():
        if value is not None and not (is_finite(value) and value >= 0):
            raise DistilError(f"{{{term}}} of {name} is {shown(value)}: give a finite number, at least 0.", field=term)


Levels = tuple[tuple[int, int], ...]
"""Pairs (student's level, teacher's level) of equal stride: indices into the two pyramids."""


@dataclass(frozen=True)
class Pyramids:
    """The feature pyramids of two detectors, as far as losses on maps have to know them."""

    student_channels: int
    teacher_channels: int
    levels: Levels
    """The levels that both have."""
    strides: tuple[int, ...]
    """Strides of these levels, in pixels."""


TINY = 1e-12
FOUR = 4
"""PKD, and FGD and MGD of two-stage students, were released without the fifth level of the pyramid."""


def pyramids_of(student: DetectorAdapter, teacher: DetectorAdapter, most: int | None = None) -> Pyramids:
    """The pyramids of two detectors, of their common levels at most the `most` finest.

    Raises: DistilError when the detectors share no stride.
    """
    levels = common_levels(student.strides, teacher.strides)[:most]
    return Pyramids(student.channels, teacher.channels, levels, tuple(student.strides[level] for level, _ in levels))


Kind = Literal["two-stage", "retinanet", "fcos"]


def kind_of(adapter: Any) -> Kind:
    """Which of the published settings suit a detector; a one-stage detector of another kind counts as RetinaNet."""
    head = getattr(getattr(adapter.model, "head", None), "regression_head", None)
    if hasattr(head, "bbox_ctrness"):
        return "fcos"
    return "retinanet" if adapter.activation == "sigmoid" else "two-stage"


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which operations on the device of `like` keep the precision of their operands."""
    return torch.autocast(like.device.type, enabled=False)


def paired_maps(student: Trace, teacher: Trace, levels: Levels) -> list[tuple[Tensor, Tensor]]:
    """The two detectors' maps on every common level, the teacher's without gradient.

    Both saw one view, so maps of equal stride differ by a row or a column at most (layers round odd sides differently);
    the teacher's is then resized (bilinear) to the student's.
    """
    pairs = []
    for student_level, teacher_level in levels:
        student_map, teacher_map = student.pyramid[student_level], teacher.pyramid[teacher_level].detach()
        if student_map.shape[-2:] != teacher_map.shape[-2:]:
            teacher_map = interpolate(teacher_map, student_map.shape[-2:], mode="bilinear", align_corners=False)
        pairs.append((student_map, teacher_map))
    return pairs


def aligning(
    student_channels: int, teacher_channels: int, levels: Levels, *, kernel: int = 1, always: bool = False
) -> nn.ModuleList:
    """One convolution a level from the student's channels to the teacher's; the identity where they agree already.

    always: a convolution even where they agree.
    """
    if student_channels == teacher_channels and not always:
        return nn.ModuleList(nn.Identity() for _ in levels)
    return nn.ModuleList(nn.Conv2d(student_channels, teacher_channels, kernel, padding=kernel // 2) for _ in levels)


def painted(
    boxes: Sequence[Float[Tensor, "_m 4"]],
    values: Sequence[Float[Tensor, " _m"]],
    size: tuple[int, int],
    stride: int,
    *,
    cells: Cells = "centers",
) -> Float[Tensor, "n 1 h w"]:
    """One map an image: the largest value among the boxes that paint a cell (see `paint_boxes`), 0 elsewhere."""
    padded = pad_sequence([some.float() for some in boxes], batch_first=True)
    amounts = pad_sequence(list(values), batch_first=True, padding_value=-torch.inf)
    return paint_boxes(padded, amounts, size, stride, cells=cells)[:, None]


def aligned_distance(
    aligning: nn.ModuleList,
    student: Trace,
    teacher: Trace,
    levels: Levels,
    distance: Callable[[Tensor, Tensor], Float[Tensor, ""]],
) -> Float[Tensor, ""]:
    """Mean over levels of a distance of two maps, in float32: of the student's, aligned, to the teacher's."""
    values = []
    for align, (student_map, teacher_map) in zip(aligning, paired_maps(student, teacher, levels), strict=True):
        student_map = align(student_map)
        with full_precision(student_map):
            values.append(distance(student_map.float(), teacher_map.float()))
    return mean_of_levels(values)


def over_levels(values: Sequence[Float[Tensor, ""]], form: Form) -> Float[Tensor, ""]:
    """The mean over levels, in the form "published" the sum."""
    return torch.stack(list(values)).sum() if form == "published" else mean_of_levels(values)


def mean_of_levels(values: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    return torch.stack(list(values)).mean()


def relative(
    student: Float[Tensor, "n c h w"],
    teacher: Float[Tensor, "n c h w"],
    *masks: Float[Tensor, "n 1 h w"],
    focus: Tensor | None = None,
) -> tuple[Float[Tensor, ""], ...]:
    """Squared difference of two maps, relative to the teacher's mean square: one value for each mask, one without any.

    sum m focus (s - t)^2 / (c sum m * mean t^2), sums over images, channels and cells (of all processes). Where a mask
    is 0 everywhere the value is 0.
    focus: (n, c, h, w), weights that average one and so take no part in the divisor.
    """
    squares = (student - teacher).square()
    squares = (squares if focus is None else squares * focus).sum(1, keepdim=True)
    masks = masks or (torch.ones_like(squares),)
    size = teacher.new_full((), float(teacher.numel()))
    amounts = torch.stack([*(mask.sum() for mask in masks), teacher.square().sum(), size])
    *masses, energy, count = shared(amounts, TINY)
    mean_square = teacher.shape[1] * energy / count
    return tuple(
        (mask * squares).sum() / (mass * mean_square).clamp(min=TINY) for mask, mass in zip(masks, masses, strict=True)
    )


def summed(
    student: Float[Tensor, "n c h w"],
    teacher: Float[Tensor, "n c h w"],
    *masks: Float[Tensor, "n 1 h w"],
    focus: Tensor | None = None,
) -> tuple[Float[Tensor, ""], ...]:
    """Squared difference of two maps, an image: one value for each mask, one without any.

    sum m focus (s - t)^2 / n, sums over images, channels and cells, n images (of all processes): the form of the
    released FGD and MGD, which grows with the maps' cells, their channels and the square of their features.
    focus: (n, c, h, w).
    """
    squares = (student - teacher).square()
    squares = (squares if focus is None else squares * focus).sum(1, keepdim=True)
    images = shared(teacher.new_full((), float(len(teacher))))
    return tuple((mask * squares).sum() / images for mask in masks or (torch.ones_like(squares),))
