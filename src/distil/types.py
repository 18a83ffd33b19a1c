"""Records that travel between the parts of distil."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Regions = Float[Tensor, "m r 4"]
"""Regions of canvases, r on each, one row a canvas or one row for all: (x1, y1, x2, y2) in pixels of the canvas, x2 and
y2 exclusive."""


@dataclass(frozen=True)
class Batch:
    """Images and their labels.

    images: in [0, 1], not normalized.
    labels: class indices, or one row of class probabilities an image.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"] | Float[Tensor, "n k"]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class View:
    """What detectors see of a batch: images after ONE shared resize, normalization and padding, with their targets."""

    images: Float[Tensor, "n 3 h w"]
    """Normalized by mean and std, then padded with zeros at the right and at the bottom."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each image before padding."""
    targets: tuple[dict[str, Tensor], ...]
    """The true objects of each image: boxes, float (m, 4), xyxy in pixels of `images`; labels, int64 (m,), 1 to k (0 is
    the background)."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seeds: tuple[int, ...] | None = None
    """Seed of each image's own draws (which anchors and proposals a detector samples); None: the global generator."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Trace:
    """What one forward pass of a detector computed on a view.

    Instances are the regions that knowledge is compared on: of a two-stage detector the positive proposals, of a
    one-stage detector the positive anchors. Images one after another, in the order of the view.
    """

    pyramid: tuple[Float[Tensor, "n c _h _w"], ...]
    """Feature maps, finest first."""
    strides: tuple[int, ...]
    """Pixels of the view between two cells of each map."""
    boxes: tuple[Float[Tensor, "_m 4"], ...]
    """Instances of each image, xyxy in pixels of the view, without gradient."""
    labels: Int[Tensor, " i"]
    """Class of every instance, 1 to k."""
    logits: Float[Tensor, "i columns"]
    """Class logits of every instance: k + 1 columns (0 is background) with softmax, k columns with sigmoid."""
    activation: Literal["softmax", "sigmoid"]
    positions: tuple[Int[Tensor, " _m"], ...] | None = None
    """One-stage only: index of each instance's anchor among all anchors of its image, level by level."""
    dense: Float[Tensor, "n a k"] | None = None
    """One-stage only: class logits at every anchor."""
    positives: Float[Tensor, ""] | None = None
    """One-stage students only: what sums over all anchors are divided by to be losses an object. RetinaNet: positive
    anchors, at least one an image; FCOS: the center-ness of the positive points, summed."""
    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """The detector's own training losses by name; empty for a teacher."""
    counts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """How many things each of `losses` is a mean over in this batch, so that processes can be weighed."""
