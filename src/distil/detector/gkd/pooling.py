"""Features of instances: the mean of every level's map over every box."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distil.functional.boxes import mean_weights


class Pooling:
    """Takes the mean of maps over boxes: made once for a view, used for the pyramids of both detectors.

    It holds what every cell of every level contributes to every box, (images, most boxes, cells) numbers a level.
    Source: "mean over the box" in the released code of Distilling Object Detectors with Global Knowledge (2022): of the
    cells from floor(x1 / stride) to floor(x2 / stride), both included. Differs: the exact mean of the bilinear surface
    (distil.functional.boxes.mean_over_boxes), which moves smoothly with the box and gives a box smaller than a cell its
    own place; its cosine with the cells' mean is 0.997 on the finest level of scenes (benchmarks/loss_forms.py).
    """

    def __init__(
        self, boxes: Sequence[Float[Tensor, "_m 4"]], sizes: Sequence[tuple[int, int]], strides: Sequence[int]
    ):
        """boxes: of each image, xyxy in pixels of the view. sizes, strides: of the levels, in cells and in pixels."""
        counts = [len(some) for some in boxes]
        device = boxes[0].device
        padded = pad_sequence([some.float() for some in boxes], batch_first=True)
        most = padded.shape[1]
        places = [torch.arange(count) + index * most for index, count in enumerate(counts)]
        self._rows = torch.cat(places).to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            self._weights = [
                mean_weights(padded.flatten(0, 1), size, stride).unflatten(0, (len(boxes), most))
                for size, stride in zip(sizes, strides, strict=True)
            ]

    def __call__(self, pyramid: Sequence[Float[Tensor, "n c _h _w"]]) -> Float[Tensor, "l i c"]:
        """Means of every level's map over every instance's box, images one after another; in float32, also inside
        autocast, and differentiable in the maps, which have equal channels."""
        with torch.autocast(pyramid[0].device.type, enabled=False):
            levels = [
                (weights @ maps.float().flatten(2).transpose(1, 2)).flatten(0, 1)[self._rows]
                for weights, maps in zip(self._weights, pyramid, strict=True)
            ]
            return torch.stack(levels)


def pool_instances(
    pyramid: Sequence[Float[Tensor, "n c _h _w"]], strides: Sequence[int], boxes: Sequence[Float[Tensor, "_m 4"]]
) -> Float[Tensor, "l i c"]:
    """Means of one pyramid's maps over boxes: see `Pooling`."""
    sizes = [(maps.shape[2], maps.shape[3]) for maps in pyramid]
    return Pooling(boxes, sizes, strides)(pyramid)


def pool_pair(
    student: Sequence[Float[Tensor, "n s _h _w"]],
    teacher: Sequence[Float[Tensor, "n t _h _w"]],
    strides: Sequence[int],
    boxes: Sequence[Float[Tensor, "_m 4"]],
) -> tuple[Float[Tensor, "l i s"], Float[Tensor, "l i t"]]:
    """Means of two pyramids' maps over the same boxes."""
    sizes, others = ([(maps.shape[2], maps.shape[3]) for maps in pyramid] for pyramid in (student, teacher))
    pooling = Pooling(boxes, sizes, strides)
    return pooling(student), pooling(teacher) if others == sizes else pool_instances(teacher, strides, boxes)
