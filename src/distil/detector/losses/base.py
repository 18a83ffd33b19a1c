"""What a distillation loss is, and what it may ask of the training around it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from distil.data.detection.detection_set import DetectionSet
from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.check import Check
from distil.errors import DistilError
from distil.runs import Events
from distil.types import Trace, View

Value = TypeVar("Value")


def on_first(fabric: Any, compute: Callable[[], Value]) -> Value:
    """What `compute()` gives in the first of Fabric's processes, in all of them."""
    return fabric.broadcast(compute() if fabric.is_global_zero else None)


@dataclass(frozen=True)
class TrainingContext:
    """Where a training is when a hook of a loss is called."""

    student: DetectorAdapter
    teacher: DetectorAdapter
    data: DetectionSet
    """The images of the training."""
    epoch: int
    """Counted from 0."""
    epochs: int
    step: int
    """Steps that are done, of all epochs."""
    position: int
    """Steps that are done of this epoch: above 0 only where a resumed run continues inside one."""
    batch: int
    """Images in a step, over all processes together."""
    seed: int
    folder: Path
    """The run folder."""
    device: torch.device
    events: Events
    """Told what is at work; silent but in the first process."""
    fabric: Any
    """Lightning Fabric of the run, through which processes share values."""

    def on_first(self, compute: Callable[[], Value]) -> Value:
        """What `compute()` gives in the first process, in all of them."""
        return on_first(self.fabric, compute)


class DistillationLoss(nn.Module):
    """A loss that a teacher adds: give an instance of a subclass to `train_detector(..., losses=[...])`.

    Its parameters train with the student and are no part of it. Only `forward` has to be written; the hooks do nothing
    unless they are. With several processes every hook but `after_save` is called in each of them.
    """

    name: str = ""
    """Its name in logs, checkpoints and run files; the class's, in small letters, where none is given."""

    def __init__(self, weight: float = 1.0) -> None:
        """weight: factor on all losses that `forward` returns, applied by the training.

        Raises: DistilError when it is not above 0.
        """
        super().__init__()
        if not 0 < weight < float("inf"):
            raise DistilError(f"{{weight}} of {type(self).__name__} is {weight}: it must be above 0.", field="weight")
        self.weight = weight
        self.name = self.name or type(self).__name__.lower()

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        """Named scalar losses of what both detectors computed on one batch.

        progress: share of the steps that are done, 0 to 1. Nothing of the teacher's has a gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward(student, teacher, view, progress)")

    def facts(self) -> dict[str, Any]:
        """What determines this loss, as JSON can hold it: a run resumes only with losses of the same facts."""
        return {"weight": self.weight}

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        """Called once, before the training: make the layers that depend on the two detectors.

        torch's generator is then seeded at this loss's own address. Raises: DistilError when they cannot be compared.
        """

    def before_trial(self, context: TrainingContext) -> Sequence[Check]:
        """Called in place of `before_epoch` where a single step is tried (`distil.preflight`), with few images of the
        data: make what a step needs, and tell what was found."""
        return ()

    def before_epoch(self, context: TrainingContext) -> None:
        """Called before an epoch, and once more where a resumed run continues inside one."""

    def after_step(self, batch: Sequence[Mapping[str, Tensor]]) -> None:
        """Called after each step. batch: of each image its target, with `image_id`, `objects`, `boxes`, `labels`."""

    def extra_state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside parameters and buffers."""
        return {}

    def check_extra_state(self, tensors: Mapping[str, Tensor], context: TrainingContext) -> None:
        """Called with a checkpoint's state before anything of it is used; `context` is where that run was.

        Raises: DistilError when this run cannot continue from it: the checkpoint before it is then tried.
        """

    def load_extra_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `extra_state` gave, on the CPU."""

    def after_save(self, context: TrainingContext) -> None:
        """Called in the first process after a checkpoint was written: files that no checkpoint needs can go."""
