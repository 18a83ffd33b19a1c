"""Features of instances: the mean of every level's map over every box."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from distil.functional.boxes import mean_over_boxes


def pool_instances(
    pyramid: Sequence[Float[Tensor, "n c _h _w"]], strides: Sequence[int], boxes: Sequence[Float[Tensor, "_m 4"]]
) -> Float[Tensor, "l i c"]:
    """Mean of every level's map over every instance's box, images one after another.

    pyramid: maps with equal channels. strides: pixels of the view between two cells of each map. boxes: of each image,
    xyxy in pixels of the view. Computed in float32, also inside autocast; differentiable in the maps.
    Source: "mean over the box" in the released code of Distilling Object Detectors with Global Knowledge (2022), by
    RoIAlign. Differs: the exact mean of the bilinear surface (distil.functional.boxes.mean_over_boxes), whose cost does
    not grow with the area of a box and whose gradient is deterministic on every device.
    """
    with torch.autocast(pyramid[0].device.type, enabled=False):
        levels = [
            torch.cat([mean_over_boxes(image.float(), of, stride) for image, of in zip(maps, boxes, strict=True)])
            for maps, stride in zip(pyramid, strides, strict=True)
        ]
        return torch.stack(levels)
