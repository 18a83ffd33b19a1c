"""Records that travel between the parts of distil."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Regions = Float[Tensor, "m r 4"]
"""Regions of canvases, r on each, one row a canvas or one row for all: (x1, y1, x2, y2) in pixels of the canvas, x2 and
y2 exclusive."""


@dataclass(frozen=True)
class Batch:
    """Images and their labels.

    images: in [0, 1], not normalised.
    labels: class indices, or one row of class probabilities an image.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"] | Float[Tensor, "n k"]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.images.to(device), self.labels.to(device))
