"""A detector of your own, distilled: one class says how distil sees it.

The detector names what it sees at the middle of each object, from two maps of strides 8 and 16. Run it with
`python examples/own_detector_adapter.py FOLDER`; it takes a few seconds on a CPU.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from distil import (
    PKD,
    DetectorSettings,
    DetectorTraining,
    GlobalKnowledge,
    PrototypeSettings,
    open_detection,
    train_detector,
)
from distil.types import Trace, View


class Middles(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 8, 3), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1))
        self.down = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1))
        self.head = nn.Conv2d(width, classes, 1)


class MiddlesAdapter:
    strides = (8, 16)
    activation: Literal["softmax", "sigmoid"] = "sigmoid"

    def __init__(self, model: Middles) -> None:
        self.model, self.channels, self.classes = model, model.head.in_channels, model.head.out_channels

    def view(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], *, seeds: Sequence[int] | None = None
    ) -> View:
        """The images as they are, which all have one size; nothing is drawn, so seeds are only handed on."""
        sizes = tuple((image.shape[1], image.shape[2]) for image in images)
        kept = None if seeds is None else tuple(seeds)
        return View(torch.stack(list(images)), sizes, tuple(targets), (0.0,) * 3, (1.0,) * 3, kept)

    def restyle(self, view: View) -> View:
        return view

    def pyramid(self, view: View) -> tuple[Tensor, ...]:
        fine = self.model.stem(view.images)
        return fine, self.model.down(fine)

    def trace(self, view: View, *, regions: Trace | None = None) -> Trace:
        maps = self.pyramid(view)
        boxes = tuple(target["boxes"] for target in view.targets) if regions is None else regions.boxes
        labels = torch.cat([target["labels"] for target in view.targets]) if regions is None else regions.labels
        scores = self.model.head(maps[0])
        rows = []
        for image, some in enumerate(boxes):
            cells = ((some[:, :2] + some[:, 2:]) / 16).long().clamp(0, min(scores.shape[2:]) - 1)
            rows.append(scores[image, :, cells[:, 1], cells[:, 0]].T)
        logits = torch.cat(rows)
        if regions is not None:
            return Trace(maps, self.strides, boxes, labels, logits, self.activation)
        wanted = one_hot(labels - 1, self.classes).float()
        gaps = binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none").sum()
        losses = {"class": gaps / max(1, len(labels))}
        counts = {"class": torch.tensor(float(max(1, len(labels))), device=logits.device)}
        return Trace(maps, self.strides, boxes, labels, logits, self.activation, losses=losses, counts=counts)

    def predict(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """A box of 32 pixels around the cell where each class is strongest."""
        found = []
        for image in images:
            scores = self.model.head(self.model.stem(image[None]))[0].sigmoid()
            best, place = scores.flatten(1).max(1)
            y, x = place // scores.shape[2] * 8 + 4, place % scores.shape[2] * 8 + 4
            boxes = torch.stack([x - 16, y - 16, x + 16, y + 16], 1).float()
            found.append({"boxes": boxes, "scores": best, "labels": torch.arange(1, self.classes + 1)})
        return found


def made(width: int, classes: int, seed: int) -> MiddlesAdapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MiddlesAdapter(Middles(width, classes))


def main(folder: Path) -> Path:
    data = open_detection("scenes").train.subset(range(16))
    student, teacher = made(8, len(data.classes), 0), made(16, len(data.classes), 1)
    settings = DetectorSettings(training=DetectorTraining(epochs=2, batch=4, lr=0.01, clip=1.0, validation=0.0))
    losses = [GlobalKnowledge(prototypes=PrototypeSettings(side=10.0)), PKD(0.05)]
    return train_detector(student, data, settings, out=folder, teacher=teacher, losses=losses)


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
