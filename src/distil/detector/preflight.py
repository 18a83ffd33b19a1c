"""What is worth knowing before an expensive training: minutes of checking against days of a run that learns nothing."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil.data.detection.detection_set import DetectionSet
from distil.data.detection.transforms import loader
from distil.detector.adapters import common_levels, freeze
from distil.detector.check import Check
from distil.detector.losses.base import DistillationLoss, TrainingContext
from distil.detector.losses.named import loss_objects
from distil.detector.settings import DetectorSettings, DetectorTraining
from distil.detector.training.prediction import Measure, predict
from distil.detector.training.setup import (
    class_match,
    in_data_labels,
    make_augmentation,
    make_losses,
    make_student,
    own_random_numbers,
)
from distil.detector.training.step import Step, Work
from distil.errors import DistilError
from distil.networks.detectors import Architecture
from distil.processes import make_fabric
from distil.rng import seed_at, stream
from distil.runs import Events, silent

LITTLE, MUCH = 0.01, 0.97
"""Shares of the gradient's norm: under the first all of a teacher's losses do next to nothing, over the second the
student's own losses do. Students whose first step had 90% gained most (docs/results/detector.md)."""
LARGEST_BATCH = 8


@dataclass(frozen=True)
class Preflight:
    """What the preflight found."""

    checks: tuple[Check, ...]
    teacher: dict[str, float]
    """ap and ap50 of the teacher in percent, on a sample of the training images; empty where nothing measured it."""
    losses: dict[str, float]
    """Losses of the first step, by name."""
    shares: dict[str, float]
    """Norm of each loss's gradient on the student's backbone, as a share of the sum of these norms."""
    seconds: dict[str, float]
    """Seconds of one step: plain, and with what a teacher adds."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What to look at, in sentences; those that stop a training first."""
        return tuple(check.sentence() for check in self._notable)

    @property
    def fatal(self) -> tuple[str, ...]:
        """The problems with which a training would be lost time."""
        return tuple(check.sentence() for check in self.checks if check.verdict == "stop")

    @property
    def _notable(self) -> list[Check]:
        return sorted((check for check in self.checks if check.verdict != "good"), key=lambda c: c.verdict != "stop")

    def refuse_if_fatal(self) -> None:
        """Raises: DistilError with every problem that makes a training lost time, if there is one."""
        if self.fatal:
            raise DistilError("the preflight stops this run:\n" + "\n".join(f"- {each}" for each in self.fatal))

    def describe(self, as_flag: Callable[[str], str] = str) -> str:
        """A table of the checks as text, and the problems below it. as_flag: how settings are written."""
        mark = {"good": "ok", "look": "LOOK", "stop": "STOP"}
        width = max((len(check.what) for check in self.checks), default=0)
        lines = [f"{mark[each.verdict]:>4}  {each.what:<{width}}  {each.told(as_flag)[0]}" for each in self.checks]
        problems = [f"- {check.sentence(as_flag)}" for check in self._notable]
        return "\n".join(lines + ([""] if problems else []) + problems)

    def to_dict(self) -> dict[str, Any]:
        """What was found, as JSON can hold it."""
        checks = []
        for check in self.checks:
            found, remedy = check.told()
            checks.append({"what": check.what, "found": found, "verdict": check.verdict, "remedy": remedy})
        return {**asdict(self), "checks": checks}


