"""train_detector: one loop for a detector alone and for a detector with a teacher."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.data.detection.detection_set import DetectionSet
from distil.detector.adapters import freeze
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.named import loss_objects
from distil.detector.settings import DetectorSettings, DetectorTraining
from distil.detector.training.prediction import Measure, predict
from distil.detector.training.setup import make_losses, make_student, own_random_numbers
from distil.detector.training.step import Step
from distil.detector.training.trainer import BEST, LAST, Run
from distil.errors import DistilError
from distil.fields import with_values
from distil.locks import only_writer
from distil.networks.detectors import Architecture
from distil.processes import make_fabric
from distil.runs import Events, has_checkpoint, silent
from distil.stopping import stop_requests

__all__ = ["BEST", "LAST", "Measure", "hold_out", "predict", "train_detector"]


def train_detector(
    student: Architecture | Any,
    data: DetectionSet,
    settings: DetectorSettings | None = None,
    *,
    out: Path | str,
    teacher: Any = None,
    losses: Sequence[str | DistillationLoss] | None = None,
    teacher_classes: Sequence[str] | None = None,
    validation: DetectionSet | None = None,
    measure: Measure | None = None,
    weights: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    events: Events | None = None,
    checkpoint_seconds: float = 120.0,
) -> Path:
    """Train a detector, alone or as the student of a teacher; returns the file of the student's weights.

    student: an architecture, initialized from the seed, or an adapter of a detector of your own. data: training images.
    settings: of the training, and of the losses that are given by name; None: the published ones.
    teacher: an adapter; unused where it adds no loss.
    losses: what the teacher adds: objects, as `GlobalKnowledge()`, `PKD(0.05)` or one of your making
    (`distil.detector.losses.base.DistillationLoss`), which are prepared here for the two detectors; or names, with
    weights if need be ("pkd=0.05"). None: those that `settings.distillation` names.
    teacher_classes: names of the teacher's classes; None: those of `data`. Soft labels compare the classes that both
    know. validation: images that choose the best epoch by AP; None: a share `validation` of `data`, held out.
    measure: how AP is computed, `distil.evaluation.precision.average_precision`; None: nothing is held out or chosen.
    weights: the student's first weights, loaded strictly. out: run folder, which gets checkpoint.safetensors and the
    one before it, last.safetensors, best.safetensors and, with gkd, prototypes-NNNN.safetensors, NNNN the epoch that
    begins with them; no other process can write there meanwhile. resume: continue from the folder's checkpoint if there
    is one, or from the one before it if it is damaged; bit-equal to an uninterrupted run on the CPU.
    device: of a single process; with torchrun every process takes its own, of this type.
    events: "start" (step, steps, epochs), "note" (text: that a damaged checkpoint was passed over), "step" (step,
    steps, epoch, lr, loss, losses: means since the last one), "preparing" (what: prototypes or a validation, before
    they begin), "prototypes" (step, epoch, count, file, seconds), "validation" (step, epoch, ap, ap50, best),
    "checkpoint", "done".
    checkpoint_seconds: time between checkpoints; one is also written with each new best, before and after the last
    validation, and when a signal asks the run to stop (`distil.stopping`).

    All draws are addressed by the seed, the epoch and the image. With torchrun, the `batch` images of a step are
    dealt to the processes and the gradients are those of one process, if images have one size (padding follows the
    largest of a process's own) and the student's batch norms, if any, are frozen. An epoch's last batch that has
    fewer images than there are processes is filled up; FCOS divides its losses by the objects' locations of the batch,
    at least 1, and a process without any counts as having one.

    Raises: DistilError when student, teacher, data and settings do not fit, when a loss is not finite (naming it and
    the step; the last checkpoint, from before, is kept), when the folder cannot be written or another run writes there;
    Interrupted after such a signal.
    """
    settings = settings or DetectorSettings()
    how = settings.distillation
    if losses is None:
        losses = [how.loss] if settings.taught else []
    parts = loss_objects(losses, how)
    named = ",".join(loss for loss in losses if isinstance(loss, str))
    settings = with_values(settings, loss=named or "none")
    out = Path(out)
    _check_folder(out, resume)
    architecture, adapter = make_student(student, settings.training.seed, data, weights)
    if parts and teacher is None:
        raise DistilError(f"the loss {parts[0].name} needs a teacher: give one, or leave the loss out.")
    kept, held_out = hold_out(data, validation, settings.training, measure)
    fabric = make_fabric(device, settings.training.precision)
    ready, columns = None, None
    if parts:
        freeze(teacher)
        fabric.to_device(teacher.model)
        ready, columns = make_losses(adapter, teacher, teacher_classes, data, settings, parts)
    else:
        teacher = None
    events = (events or silent) if fabric.is_global_zero else silent
    with ExitStack() as stack:
        stack.enter_context(only_writer(out) if fabric.is_global_zero else nullcontext())
        stack.enter_context(own_random_numbers(fabric.device))
        if fabric.world_size > 1:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        module = Step(adapter, ready, columns)
        run = Run(fabric, module, architecture, teacher, kept, held_out, settings, measure, out, events)
        if resume and has_checkpoint(out):
            run.restore()
        run.train(stack.enter_context(stop_requests()), checkpoint_seconds)
        return run.finish()


def hold_out(
    data: DetectionSet, validation: DetectionSet | None, training: DetectorTraining, measure: Measure | None
) -> tuple[DetectionSet, DetectionSet | None]:
    """Images to train on, and images to choose the best epoch by; None where nothing is measured.

    Raises: DistilError when there is no image or no object to learn from, or the classes differ.
    """
    held_out = None
    if measure is not None:
        if validation is not None:
            held_out = validation
            if validation.classes != data.classes:
                raise DistilError(
                    f"the classes of {validation.name} are not those of {data.name}: use data of one kind."
                )
        elif training.validation:
            data, held_out = data.split(training.validation, training.seed)
    if not len(data) or not sum(data.counts):
        raise DistilError(
            f"{data.name} has {len(data)} images and no object in them: give images with annotated boxes."
        )
    return data, held_out


def _check_folder(out: Path, resume: bool) -> None:
    if not resume and has_checkpoint(out):
        raise DistilError(
            f"{out} already holds a training run. Continue it ({{resume}}), or choose another folder ({{out}}).",
            field=("resume", "out"),
        )
