"""The trajectory loop: a student trained on the synthetic images is to end where an expert trained on real ones ended.

Every draw is addressed by (seed, name, step): a resumed run is equal bit for bit on the CPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, softmax

from distil.dataset.config import LearnedLabels, Trajectory, starts
from distil.dataset.image_optimizer import image_optimizer
from distil.dataset.labels import expert_logits, hard_labels
from distil.dataset.protocols import Expected, Selection, Task
from distil.dataset.restoring import LARGEST, LARGEST_WEIGHT, check_tensors
from distil.distilled_set.record import DistilledSet
from distil.functional.augment import augment, normalize
from distil.functional.trajectory import student_weights, trajectory_distance, trajectory_gradient
from distil.networks.experts import Experts
from distil.parameterizations.base import Parameterization
from distil.rng import stream

LEAST_LR = 1e-6
"""The student's learning rate is held above this."""
LR_MOMENTUM = 0.5
"""Momentum of the student's learning rate."""


@dataclass
class TrajectoryLoop:
    """In each step an expert and one of its epochs are drawn. A student begins with the expert's weights there and is
    trained for `student_steps` updates on the decoded images; the distance of its weights from those that the expert
    had `span` epochs later moves the stored parameters, the student's learning rate and, if they are learned, labels.

    Source: MTT (Cazenavette et al. 2022); the gradient update by update as in TESLA (Cui et al. 2023);
    learned labels, growing epochs and skipped steps of DATM (Guo et al. 2024). Differs: images are not whitened (ZCA),
    so that the set can be used by any network, and stay where their parameterization may be.
    """

    task: Task
    settings: Trajectory
    selection: Selection
    finish: Callable[[Tensor, Parameterization], DistilledSet]
    done: int = 0

    def __post_init__(self) -> None:
        self.steps = self.settings.steps
        self.optimizer = image_optimizer(self.settings.optimizer, self.steps)
        self.learned = self.settings.labels if isinstance(self.settings.labels, LearnedLabels) else None

    @property
    def experts(self) -> Experts:
        if self.task.experts is None:
            raise ValueError("a trajectory loop needs experts")
        return self.task.experts

    @cached_property
    def student(self) -> nn.Module:
        """A network of the kind that is trained; its own weights are not used."""
        assert self.task.network is not None
        return self.task.network()

    def begin(self) -> None:
        device = self.task.device
        self.placed, self.params = self.selection.initial()
        self.moments = {name: torch.zeros_like(self.params) for name in self.optimizer.moments}
        self.student_lr = torch.tensor(self.settings.student_lr, device=device)
        self.lr_momentum = torch.zeros((), device=device)
        with torch.no_grad():
            images = self.placed.decode(self.params)
        self.classes = self._classes(len(images))
        self.logits = torch.zeros(0, device=device)
        if self.learned:
            self.logits = expert_logits(self.task, self.experts, images, self.classes)
        self.logits_momentum = torch.zeros_like(self.logits)
        self.done, self.told = 0, self.selection.event(self.placed)

    def _classes(self, images: int) -> Tensor:
        return hard_labels(self.task.classes, images // self.task.classes).to(self.task.device)

    def last_start(self, step: int) -> int:
        """The last epoch at which a student of this step may start."""
        first, last = self.settings.start_to_first, self.settings.start_to
        return last if first is None else first + (last - first + 1) * step // self.steps

    def segment(self, step: int) -> tuple[list[Tensor], list[Tensor]]:
        """(weights to start from, weights to reach) of a step, on the device."""
        generator = stream(self.task.seed, "trajectory", step, "segment")
        run = int(torch.randint(self.experts.runs, (1,), generator=generator))
        epochs = starts(self.settings, self.last_start(step))
        epoch = epochs[int(torch.randint(len(epochs), (1,), generator=generator))]
        ends = self.experts.weights(run, epoch), self.experts.weights(run, epoch + self.settings.span)
        start, target = ([weight.to(self.task.device) for weight in weights] for weights in ends)
        return start, target

    def batches(self, step: int, images: int) -> list[Tensor]:
        """Which images each of the student's updates sees: passes over all of them in random order."""
        size, found = min(self.settings.batch_synthetic, images), list[Tensor]()
        while len(found) < self.settings.student_steps:
            generator = stream(self.task.seed, "trajectory", step, "order", len(found))
            order = torch.randperm(images, generator=generator)
            found += order.split(size)
        return [rows.to(self.task.device) for rows in found[: self.settings.student_steps]]

    def step(self) -> dict[str, Tensor]:
        settings, real, step = self.settings, self.task.real, self.done
        self._choose_again()
        start, target = self.segment(step)
        leaf = self.params.detach().requires_grad_()
        decoded = self.placed.decode(leaf)
        images, logits = decoded.detach().requires_grad_(), self.logits.detach().requires_grad_()
        self.classes = self._classes(len(images))
        batches = self.batches(step, len(images))
        names = [name for name, _ in self.student.named_parameters()]

        def batch_loss(update: int, weights: Sequence[Tensor]) -> Tensor:
            rows = batches[update]
            generator = stream(self.task.seed, "trajectory", step, "augment", update)
            seen = normalize(images[rows], real.mean, real.std)
            seen = augment(seen, settings.augment, generator, shared=False, one=settings.augment_one)
            labels = softmax(logits[rows], 1) if self.learned else self.classes[rows]
            return cross_entropy(functional_call(self.student, dict(zip(names, weights, strict=True)), (seen,)), labels)

        path = student_weights(batch_loss, start, self.student_lr, settings.student_steps)
        loss, lr = trajectory_distance(path[-1], target, start), self.student_lr.clone()
        if not settings.skip_above or float(loss) <= settings.skip_above:
            leaves = [images, logits] if self.learned else [images]
            held = settings.hold_weights
            found = trajectory_gradient(batch_loss, path, target, leaves, lr, hold_weights=held)
            gradient = torch.autograd.grad(decoded, leaf, found.leaves[0])[0]
            self._move(gradient, found.lr, found.leaves[1] if self.learned else None)
        self.done += 1
        if self.done == self.steps:
            self.placed.project_(self.params)
        return {"loss": loss, "student_lr": lr}

    def _choose_again(self) -> None:
        self.placed.project_(self.params)
        before = self.placed
        self.placed = self.selection.refresh(self.done, before, self.params, list(self.moments.values()))
        self.told = self.told if self.placed is before else self.selection.event(self.placed)

    def _move(self, gradient: Tensor, lr: Tensor, labels: Tensor | None) -> None:
        scale = self.optimizer.scale(self.placed, self.params, self.task.real.std)
        self.optimizer.move_(self.params, self.moments, gradient, self.done, scale)
        self.lr_momentum = LR_MOMENTUM * self.lr_momentum + lr
        self.student_lr = (self.student_lr - self.settings.student_lr_lr * self.lr_momentum).clamp_min(LEAST_LR)
        if self.learned and labels is not None:
            self.logits_momentum.mul_(self.learned.label_momentum).add_(labels)
            self.logits.sub_(self.learned.label_lr * self.logits_momentum)

    def sound(self) -> Tensor:
        largest = torch.stack([self.params.abs().max(), self.student_lr.abs()])
        return (largest < LARGEST).all() & (self.logits.abs() < LARGEST_WEIGHT).all()

    def state_dict(self) -> dict[str, Tensor]:
        learned = {"logits": self.logits, "logits_momentum": self.logits_momentum} if self.learned else {}
        lr = {"student_lr": self.student_lr, "student_lr_momentum": self.lr_momentum}
        return {"canvases": self.params, **self.moments, **self.placed.state(), **lr, **learned}

    def check(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        expected = self.selection.expected(None if step == 0 else step - 1)
        for name, largest in self.optimizer.largest(step, self.task.real.std, LARGEST).items():
            expected[name] = Expected(expected["canvases"].shape, -largest, largest)
        expected["student_lr"] = Expected((), LEAST_LR / 2, LARGEST)
        expected["student_lr_momentum"] = Expected((), -3e38, 3e38)
        names = ("logits", "logits_momentum") if self.learned else ()
        check_tensors({name: tensor for name, tensor in tensors.items() if name not in names}, expected)
        placed = self.selection.restored(tensors)
        rows = self.task.classes * self.task.ipc * placed.images_per_item
        like = Expected((rows, self.task.classes), -LARGEST_WEIGHT, LARGEST_WEIGHT)
        check_tensors({name: tensors[name] for name in names if name in tensors}, dict.fromkeys(names, like))

    def load_state_dict(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        tensors = {name: tensor.to(self.task.device) for name, tensor in tensors.items()}
        self.done, self.params = step, tensors["canvases"]
        self.moments = {name: tensors[name] for name in self.optimizer.moments}
        self.student_lr, self.lr_momentum = tensors["student_lr"], tensors["student_lr_momentum"]
        empty = self.params.new_zeros(0)
        self.logits, self.logits_momentum = tensors.get("logits", empty), tensors.get("logits_momentum", empty)
        self.placed = self.selection.restored(tensors)
        self.told = self.selection.event(self.placed)

    def snapshot(self) -> DistilledSet:
        placed = self.selection.finished(self.placed, self.params)
        made = replace(self.finish(*placed.quantize(self.params)), student_lr=float(self.student_lr))
        if not self.learned:
            return made
        labels = softmax(self.logits, 1).cpu()
        each = made.images_per_item
        labels = labels if each == 1 else labels.unflatten(0, (-1, each))
        return replace(made, labels=labels, item_classes=made.labels)

    def event(self) -> tuple[str, dict[str, Any]] | None:
        return self.told
