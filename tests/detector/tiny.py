"""Data and a detector of one's own, small enough to train in a test."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from distil.data.detection.detection_set import Annotations, DetectionSet
from distil.detector.settings import DetectorSettings
from distil.detector.training.train import train_detector
from distil.fields import with_values
from distil.rng import seed_at, stream
from distil.types import Trace, View

SIDE = 64
CLASSES = ("bright", "dark")


@dataclass(frozen=True)
class Squares:
    """Bright and dark squares on noise; every fourth image has none."""

    count: int
    seed: int = 0

    def __len__(self):
        return self.count

    def annotations(self, index):
        draws = stream(self.seed, "squares", index)
        many = index % 4
        low = torch.randint(0, SIDE - 30, (many, 2), generator=draws)
        boxes = torch.cat([low, low + torch.randint(14, 30, (many, 1), generator=draws)], 1).float()
        labels = torch.randint(1, 3, (many,), generator=draws)
        return Annotations(boxes, labels, torch.zeros(many, dtype=torch.bool), (boxes[:, 2:] - boxes[:, :2]).prod(1))

    def image(self, index):
        image = torch.randint(100, 156, (3, SIDE, SIDE), generator=stream(self.seed, "noise", index), dtype=torch.uint8)
        found = self.annotations(index)
        for (x1, y1, x2, y2), label in zip(found.boxes.int().tolist(), found.labels.tolist(), strict=True):
            image[:, y1:y2, x1:x2] = 230 if label == 1 else 20
        return image

    def identifier(self, index):
        return f"{self.seed}-{index:03d}.png"

    def size(self, index):
        return SIDE, SIDE

    def tags(self, index):
        return [frozenset()] * (index % 4)


def squares(count=13, seed=0, name="squares") -> DetectionSet:
    return DetectionSet(Squares(count, seed), CLASSES, name)


class Cells(nn.Module):
    """Two maps, of strides 8 and 16, and a class for every object from the mean of its image."""

    def __init__(self, width, classes=2):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.ReLU())
        first, second = nn.Conv2d(width, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)
        self.backbone = nn.ModuleDict({"stem": stem, "first": first, "second": second})
        self.head = nn.Conv2d(width, classes, 1)


class CellsAdapter:
    """What a detector of one's own needs to be trained, as a student or as a teacher."""

    strides = (8, 16)
    activation = "sigmoid"

    def __init__(self, model):
        self.model, self.channels, self.classes = model, model.head.in_channels, model.head.out_channels

    def view(self, images, targets, *, seeds=None):
        sizes = tuple(tuple(image.shape[1:]) for image in images)
        own = None if seeds is None else tuple(seeds)
        return View(torch.stack(list(images)), sizes, tuple(targets), (0.0,) * 3, (1.0,) * 3, own)

    def restyle(self, view):
        return view

    def pyramid(self, view):
        first = self.model.backbone["first"](self.model.backbone["stem"](view.images))
        return first, self.model.backbone["second"](first.relu())

    def trace(self, view, *, regions=None):
        maps = self.pyramid(view)
        boxes = tuple(t["boxes"] for t in view.targets) if regions is None else regions.boxes
        labels = torch.cat([t["labels"] for t in view.targets]) if regions is None else regions.labels
        means = self.model.head(maps[0]).mean((2, 3))
        of = torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(some) for some in boxes]))
        logits = means[of] * torch.cat([1 + some[:, :1] / SIDE for some in boxes])
        losses, counts = {}, {}
        if regions is None:
            aims = one_hot(labels - 1, self.classes).float()
            gaps = binary_cross_entropy_with_logits(logits.float(), aims, reduction="none").sum()
            losses = {"class": gaps / max(1, len(labels)), "size": (means.float() ** 2).mean()}
            counts = {"class": torch.tensor(float(len(labels))), "size": torch.tensor(float(len(view)))}
        return Trace(maps, self.strides, boxes, labels, logits, "sigmoid", losses=losses, counts=counts)

    def predict(self, images):
        found = []
        for image in images:
            scores = self.model.head(self.pyramid(self.view([image], [{}]))[0]).mean((0, 2, 3)).sigmoid()
            boxes = torch.tensor([[4.0, 4.0, 40.0, 40.0], [20.0, 20.0, 60.0, 60.0], [0.0, 0.0, 9.0, 9.0]])
            found.append({"boxes": boxes[: self.classes], "scores": scores, "labels": torch.arange(self.classes) + 1})
        return found


def cells(seed=0, width=6, classes=2) -> CellsAdapter:
    """The same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_at(seed, "cells"))
        return CellsAdapter(Cells(width, classes))


def tiny_settings(**changes) -> DetectorSettings:
    fields = {"epochs": 3, "batch": 4, "lr": 0.01, "warmup": 0, "clip": 1.0, "validation": 0.0}
    return with_values(DetectorSettings(), **{**fields, "prototype_count": 3, "prototype_side": 4.0, **changes})


class Recorder:
    """Events, kept."""

    def __init__(self):
        self.events = []

    def __call__(self, name, **fields):
        self.events.append((name, fields))

    def of(self, name):
        return [fields for kind, fields in self.events if kind == name]


def scripted(*scores):
    """A measure that tells these APs, one call after another."""
    rest = list(scores)

    def measure(predictions, annotations, classes):
        assert len(predictions) == len(annotations)
        score = rest.pop(0)
        return SimpleNamespace(ap=score, ap50=score, to_dict=lambda: {"ap": score, "ap50": score})

    return measure


def from_classes(predictions, annotations, classes):
    """A score that tells weights apart: the mean of all scores."""

    class Score:
        ap = 100 * float(sum(float(one["scores"].mean()) for one in predictions) / len(predictions))
        ap50 = ap

        def to_dict(self):
            return {"ap": self.ap, "ap50": self.ap50}

    return Score()


def train_until_killed(folder):
    """A training with every kind of state, which is continued where it was killed before."""
    settings = tiny_settings(loss="gkd,pkd,mgd", epochs=12, optimizer="adamw", prototype_features="training")
    options = {"validation": squares(5, 7), "measure": from_classes, "checkpoint_seconds": 0.02}
    train_detector(cells(0), squares(), settings, out=folder, teacher=cells(5), resume=True, **options)
