"""Made-up views, traces, detectors and prototypes for the tests of distillation losses."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.named import loss_objects, prepared
from distil.detector.settings import Distillation
from distil.types import Trace, View

SIZE = (120, 152)
STRIDES = (4, 8, 16)
BOXES = ((4.0, 6.0, 50.0, 40.0), (30.0, 20.0, 44.0, 70.0), (10.5, 9.5, 11.5, 10.5), (0.0, 0.0, 152.0, 116.0))
"""In pixels of the view: three overlap, one holds no center of a cell, one is of the level of stride 8."""


def make_view(*, images: int = 3, empty: bool = False, seeds: bool = True) -> View:
    """The last image has no object; with `empty` none has."""
    generator = torch.Generator().manual_seed(9)
    targets = []
    for i in range(images):
        rows = [] if empty or i == images - 1 else list(BOXES[i : i + 2])
        boxes = torch.tensor(rows).reshape(-1, 4)
        targets.append({"boxes": boxes, "labels": torch.arange(len(boxes)) + 1})
    pictures = torch.rand(images, 3, *SIZE, generator=generator)
    addressed = tuple(range(70, 70 + images)) if seeds else None
    return View(pictures, (SIZE,) * images, tuple(targets), (0.0,) * 3, (1.0,) * 3, addressed)


def make_trace(
    seed: int,
    *,
    channels: int = 6,
    images: int = 3,
    classes: int = 3,
    activation: str = "softmax",
    empty: bool = False,
    strides: tuple[int, ...] = STRIDES,
    gradient: bool = False,
) -> Trace:
    """Random maps and logits; the instances are BOXES on the first images, none on the last."""
    generator = torch.Generator().manual_seed(seed)
    pyramid = tuple(
        torch.randn(images, channels, -(-SIZE[0] // stride), -(-SIZE[1] // stride), generator=generator)
        for stride in strides
    )
    boxes = [torch.zeros(0, 4) for _ in range(images)]
    if not empty:
        boxes[0], boxes[1] = torch.tensor(BOXES[:3]), torch.tensor(BOXES[2:])
    count = sum(len(some) for some in boxes)
    logits = 2 * torch.randn(count, classes + (activation == "softmax"), generator=generator)
    if gradient:
        for maps in (*pyramid, logits):
            maps.requires_grad_()
    labels = torch.arange(count) % classes + 1
    return Trace(pyramid, strides, tuple(boxes), labels, logits, activation)  # pyright: ignore[reportArgumentType]


def make_prototypes(
    student: int = 6,
    teacher: int = 6,
    *,
    each: int = 2,
    classes: int = 3,
    strides: tuple[int, ...] = STRIDES,
    seed: int = 5,
) -> PrototypeSet:
    """`each` random prototypes of every class on every level."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.arange(len(strides)).repeat_interleave(each * classes)
    labels = (torch.arange(classes) + 1).repeat_interleave(each).repeat(len(strides))
    count = len(labels)
    return PrototypeSet(
        student=torch.randn(count, student, generator=generator),
        teacher=torch.randn(count, teacher, generator=generator),
        levels=levels,
        labels=labels,
        images=torch.zeros(count, dtype=torch.int64),
        boxes=torch.zeros(count, 4),
        classes=tuple("abcdefgh"[:classes]),
        strides=strides,
        source="made up",
        epoch=0,
    )


def slow_mask(boxes: Tensor, values: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """The painted map cell by cell: a box without a cell's center holds the cell of its own center."""
    out = torch.zeros(size, dtype=torch.float64)
    for (x1, y1, x2, y2), value in zip(boxes.tolist(), values.tolist(), strict=True):
        held = [
            (row, column)
            for row in range(size[0])
            for column in range(size[1])
            if x1 <= (column + 0.5) * stride < x2 and y1 <= (row + 0.5) * stride < y2
        ]
        held = held or [(int((y1 + y2) / 2 // stride), int((x1 + x2) / 2 // stride))]
        for row, column in held:
            out[row, column] = max(out[row, column].item(), value)
    return out


Loss = TypeVar("Loss", bound=DistillationLoss)
LEVELS = ((0, 0), (1, 1), (2, 2))


def ready(
    loss: Loss,
    student: int = 6,
    teacher: int = 6,
    levels: Sequence[tuple[int, int]] = LEVELS,
    strides: Sequence[int] = STRIDES,
) -> Loss:
    """A loss made ready for detectors of so many channels, which have these levels, of these strides, in common."""
    own, other = [1000 + 2 * i for i in range(9)], [1001 + 2 * i for i in range(9)]
    for (first, second), stride in zip(levels, strides, strict=True):
        own[first] = other[second] = stride
    pair: list[Any] = [
        SimpleNamespace(model=nn.Module(), channels=channels, strides=tuple(those), activation="softmax")
        for channels, those in ((student, own), (teacher, other))
    ]
    loss.prepare(*pair)
    return loss


class Together(nn.Module):
    """Losses added up as a training step adds them."""

    def __init__(self, parts: nn.ModuleDict) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, *args: Any) -> dict[str, Tensor]:
        losses = {}
        for part in self.parts.values():
            losses |= {name: part.weight * value for name, value in part(*args).items()}  # pyright: ignore
        return losses


def built(
    names: Sequence[str | DistillationLoss], student: Any, teacher: Any, how: Distillation | None = None, seed: int = 0
) -> Together:
    return Together(prepared(loss_objects(names, how or Distillation()), student, teacher, seed=seed))
