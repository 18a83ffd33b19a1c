"""What a detector finds in a set of images, and how that is measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distil.data.detection.detection_set import DetectionSet

Measure = Callable[[Sequence[Mapping[str, Tensor]], Sequence[Any], Sequence[str]], Any]
"""(predictions, annotations, class names) -> a record with `ap` and `ap50` in percent; distil.evaluation.precision has
`average_precision`."""


def predict(
    adapter: Any,
    data: DetectionSet,
    *,
    batch: int = 8,
    part: slice = slice(None),
    done: Callable[[int], object] | None = None,
) -> list[dict[str, Tensor]]:
    """What a detector finds in images (or in a part of them): boxes, scores and labels of each, on the CPU.

    Boxes are in pixels of the images as they are; the detector is in eval mode and afterwards in the mode it was in.
    done: called after each batch with the number of images that are done.
    """
    device = next(adapter.model.parameters()).device
    modes = [(module, module.training) for module in adapter.model.modules()]
    adapter.model.eval()
    indices = range(len(data))[part]
    found: list[dict[str, Tensor]] = []
    try:
        with torch.no_grad():
            for first in range(0, len(indices), batch):
                images = [data.image(index).to(device).float() / 255 for index in indices[first : first + batch]]
                for one in adapter.predict(images):
                    known = one["labels"] > 0  # RetinaNet and FCOS have an output for the background, never trained
                    found.append({name: x[known].cpu() for name, x in one.items()})
                if done is not None:
                    done(len(found))
    finally:
        for module, mode in modes:
            module.training = mode
    return found