def preflight(
    student: Architecture | Any,
    teacher: Any,
    data: DetectionSet,
    settings: DetectorSettings,
    *,
    losses: Sequence[str | DistillationLoss] | None = None,
    measure: Measure | None = None,
    teacher_classes: Sequence[str] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    device: torch.device | str = "cpu",
    images: int = 64,
    repeats: int = 3,
    events: Events | None = None,
) -> Preflight:
    """Look at a student, a teacher, data and settings together, and take one step of each loss without learning.

    Arguments as of `train_detector`; teacher may be None. images: at most so many training images, drawn at their
    address, those that hold objects first, serve for the teacher's AP and for the prototypes of the trial step.
    repeats: steps whose time is taken, the fastest counts. events: "preparing" (what, and as far as it is known unit,
    done, of) before each part that takes time. The student is left as it was.

    The gradient is that on the student's backbone of a batch of at most 8 images that hold objects, in float32.

    Raises: DistilError when settings or data cannot be used at all; everything else is told in the result, and
    `refuse_if_fatal` raises what would make a training lost time.
    """
    training = settings.training
    named = [settings.distillation.loss] if settings.taught else []
    parts = loss_objects(named if losses is None else losses, settings.distillation)
    _, adapter = make_student(student, training.seed, data, weights)
    before = {name: x.clone() for name, x in adapter.model.state_dict().items()}
    modes = [(module, module.training) for module in adapter.model.modules()]
    fabric = make_fabric(device, training.precision)
    tell = (events or silent) if fabric.is_global_zero else silent
    place: torch.device = fabric.device
    adapter.model.to(place)
    order = torch.randperm(len(data), generator=stream(training.seed, "preflight")).tolist()
    holding = [index for index in order if bool((~data.annotations(index).ignored).any())]
    held = set(holding)
    sample = data.subset(sorted([*holding, *(index for index in order if index not in held)][:images]))
    checks = [Check("data", f"{len(data)} images, {sum(data.counts)} objects, {len(data.classes)} classes")]
    result: dict[str, Any] = {"teacher": {}, "losses": {}, "shares": {}, "seconds": {}}
    try:
        with own_random_numbers(place):
            module = Step(adapter)
            if teacher is not None and parts:
                freeze(teacher)
                teacher.model.to(place)
                checks += _pair(adapter, teacher)
                checks.append(_classes(teacher, teacher_classes, data))
                checks += _sizes(adapter, teacher)
                if measure is not None and not any(check.verdict == "stop" for check in checks):
                    check, result["teacher"] = _accuracy(teacher, teacher_classes, sample, settings, measure, tell)
                    checks.append(check)
                if any(check.verdict == "stop" and check.what != "teacher's AP50" for check in checks):
                    return Preflight(checks=tuple(checks), **result)
                try:
                    module = Step(adapter, *make_losses(adapter, teacher, teacher_classes, data, settings, parts))
                    module.to(place)
                    context = _context(adapter, teacher, sample, training, fabric, tell)
                    for loss in module.parts:
                        checks += loss.before_trial(context)
                except DistilError as error:
                    found, remedy = error.template.rstrip("."), "Choose other losses ({loss}), or another teacher."
                    checks.append(Check("losses", found, "stop", remedy, (*error.fields, "loss")))
                    return Preflight(checks=tuple(checks), **result)
            else:
                teacher = None
            tell("preparing", what="losses and gradients of a first step")
            view = _first_view(adapter, data.subset(sorted(holding[:images] or order)), training, place)
            result["losses"], result["shares"], student_losses = _gradients(module, Work(view, teacher))
            checks += _judge(result["losses"], result["shares"], student_losses, taught=teacher is not None)
            tell("preparing", what="the time that a step takes")
            result["seconds"] = _times(fabric, module, view, teacher, repeats)
            checks.append(_cost(result["seconds"], teacher))
            if teacher is not None:
                checks.append(_still_frozen(teacher))
    finally:
        adapter.model.zero_grad(set_to_none=True)
        adapter.model.load_state_dict(before)
        for part, mode in modes:
            part.training = mode
    return Preflight(checks=tuple(checks), **result)


def _pair(student: Any, teacher: Any) -> list[Check]:
    """Levels of equal stride, and weights that are not shared."""
    student_weights = {id(parameter) for parameter in student.model.parameters()}
    if any(id(parameter) in student_weights for parameter in teacher.model.parameters()):
        remedy = "Give the teacher a model of its own."
        return [Check("teacher", "it shares weights with the student", "stop", remedy)]
    try:
        levels = common_levels(student.strides, teacher.strides)
    except DistilError as error:
        return [Check("strides", str(error), "stop", "Choose detectors with a common stride.")]
    common = [student.strides[level] for level, _ in levels]
    found = f"student {_list(student.strides)}, teacher {_list(teacher.strides)}, common {_list(common)}"
    channels = f"student {student.channels}, teacher {teacher.channels}"
    if student.channels != teacher.channels:
        channels += ": losses on maps adapt the student's by convolutions"
    alone = len(levels) == 1 < len(student.strides)
    remedy = "Losses on maps see one level only; prefer detectors with the same levels." if alone else ""
    return [Check("strides", found, "look" if alone else "good", remedy), Check("channels", channels)]


