"""Sizes of images and anchors that suit a set of images with boxes."""

from typing import Any

import torch

from distil.data.detection.detection_set import DetectionSet
from distil.networks.detectors import BODY_STRIDES, FINEST

USUAL, LARGEST = 320, 640
"""Pixels of the shorter side of a resized image: usually at most, and where objects would be too small."""
LEAST_OBJECT = 16.0
"""Pixels of the resized image: three quarters of the objects should be larger."""
LARGEST_RATIO = 3.0
"""Largest ratio of the longer side to the shorter: longer images are made smaller."""
SMALLEST_ANCHOR, LARGEST_ANCHOR = 8.0, 32.0
"""Bounds of the smallest anchor's side, in pixels of the resized image."""


def sizes_for(
    data: DetectionSet,
    detector: str,
    *,
    min_size: int | None = None,
    max_size: int | None = None,
    anchor: float | None = None,
    finest: int | None = None,
) -> dict[str, Any]:
    """min_size, max_size and anchor of an `Architecture` for these images; values that are given stay.

    min_size: the median of the images' shorter sides, but at most USUAL pixels; up to LARGEST where a quarter of the
    objects would otherwise be under LEAST_OBJECT pixels (square root of the box's area). max_size: so that no image is
    made smaller for its longer side, up to a ratio of LARGEST_RATIO. anchor: the smallest twentieth of the objects in
    the resized image, within bounds. detector, finest: as of the architecture; their stride bounds the anchor from
    below.
    """
    sizes = torch.tensor([data.size(index) for index in range(len(data))], dtype=torch.float64).reshape(-1, 2)
    if not len(sizes):
        return {"min_size": min_size or USUAL, "max_size": max_size or USUAL, "anchor": anchor or LARGEST_ANCHOR}
    shorter, longer = sizes.min(1).values, sizes.max(1).values
    sides = _sides(data)
    if min_size is None:
        median = float(shorter.median())
        wanted = USUAL if not len(sides) else max(USUAL, median * LEAST_OBJECT / float(sides.quantile(0.25)))
        min_size = max(1, round(min(median, wanted, LARGEST)))
    if max_size is None:
        ratio = min(float((longer / shorter).max()), LARGEST_RATIO)
        max_size = max(min_size, round(min_size * ratio))
    if anchor is None:
        stride = BODY_STRIDES[0] if finest is None and detector not in FINEST else finest or FINEST[detector]
        scale = min(min_size / float(shorter.median()), max_size / float(longer.median()))
        small = LARGEST_ANCHOR if not len(sides) else float(sides.quantile(0.05)) * scale
        anchor = float(max(round(min(small, LARGEST_ANCHOR)), SMALLEST_ANCHOR, 1.5 * stride))
    return {"min_size": min_size, "max_size": max_size, "anchor": anchor}


def _sides(data: DetectionSet) -> torch.Tensor:
    """Square roots of the areas of all boxes that have one, in pixels of their images."""
    boxes = [data.annotations(index).boxes for index in range(len(data))]
    every = torch.cat(boxes).double() if boxes else torch.zeros(0, 4, dtype=torch.float64)
    sides = (every[:, 2:] - every[:, :2]).clamp_min(0).prod(1).sqrt()
    sides = sides[sides > 0]
    return sides[:: max(1, len(sides) // 1_000_000)]  # quantile() takes at most 16 million
