"""What every loss on feature maps needs: maps of equal stride side by side, painted boxes, sums over processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.rnn import pad_sequence

from distil.functional.boxes import Cells, paint_boxes
from distil.types import Trace

Form = Literal["distil", "published"]
"""Of a loss: what serves every pair of detectors with one weight, or what its authors released."""

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
    """Of these levels, in pixels."""


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which operations on the device of `like` keep the precision of their operands."""
    return torch.autocast(like.device.type, enabled=False)


def paired_maps(student: Trace, teacher: Trace, levels: Levels) -> list[tuple[Tensor, Tensor]]:
    """The two detectors' maps on every common level, the teacher's without gradient.

    Both saw one view, so maps of equal stride differ by a row or a column at most (layers round odd sides differently);
    the teacher's is then resized (bilinear) to the student's.
    """
    pairs = []
    for ours, theirs in levels:
        own, aim = student.pyramid[ours], teacher.pyramid[theirs].detach()
        if own.shape[-2:] != aim.shape[-2:]:
            aim = interpolate(aim, own.shape[-2:], mode="bilinear", align_corners=False)
        pairs.append((own, aim))
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


def processes() -> int:
    """How many processes train together."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def shared(amounts: Tensor, least: float = 1.0) -> Tensor:
    """What this process divides its sums by, so that processes together compute the mean over their common batch.

    max(least, the amounts summed over the R processes) / R, without gradient. The mean over processes of (own sum /
    this) is then (sum of all / amount of all), and so are the gradients, which processes average. One process:
    max(least, amounts). Every process has to call it equally often: it communicates.
    """
    amounts = amounts.detach()
    if processes() > 1:
        amounts = amounts.clone()
        torch.distributed.all_reduce(amounts)
    return amounts.clamp(min=least) / processes()


class _Total(torch.autograd.Function):
    """Sum over processes; the gradient of what all of them make of it comes back to each."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        torch.distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        gradient = gradient.clone()
        torch.distributed.all_reduce(gradient)
        return gradient


def total(values: Tensor) -> Tensor:
    """Sum over processes, with gradient."""
    return _Total.apply(values) if processes() > 1 else values  # pyright: ignore[reportReturnType]


def moments(maps: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "1 c 1 1"], Float[Tensor, "1 c 1 1"]]:
    """Mean and standard deviation of every channel over the images and cells of the batch (of all processes)."""
    count = total(maps.new_full((), float(maps.shape[0] * maps.shape[2] * maps.shape[3])))
    mean = total(maps.sum((0, 2, 3), keepdim=True)) / count
    variance = total((maps - mean).square().sum((0, 2, 3), keepdim=True)) / count
    return mean, (variance + 1e-8).sqrt()


def aligned_distance(
    aligning: nn.ModuleList,
    student: Trace,
    teacher: Trace,
    levels: Levels,
    distance: Callable[[Tensor, Tensor], Float[Tensor, ""]],
) -> Float[Tensor, ""]:
    """Mean over levels of a distance of two maps, in float32: of the student's, aligned, to the teacher's."""
    values = []
    for align, (own, aim) in zip(aligning, paired_maps(student, teacher, levels), strict=True):
        own = align(own)
        with full_precision(own):
            values.append(distance(own.float(), aim.float()))
    return mean_of_levels(values)


def over_levels(values: Sequence[Float[Tensor, ""]], form: Form) -> Float[Tensor, ""]:
    """The mean over levels, in the form "published" the sum."""
    return torch.stack(list(values)).sum() if form == "published" else mean_of_levels(values)


def mean_of_levels(values: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    return torch.stack(list(values)).mean()