def _classes(teacher: Any, teacher_classes: Sequence[str] | None, data: DetectionSet) -> Check:
    try:
        match = class_match(teacher, teacher_classes, data)
    except DistilError as error:
        return Check("classes", str(error).rstrip("."), "stop", "A teacher must know classes of this data.")
    found = "; ".join(match.describe().splitlines())
    if match.complete:
        return Check("classes", found)
    remedy = "Soft labels compare the common classes only; the other losses use all objects."
    return Check("classes", found, "look", remedy)


def _sizes(student: Any, teacher: Any) -> list[Check]:
    """In training the teacher sees the student's view; its AP is measured on images of its own size."""
    seen = [getattr(getattr(part.model, "transform", None), "max_size", None) for part in (student, teacher)]
    if None in seen or seen[0] == seen[1]:
        return []
    found = f"at most {seen[0]} pixels a side in the student's view, {seen[1]} in the teacher's own"
    remedy = (
        "In training the teacher sees the student's view, where its AP may be lower than above: prefer equal sizes."
    )
    return [Check("image sizes", found, "look", remedy)]


def _accuracy(
    teacher: Any,
    teacher_classes: Sequence[str] | None,
    data: DetectionSet,
    settings: DetectorSettings,
    measure: Measure,
    tell: Events,
) -> tuple[Check, dict[str, float]]:
    """The teacher on a sample of the training images."""

    def done(images: int) -> None:
        tell("preparing", what="the teacher's AP", unit="image", done=images, of=len(data))

    done(0)
    predicted = predict(teacher, data, batch=min(settings.training.batch, LARGEST_BATCH), done=done)
    found = in_data_labels(predicted, class_match(teacher, teacher_classes, data))
    score = measure(found, [data.annotations(index) for index in range(len(data))], data.classes)
    text = f"{score.ap50:.1f} % (AP {score.ap:.1f} %) on {len(data)} training images"
    values = {"ap": float(score.ap), "ap50": float(score.ap50)}
    floor = settings.distillation.teacher_floor
    if score.ap50 >= floor:
        return Check("teacher's AP50", text), values
    remedy = (
        f"That is under {{teacher_floor={floor:g}}}: what it knows does not fit this data (other "
        "classes, other image sizes, or weights that were not loaded). Train a teacher on it, or lower the floor."
    )
    return Check("teacher's AP50", text, "stop", remedy, ("teacher_floor",)), values


def _context(
    adapter: Any, teacher: Any, sample: DetectionSet, training: DetectorTraining, fabric: Any, tell: Events
) -> TrainingContext:
    """Where a training of the sample would be before its first step."""
    return TrainingContext(
        student=adapter,
        teacher=teacher,
        data=sample,
        epoch=0,
        epochs=training.epochs,
        step=0,
        position=0,
        batch=training.batch,
        seed=training.seed,
        folder=Path(),
        device=fabric.device,
        events=tell,
        fabric=fabric,
    )


def _first_view(adapter: Any, data: DetectionSet, training: DetectorTraining, device: torch.device) -> Any:
    batches = loader(
        data,
        batch=min(training.batch, LARGEST_BATCH),
        seed=training.seed,
        epoch=0,
        shuffle=True,
        augmentation=make_augmentation(training),
    )
    batch = next(iter(batches))
    adapter.model.train()
    images = [image.to(device) for image, _ in batch]
    targets = [{key: target[key].to(device) for key in ("boxes", "labels")} for _, target in batch]
    seeds = [seed_at(training.seed, "image", 0, index) for index in range(len(batch))]
    return adapter.view(images, targets, seeds=seeds)


