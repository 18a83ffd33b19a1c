"""One training step of a detector: its own losses, what a teacher adds, and their weights over several processes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from distil.detector.losses.base import DistillationLoss
from distil.detector.settings import DetectorTraining
from distil.types import Trace, View

WARMUP_START = 1e-3
"""Share of the learning rate that the first step has, where the rate warms up."""


class Work:
    """What a step is given. Not a dataclass, so that Fabric hands it over as it is and leaves boxes in float32.

    view: made by the student's adapter. teacher: an adapter, frozen, or None. progress: share of the epochs done,
    0 to 1.
    """

    def __init__(self, view: View, teacher: Any = None, progress: float = 0.0):
        self.view, self.teacher, self.progress = view, teacher, progress


class Columns(nn.Module):
    """Which class logits of two detectors mean the same.

    teacher_labels: for each of the student's classes the teacher's label, from 1, or None where it knows no such class.
    teacher_classes: how many classes the teacher knows. Logits of both are cut to the classes that both know, in the
    student's order, with the background first where there is one. Nothing is done where both lists are the same.
    """

    def __init__(self, teacher_labels: Sequence[int | None], teacher_classes: int):
        super().__init__()
        shared = [
            (student_columns, label)
            for student_columns, label in enumerate(teacher_labels, start=1)
            if label is not None
        ]
        complete = len(shared) == teacher_classes == len(teacher_labels)
        self.same = complete and all(student_columns == label for student_columns, label in shared)
        student_columns, teacher_columns = ([pair[side] for pair in shared] for side in (0, 1))
        self.register_buffer("student", torch.tensor(student_columns, dtype=torch.int64), persistent=False)
        self.register_buffer("teacher", torch.tensor(teacher_columns, dtype=torch.int64), persistent=False)

    def forward(self, student: Trace, teacher: Trace) -> tuple[Trace, Trace]:
        if self.same:
            return student, teacher
        return _cut(student, self.get_buffer("student")), _cut(teacher, self.get_buffer("teacher"))


def _cut(trace: Trace, labels: Tensor) -> Trace:
    columns = torch.cat([labels.new_zeros(1), labels]) if trace.activation == "softmax" else labels - 1
    dense = None if trace.dense is None else trace.dense.index_select(2, columns)
    return replace(trace, logits=trace.logits.index_select(1, columns), dense=dense)


class Step(nn.Module):
    """The student with the losses' own parameters: what the optimizer follows, and what processes keep equal.

    adapter: the student's. losses: what the teacher adds, by name, each a `DistillationLoss`; none without a teacher.
    columns: see `Columns`; None where both detectors have the same classes.
    The teacher is never a part of it: it comes with each step's `Work`.
    """

    def __init__(self, adapter: Any, losses: nn.ModuleDict | None = None, columns: Columns | None = None):
        super().__init__()
        self.model = adapter.model
        self.losses = nn.ModuleDict() if losses is None else losses
        self.columns = columns
        self._held = (adapter,)

    @property
    def adapter(self) -> Any:
        return self._held[0]

    @property
    def parts(self) -> list[DistillationLoss]:
        """The losses that the teacher adds."""
        return list(self.losses.values())  # pyright: ignore[reportReturnType]

    def forward(self, work: Work) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The named losses of a view, and how many things the detector's own losses are means over."""
        trace = self.adapter.trace(work.view)
        losses, counts = dict(trace.losses), dict(trace.counts)
        if len(self.losses) and work.teacher is not None:
            with torch.no_grad():
                taught = work.teacher.trace(work.teacher.restyle(work.view), regions=trace)
            if self.columns is not None:
                trace, taught = self.columns(trace, taught)
            for loss in self.parts:
                added = loss(trace, taught, work.view, work.progress)
                losses |= {name: loss.weight * value for name, value in added.items()}
        return losses, counts


def shares(counts: Mapping[str, Tensor], fabric: Any) -> dict[str, Tensor]:
    """The factor of each loss with which processes, whose gradients are averaged, give what one process would give.

    A loss that is a mean over n_r things in process r counts world x n_r / (n_1 + n_2 + ...). Losses without a count
    are taken as they are: their mean over the processes is what they say (distillation losses divide by what all
    processes hold). One process: no factors.
    """
    if fabric.world_size == 1 or not counts:
        return {}
    counted = torch.stack([torch.as_tensor(count, device=fabric.device).float() for count in counts.values()])
    total = fabric.all_reduce(counted.clone(), reduce_op="sum")
    return dict(zip(counts, (fabric.world_size * counted / total.clamp_min(1e-12)).unbind(), strict=True))


def learning_rate(training: DetectorTraining, step: int, steps: int, epoch: int) -> float:
    """Learning rate of a step, counted from 0: a line upwards over the warm-up, and a fall at each milestone."""
    rate = training.lr
    for milestone in training.milestones:
        if epoch >= round(milestone * training.epochs):
            rate *= training.lr_decay
    warmup = min(training.warmup, steps // 10)
    if step < warmup:
        rate *= WARMUP_START + (1 - WARMUP_START) * step / warmup
    return rate


def make_optimizer(module: nn.Module, training: DetectorTraining) -> torch.optim.Optimizer:
    """The optimizer of every parameter of the module that is not frozen."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if training.optimizer == "adamw":
        betas = (training.momentum, 0.999)
        return torch.optim.AdamW(parameters, training.lr, betas=betas, weight_decay=training.weight_decay)
    return torch.optim.SGD(parameters, training.lr, momentum=training.momentum, weight_decay=training.weight_decay)
