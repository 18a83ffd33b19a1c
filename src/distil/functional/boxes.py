"""Boxes on the maps of a feature pyramid: the level that a box belongs to, the map it paints, the mean inside it."""

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

FINEST_SIDE = 56.0
"""Boxes below twice this side, in pixels, belong to the level of stride 4."""

SHORTEST = 0.01
"""A box is treated as at least so long along each axis, in cells: a box of no area then reads the map at a point."""


def pyramid_levels(boxes: Float[Tensor, "m 4"], strides: tuple[int, ...]) -> Int[Tensor, " m"]:
    """The level of the pyramid that each box belongs to, as an index into `strides`.

    The wanted stride is 4 * 2^max(0, floor(log2(sqrt(w h) / 56 + 1e-6))); the level is the one of nearest stride on a
    logarithmic scale, the first of two equally near. boxes: xyxy in pixels of the image that the pyramid saw.
    strides: of the maps, in pixels, finest first.
    Raises: ValueError without strides.
    Source: the released code of Distilling Object Detectors with Global Knowledge (2022), whose pyramid is P2 to P6.
    Differs: a pyramid that lacks the wanted stride gives its nearest level, so that P3 to P7 is served as well; no
    pixel is added to the sides. `released_levels` has the source's form, and says what either moves.
    """
    if not strides:
        raise ValueError("a box belongs to a level of a pyramid, and no strides were given")
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1).sqrt()
    wanted = 2 + (sides / FINEST_SIDE + 1e-6).log2().floor().clamp_min(0)
    level = torch.zeros_like(wanted, dtype=torch.int64)
    for finer, coarser in pairwise(strides):
        level += wanted > (math.log2(finer) + math.log2(coarser)) / 2
    return level


def released_levels(boxes: Float[Tensor, "m 4"], count: int) -> Int[Tensor, " m"]:
    """The level of each box, 0 the finest: clamp(floor(log2(sqrt((w + 1)(h + 1)) / 56 + 1e-6)), 0, count - 1).

    boxes: xyxy in pixels. count: of levels. The level is an index, whatever strides the levels have.
    Source: the released code of Distilling Object Detectors with Global Knowledge (2022), which took it from that of
    DeFeat. The added pixel moves 0.7% of boxes of sides up to 640 pixels one level up (P2 to P6); on P3 to P7 the
    index puts squares of 112 and more pixels one level above the stride that `pyramid_levels` gives them
    (benchmarks/loss_forms.py).
    """
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).clamp_min(0).prod(1).sqrt()
    return (sides / FINEST_SIDE + 1e-6).log2().floor().clamp(0, count - 1).long()


Cells = Literal["centers", "floor", "outward"]
"""Which cells of a map a box paints: those whose centers it contains; those from its corner's cell up to, and without,
the cell of its other corner; or all that it touches and one more to the right and to the bottom."""


def paint_boxes(
    boxes: Float[Tensor, "*n m 4"],
    values: Float[Tensor, "*n m"],
    size: tuple[int, int],
    stride: int,
    *,
    cells: Cells = "centers",
) -> Float[Tensor, "*n h w"]:
    """A map of `size` (h, w) whose cell holds the largest value among the boxes that paint it, else 0.

    cells: with side a to b along an axis, in cells, a box paints

    - centers: the cells i with a <= i + 1/2 < b
    - floor: floor(a) <= i < floor(b)
    - outward: floor(a) <= i <= ceil(b)

    A box that paints nothing along an axis paints one cell: that of its own center, with floor that of its first
    corner; or the map's nearest cell.
    boxes: xyxy in pixels, of one image or of several; one with the value -inf paints nothing. Differentiable in values.
    Source: centers is ours. floor: the released code of DeFeat (2021) and of Distilling Object Detectors with Global
    Knowledge (2022); outward: that of FGD (2022).
    """
    if boxes.shape[-2] == 0:
        return values.new_zeros(*values.shape[:-1], *size)
    x1, y1, x2, y2 = (side[..., None] for side in boxes.unbind(-1))
    inside_rows, row = _painted_cells(y1, y2, size[0], stride, cells)
    inside_columns, column = _painted_cells(x1, x2, size[1], stride, cells)
    between = ~(inside_rows.any(-1, keepdim=True) & inside_columns.any(-1, keepdim=True))
    inside_rows = torch.where(between, row, inside_rows)
    inside_columns = torch.where(between, column, inside_columns)
    inside = inside_rows[..., :, None] & inside_columns[..., None, :]
    largest = torch.where(inside, values[..., None, None], -torch.inf).amax(-3)
    return torch.where(largest > -torch.inf, largest, 0)