def _gradients(module: Step, work: Work) -> tuple[dict[str, float], dict[str, float], list[str]]:
    """Each loss, its gradient's norm on the backbone as a share of all norms, and the names of the student's own."""
    module.train()
    model: Any = module.model
    backbone = getattr(model, "backbone", model)
    weights = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    losses, counts = module(work)
    norms = {}
    for name, loss in losses.items():
        found = [None] * len(weights)
        if loss.requires_grad:
            found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        parts = [gradient.float().norm() for gradient in found if gradient is not None]
        norms[name] = float(torch.stack(parts).norm()) if parts else 0.0
    total = sum(norm for norm in norms.values() if abs(norm) < float("inf"))
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    return values, {name: norm / total if total else 0.0 for name, norm in norms.items()}, list(counts)


def _judge(
    losses: Mapping[str, float], shares: Mapping[str, float], student_losses: Sequence[str], *, taught: bool = True
) -> list[Check]:
    """What the first step tells of every loss."""
    checks = []
    for name, value in losses.items():
        share = shares[name]
        if not (abs(value) < float("inf") and share == share):
            found, remedy = (
                f"{value}, or its gradient, is not a finite number",
                "Try {precision=32}, and look at the data.",
            )
            checks.append(Check(f"loss {name}", found, "stop", remedy, ("precision",)))
        else:
            checks.append(Check(f"loss {name}", f"{value:.4g}, {100 * share:.1f} % of the gradient"))
    added = [name for name in losses if name not in student_losses]
    share = sum(shares[name] for name in added)
    if taught and not added:
        remedy = "Every weight of {loss} is 0: the teacher costs time and teaches nothing."
        return [*checks, Check("teacher's losses", "there are none", "look", remedy, ("loss",))]
    if not added or share != share:
        return checks
    text = f"{100 * share:.1f} % of the gradient"
    if share < LITTLE:
        remedy = "They hardly move the student: raise their weights, or check that the teacher is trained."
        checks.append(Check("teacher's losses", text, "look", remedy))
    elif share > MUCH:
        remedy = "They drown the student's own losses: lower their weights, or lengthen {warmup}."
        checks.append(Check("teacher's losses", text, "look", remedy, ("warmup",)))
    else:
        checks.append(Check("teacher's losses", text))
    return checks


def _times(fabric: Any, module: Step, view: Any, teacher: Any, repeats: int) -> dict[str, float]:
    """Seconds of forward and backward passes: of the student alone, and with its teacher."""

    def once(work: Work) -> None:
        with fabric.autocast():
            losses, _ = module(work)
        torch.stack(list(losses.values())).sum().backward()

    seconds = {"plain": _fastest(lambda: once(Work(view)), fabric.device, repeats)}
    if teacher is not None:
        seconds["distilled"] = _fastest(lambda: once(Work(view, teacher)), fabric.device, repeats)
    return seconds


def _fastest(compute: Callable[[], None], device: torch.device, repeats: int) -> float:
    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    compute()
    taken = []
    for _ in range(repeats):
        began = clock()
        compute()
        taken.append(clock() - began)
    return min(taken)


def _cost(seconds: Mapping[str, float], teacher: Any) -> Check:
    plain = f"{seconds['plain']:.3g} s alone"
    if teacher is None:
        return Check("step", plain)
    ratio = seconds["distilled"] / seconds["plain"]
    return Check("step", f"{plain}, {seconds['distilled']:.3g} s with the teacher: {ratio:.2f} x")


def _still_frozen(teacher: Any) -> Check:
    """After the steps: no parameter of the teacher has or wants a gradient, no module of it trains."""
    model: nn.Module = teacher.model
    wrong = [name for name, p in model.named_parameters() if p.requires_grad or p.grad is not None]
    wrong += [name or "the model" for name, part in model.named_modules() if part.training]
    if not wrong:
        return Check("teacher", "frozen and in eval mode, after steps too")
    remedy = "Its adapter's trace must work without gradient and leave the mode alone."
    return Check("teacher", f"not frozen: {wrong[0]}", "stop", remedy)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
