"""train_detector: one loop for a detector alone and for a detector with a teacher."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.data.detection.detection_set import DetectionSet
from distil.detector.adapters import freeze
from distil.detector.losses.base import DistillationLoss
from distil.detector.training.prediction import Measure, predict
from distil.detector.training.setup import make_fabric, make_knowledge, make_student, own_random_numbers
from distil.detector.training.step import Step
from distil.detector.training.trainer import BEST, LAST, Run
from distil.errors import DistilError
from distil.locks import only_writer
from distil.networks.detectors import Architecture
from distil.runs import Events, has_checkpoint, silent
from distil.settings import DetectorSettings, check_settings
from distil.stopping import stop_requests

__all__ = ["BEST", "LAST", "Measure", "hold_out", "predict", "train_detector"]


def train_detector(
    student: Architecture | Any,
    data: DetectionSet,
    settings: DetectorSettings,
    *,
    out: Path | str,
    teacher: Any = None,
    losses: Sequence[str | DistillationLoss] = (),
    teacher_classes: Sequence[str] | None = None,
    validation: DetectionSet | None = None,
    measure: Measure | None = None,
    weights: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    events: Events | None = None,
    checkpoint_seconds: float = 120.0,
) -> Path:
    """Train a detector, with the knowledge of a teacher or without; returns the file of the student's weights.

    student: an architecture, initialised from `settings.seed`, or an adapter of a detector of one's own.
    data: training images. teacher: an adapter; needed by every `settings.knowledge` but "none", and unused by that.
    losses: what the teacher adds, in place of `settings.knowledge`: names, with weights if need be ("gkd", "pkd=0.05"),
    and objects of your making (`distil.detector.losses.base.DistillationLoss`), prepared here for the two detectors.
    teacher_classes: names of the teacher's classes; None: those of `data`. Soft labels compare the classes that both
    know. validation: images that choose the best epoch by AP; None: a share `settings.validation` of `data`, held out.
    measure: how AP is computed, `distil.evaluation.precision.average_precision`; None: nothing is held out or chosen.
    weights: the student's first weights, loaded strictly. out: run folder, which gets checkpoint.safetensors and the
    one before it, last.safetensors, best.safetensors and, with gkd, prototypes-NNNN.safetensors, NNNN the epoch that
    begins with them; no other process can write there meanwhile. resume: go on from the folder's checkpoint if there is
    one, or from the one before it if it is damaged; bit-equal to an uninterrupted run on the CPU.
    device: of a single process; with torchrun every process takes its own, of this type.
    events: "start" (step, steps, epochs), "note" (text: that a damaged checkpoint was passed over), "step" (step,
    steps, epoch, lr, loss, losses: means since the last one), "preparing" (what: prototypes or a validation, before
    they begin), "prototypes" (step, epoch, count, file, seconds), "validation" (step, epoch, ap, ap50, best),
    "checkpoint", "done".
    checkpoint_seconds: time between checkpoints; one is also written with each new best, before and after the last
    validation, and when a signal asks the run to stop (`distil.stopping`).

    All draws are addressed by the seed, the epoch and the image. With torchrun, `settings.batch` images a step are
    dealt to the processes and the gradients are those of one process, if images have one size (padding follows the
    largest of a process's own) and the student's batch norms, if any, are frozen. An epoch's last batch that has
    fewer images than there are processes is filled up; FCOS divides its losses by the objects' locations of the batch,
    at least 1, and a process without any counts as having one.

    Raises: DistilError when student, teacher, data and settings do not fit, when a loss is not finite (naming it and
    the step; the last checkpoint, from before, is kept), when the folder cannot be written or another run writes there;
    Interrupted after such a signal.
    """
    own = [loss for loss in losses if not isinstance(loss, str)]
    if losses:
        settings = replace(settings, knowledge=",".join(loss for loss in losses if isinstance(loss, str)) or "none")
    check_settings(settings)
    out = Path(out)
    _check_folder(out, resume)
    architecture, adapter = make_student(student, settings, data, weights)
    if own and teacher is None:
        raise DistilError(f"the loss {own[0].name} needs a teacher: give one, or leave the loss out.")
    if settings.knowledge != "none" and teacher is None:
        raise DistilError(f"--loss {settings.knowledge} needs a teacher: give one, or --loss none.")
    kept, held_out = hold_out(data, validation, settings, measure)
    fabric = make_fabric(device, settings.precision)
    knowledge, columns = None, None
    if settings.knowledge == "none" and not own:
        teacher = None
    else:
        freeze(teacher)
        fabric.to_device(teacher.model)
        knowledge, columns = make_knowledge(adapter, teacher, teacher_classes, data, settings, own)
    events = (events or silent) if fabric.is_global_zero else silent
    with ExitStack() as stack:
        stack.enter_context(only_writer(out) if fabric.is_global_zero else nullcontext())
        stack.enter_context(own_random_numbers(fabric.device))
        if fabric.world_size > 1:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        module = Step(adapter, knowledge, columns)
        run = Run(fabric, module, architecture, teacher, kept, held_out, settings, measure, out, events)
        if resume and has_checkpoint(out):
            run.restore()
        run.train(stack.enter_context(stop_requests()), checkpoint_seconds)
        return run.finish()


def hold_out(
    data: DetectionSet, validation: DetectionSet | None, settings: DetectorSettings, measure: Measure | None
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
        elif settings.validation:
            data, held_out = data.split(settings.validation, settings.seed)
    if not len(data) or not sum(data.counts):
        raise DistilError(
            f"{data.name} has {len(data)} images and no object in them: give images with annotated boxes."
        )
    return data, held_out


def _check_folder(out: Path, resume: bool) -> None:
    if not resume and has_checkpoint(out):
        raise DistilError(
            f"{out} already holds a training run. Continue it with --resume {out}, or choose another folder with --out."
        )
