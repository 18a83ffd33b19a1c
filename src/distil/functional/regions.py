"""Regions of a canvas, and the one decoder that turns them into views."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from distil.types import Regions

OUTSIDE = 0.5
"""What the decoder reads beyond the canvas: mid grey, as IDC pads."""


def interpolation_weights(
    start: Float[Tensor, "*batch"], end: Float[Tensor, "*batch"], length: int, size: int
) -> Float[Tensor, "*batch {size} {length}"]:
    """Rows of linear interpolation weights that resample [start, end) of an axis of `length` pixels to `size` samples.

    Sample j reads the axis at start + (j + 1/2)(end - start)/size - 1/2 (in pixel indices), held inside the interval as
    bilinear interpolation of the cropped interval would hold it. Weight i is max(0, 1 - |position - i|), so a row sums
    to less than one exactly where it reads beyond the axis.
    """
    centers = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    span = (end - start).unsqueeze(-1)
    first = start.unsqueeze(-1)
    position = first + centers * span / size - 0.5
    position = torch.minimum(torch.maximum(position, first), torch.maximum(first + span - 1, first))
    pixels = torch.arange(length, device=start.device, dtype=start.dtype)
    return torch.relu(1 - (position.unsqueeze(-1) - pixels).abs())


def crop_resize(
    images: Float[Tensor, "n c h w"], regions: Regions, size: tuple[int, int]
) -> Float[Tensor, "views c height width"]:
    """Cut regions out of canvases and enlarge each bilinearly to `size`: n canvases with r regions give n*r views.

    images: n canvases. regions: [n, r, 4], or [1, r, 4] for the same regions on every canvas; pixels of the canvas, x2
    and y2 exclusive; a region may reach past the canvas, where the decoder reads mid grey. size: (height, width) of a
    view. Returns the views canvas by canvas, each canvas's in the order of its regions. Differentiable in images and in
    regions.

    The whole canvas as a region returns the canvas exactly; an f x f grid of regions equals IDC's uniform
    multi-formation, also where f does not divide the side. Both directions are two matrix products.

    Source: one reading of IDC's multi-formation (Kim et al. 2022, section 3.2). Differs: any region, not only a grid.
    """
    n, _, height, width = images.shape
    regions = regions.to(images.dtype).expand(n, -1, -1)
    x1, y1, x2, y2 = regions.unbind(-1)
    rows = interpolation_weights(y1, y2, height, size[0])
    columns = interpolation_weights(x1, x2, width, size[1])
    inside = torch.einsum("nrHh,nchw->nrcHw", rows, images)
    views = torch.einsum("nrcHw,nrWw->nrcHW", inside, columns)
    covered = rows.sum(-1).unsqueeze(-1) * columns.sum(-1).unsqueeze(-2)
    views = views + OUTSIDE * (1 - covered).unsqueeze(2)
    return views.flatten(0, 1)


def paste_back(
    maps: Float[Tensor, "n r H W"], regions: Regions, size: tuple[int, int]
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """Carry maps made on views back to the canvas: the average over the views that show a pixel, and how much they do.

    maps: one map a view, at any resolution. regions: [n, r, 4] or [1, r, 4]. size: (h, w) of the canvas.
    Returns the averaged map (0 where no view looks) and the coverage, the sum of interpolation weights at each pixel.
    The transpose of crop_resize, divided by the transpose of ones.
    """
    n, _, height, width = maps.shape
    regions = regions.to(maps.dtype).expand(n, -1, -1)
    x1, y1, x2, y2 = regions.unbind(-1)
    rows = interpolation_weights(y1, y2, size[0], height)
    columns = interpolation_weights(x1, x2, size[1], width)
    total = torch.einsum("nrHh,nrHW,nrWw->nhw", rows, maps, columns)
    coverage = torch.einsum("nrh,nrw->nhw", rows.sum(-2), columns.sum(-2))
    return torch.where(coverage > 0, total / coverage.clamp_min(1e-12), 0), coverage


def whole_region(size: tuple[int, int], *, device: torch.device | str = "cpu") -> Float[Tensor, "1 4"]:
    """The whole canvas of `size` (h, w) as one region."""
    return torch.tensor([[0, 0, size[1], size[0]]], dtype=torch.float32, device=device)


def grid_regions(factor: int, size: tuple[int, int], *, device: torch.device | str = "cpu") -> Float[Tensor, "cells 4"]:
    """The factor x factor cells of IDC's uniform multi-formation, row by row.

    size: (h, w) of the canvas. A cell's side is the canvas's divided by the factor, rounded up; where the factor does
    not divide the side the last row and column reach past the canvas.
    Raises: ValueError if factor is below 1 or above the shorter side.
    """
    if not 1 <= factor <= min(size):
        raise ValueError(f"factor {factor} is not between 1 and the canvas's shorter side, {min(size)}")
    tall, wide = math.ceil(size[0] / factor), math.ceil(size[1] / factor)
    cells = [
        (column * wide, row * tall, (column + 1) * wide, (row + 1) * tall)
        for row in range(factor)
        for column in range(factor)
    ]
    return torch.tensor(cells, dtype=torch.float32, device=device)


def candidate_windows(
    factor: int, size: tuple[int, int], *, device: torch.device | str = "cpu"
) -> Float[Tensor, "windows 4"]:
    """Windows with the side of a grid cell at a stride of half a side, all inside the canvas, row by row.

    At factor 2 on a 32 x 32 canvas: 9 windows of 16 x 16, of which 4 are the grid's cells and 5 straddle their seams.
    Source: our reconstruction of UDD's candidates (docs/methods/udd.md).
    """
    tall, wide = math.ceil(size[0] / factor), math.ceil(size[1] / factor)

    def starts(length: int, side: int) -> list[int]:
        stride = max(1, side // 2)
        regular = list(range(0, length - side + 1, stride))
        return regular if regular[-1] == length - side else [*regular, length - side]

    windows = [(x, y, x + wide, y + tall) for y in starts(size[0], tall) for x in starts(size[1], wide)]
    return torch.tensor(windows, dtype=torch.float32, device=device)


def intersection_over_union(a: Float[Tensor, "p 4"], b: Float[Tensor, "q 4"]) -> Float[Tensor, "p q"]:
    """Area of the intersection over area of the union, for every pair of regions."""
    corner = torch.maximum(a[:, None, :2], b[None, :, :2])
    opposite = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (opposite - corner).clamp_min(0).prod(-1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)
    return intersection / (area_a[:, None] + area_b[None] - intersection)


def window_means(maps: Float[Tensor, "n h w"], windows: Float[Tensor, "r 4"]) -> Float[Tensor, "n r"]:
    """Mean of each map over each window (integer corners inside the map)."""
    table = torch.nn.functional.pad(maps.cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    x1, y1, x2, y2 = windows.long().unbind(-1)
    total = table[:, y2, x2] - table[:, y1, x2] - table[:, y2, x1] + table[:, y1, x1]
    return total / ((x2 - x1) * (y2 - y1))


def lowest_apart(
    scores: Float[Tensor, "n r"], windows: Float[Tensor, "r 4"], count: int, *, overlap: float = 0.5
) -> Float[Tensor, "n {count} 4"]:
    """For each row of scores the `count` windows of lowest score, chosen greedily.

    A window whose intersection over union with a chosen one exceeds `overlap` is passed over while another is left.
    Ties go to the earlier window. Raises: ValueError if there are fewer windows than count.
    """
    if count > len(windows):
        raise ValueError(f"{count} windows were asked for and there are {len(windows)} candidates")
    crowded = intersection_over_union(windows, windows) > overlap
    suppressed = torch.zeros_like(scores)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    picks = []
    big = (scores.amax() - scores.amin() + 1).detach()
    for _ in range(count):
        rank = scores + big * suppressed.clamp_max(1) + 2 * big * chosen
        pick = rank.argmin(dim=1)
        picks.append(pick)
        chosen = chosen.scatter(1, pick[:, None], True)
        suppressed = suppressed + crowded[pick].to(scores.dtype)
    return windows[torch.stack(picks, dim=1)]