def _painted_cells(start: Tensor, end: Tensor, length: int, stride: int, cells: Cells) -> tuple[Tensor, Tensor]:
    """Along one axis: the cells that a box from start to end, in pixels, paints, and the one cell if it paints none."""
    index = torch.arange(length, device=start.device)
    if cells == "centers":
        center = (index + 0.5) * stride
        inside, alone = (start <= center) & (center < end), (start + end) / 2
    elif cells == "floor":
        inside, alone = ((start / stride).floor() <= index) & (index < (end / stride).floor()), start
    else:
        inside, alone = ((start / stride).floor() <= index) & (index <= (end / stride).ceil()), start
    return inside, index == (alone / stride).floor().clamp(0, length - 1)


def mean_over_boxes(features: Float[Tensor, "c h w"], boxes: Float[Tensor, "m 4"], stride: int) -> Float[Tensor, "m c"]:
    """Mean of a map over each box, the map read as a bilinear surface through the centers of its cells.

    The center of cell (row, column) lies at ((column + 1/2) stride, (row + 1/2) stride); beyond the outermost centers
    the surface is flat. boxes: xyxy in pixels; one of no area gives the surface's value there. Differentiable in
    features.

    The integral is exact: one product of matrices, of deterministic gradient, in place of samples that grow with the
    box. It is the limit of RoIAlign (He et al. 2017, section 3) with one bin as its samples grow in number.
    """
    return mean_weights(boxes, (features.shape[1], features.shape[2]), stride) @ features.flatten(1).T


def mean_weights(boxes: Float[Tensor, "m 4"], size: tuple[int, int], stride: int) -> Float[Tensor, "m cells"]:
    """What each cell of a map of `size` (h, w), row by row, contributes to the mean over each box: see mean_over_boxes.

    Rows sum to 1. Those of a map serve every map of that size and stride.
    """
    rows = _mean_weights(boxes[:, 1], boxes[:, 3], size[0], stride)
    columns = _mean_weights(boxes[:, 0], boxes[:, 2], size[1], stride)
    return (rows[:, :, None] * columns[:, None, :]).flatten(1)


def _mean_weights(start: Tensor, end: Tensor, length: int, stride: int) -> Float[Tensor, "m {length}"]:
    """What each of `length` cells contributes to the mean over [start, end] of the line that joins their values."""
    middle = (start + end) / 2 / stride - 0.5
    half = ((end - start) / 2 / stride).clamp_min(SHORTEST / 2)
    first, last = middle - half, middle + half
    end_cell = length - 1
    low, high = first.clamp(0, end_cell), last.clamp(0, end_cell)
    cells = torch.arange(length, device=start.device)
    weights = _tent_integral(high[:, None] - cells) - _tent_integral(low[:, None] - cells)
    weights[:, 0] += last.clamp_max(0) - first.clamp_max(0)
    weights[:, -1] += last.clamp_min(end_cell) - first.clamp_min(end_cell)
    return weights / (2 * half[:, None])


def _tent_integral(position: Tensor) -> Tensor:
    """Integral of max(0, 1 - |t|) over t from minus infinity to `position`."""
    t = position.clamp(-1, 1)
    return torch.where(t < 0, (1 + t).square(), 2 - (1 - t).square()) / 2
