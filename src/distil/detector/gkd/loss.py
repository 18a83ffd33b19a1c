"""Global knowledge (RDM): what a student learns from its teacher, filtered by how reliable each instance is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.check import Check
from distil.detector.gkd.pooling import pool_pair
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.gkd.schedule import PrototypeSchedule
from distil.detector.losses.base import DistillationLoss, TrainingContext
from distil.detector.losses.distributed import shared
from distil.detector.losses.maps import (
    Form,
    aligning,
    checked_form,
    full_precision,
    mean_of_levels,
    painted,
    paired_maps,
    pyramids_of,
)
from distil.detector.losses.response import comparable, see_activations, soft_label_distance
from distil.detector.settings import GlobalSettings, PrototypeSettings
from distil.errors import DistilError
from distil.fields import to_dict
from distil.functional.boxes import pyramid_levels, released_levels
from distil.functional.prototypes import nearest_cosine, projection, reliability
from distil.runs import CHECKPOINT
from distil.types import Trace, View

TINY = 1e-12


@dataclass(frozen=True)
class Reliabilities:
    """How far two detectors agree on every instance, in [0, 1], without gradient; in the order of the trace."""

    levels: Float[Tensor, "l i"]
    """Reliability on every common level, finest first."""
    own: Float[Tensor, " i"]
    """Reliability on the level of the instance's size."""
    level: Int[Tensor, " i"]
    """That level: an index into the common levels."""


@dataclass(frozen=True)
class _Basis:
    """Prototypes of one level."""

    student: Float[Tensor, "p s"]
    teacher: Float[Tensor, "p t"]
    labels: Int[Tensor, " p"]


class GlobalKnowledge(DistillationLoss):
    """Robust distilling with prototypes: global, local and soft-label terms, instances weighed by their reliability w.

    f_il: mean of level l's map over the box of instance i. Reliability w_il = 1 - |q^s - q^t|, with q the largest
    cosine of f_il to a prototype of its class and level in each space; w_i is that of the level of the box's size.
    Without prototypes (of the level, of the class) it is 1. With p_k the prototypes of ALL classes of the level, P the
    projection:

    - gkd.global: sum over l of mean over (i, k) of smoothL1(w_il P(f^s_il, p^s_k), w_il P(f^t_il, p^t_k)); absent
      before the first prototypes; with global_levels "own" only the level of the box's size counts (ours)
    - gkd.foreground: mean over l of sum M (A(F^s) - F^t)^2 / max(1, 2 sum M), sums over images, channels and cells; M
      is w_i within the boxes of level l (the largest where they overlap); A a convolution a level; with local_scale
      "teacher" each level is divided by the mean of (F^t)^2 over its map (ours)
    - gkd.background: the same with 1 where M is 0, and 0 elsewhere; of both, in form "published", the sum over l of
      one-stage detectors
    - gkd.soft: mean over i of w_i T^2 KL(teacher || student) of class probabilities (`soft_label_distance`)

    times their weights; the first three times 1 - progress where `decay`. The losses compute in float32 (the
    convolutions in the precision around them), are finite on a batch without instances (0, but for the background),
    and divide by the instances and masks of all processes, so that averaged gradients are those of one process with
    the whole batch.

    last: reliabilities of the latest batch, for reports. truth: where the features of training steps are gathered for
    the next choice of prototypes, what both detectors saw of the latest view's true objects, (l, m, c) each without
    gradient, images one after another.
    Source: "Distilling Object Detectors With Global Knowledge" (ECCV 2022) and its released code.
    Differs: the global term is reached (the code's settings exclude it); reliability clamped to [0, 1]; progress is
    continuous rather than by epochs; overlapping boxes take the largest reliability rather than the last; sigmoid
    heads get binary divergences; KL is the sum over columns, as the paper has it, which the code divides by their
    number (its gradient is so many times smaller: 81 on COCO); a one-stage detector has at most 128 instances an image;
    of soft labels the level is that of the masks (the code's RoI extractor adds no pixel and ends at the fourth). No
    ReLU follows the adapting convolutions: the code has one for one-stage detectors alone, where the convolution has no
    padding, so that its map no longer fits the teacher's; half of the teacher's features, the negative ones, would be
    out of reach, and the student's gradient of the local terms is 0.40 of ours with it.
    In form "distil" also: boxes lie on the level of their stride and without an added pixel (`released_levels` says
    what that moves); they paint the cells whose centers they hold, where the code rounds both corners down, half a
    cell on average, and paints 0.98 times as many cells; local terms are means over levels also of one-stage
    detectors, whose sum over five levels has five times the gradient, so that one weight serves both kinds.
    """

    name = "gkd"

    def __init__(
        self,
        weight: float = 1.0,
        *,
        settings: GlobalSettings | None = None,
        prototypes: PrototypeSettings | None = None,
        form: Form = "distil",
    ) -> None:
        """settings: which terms, and how strong. prototypes: how and when they are chosen during a training."""
        super().__init__(weight)
        self.settings, self.form = settings or GlobalSettings(), checked_form(form)
        self.schedule = PrototypeSchedule(prototypes or PrototypeSettings())
        self.bases: tuple[_Basis, ...] = ()
        self.last: Reliabilities | None = None
        self.truth: tuple[Tensor, Tensor] | None = None

    @property
    def wants_prototypes(self) -> bool:
        """Whether any term measures by prototypes."""
        settings = self.settings
        return settings.reliability == "measured" or (settings.use_global and settings.global_weight > 0)

    def facts(self) -> dict[str, Any]:
        settings = {**to_dict(self.settings), "prototypes": to_dict(self.schedule.settings)}
        return {**super().facts(), **settings, "form": self.form}

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        if self.settings.soft_weight > 0:
            see_activations(self.name, "switch that off ({soft_weight=0})", student, teacher, field="soft_weight")
        pyramids = pyramids_of(student, teacher)
        self.channels = (pyramids.student_channels, pyramids.teacher_channels)
        self.levels, self.strides = pyramids.levels, pyramids.strides
        self.local = self.settings.foreground_weight > 0 or self.settings.background_weight > 0
        kernel = self.settings.adapting_kernel
        used = self.levels if self.local else ()
        self.adapting = aligning(*self.channels, used, kernel=kernel, always=True)
        self.bases, self.last, self.truth = (), None, None
        self.schedule = PrototypeSchedule(self.schedule.settings)

    def before_trial(self, context: TrainingContext) -> Sequence[Check]:
        if not self.wants_prototypes:
            return ()
        context.events("preparing", what=f"prototypes among {len(context.data)} images")
        made = self.schedule.generate(context)
        self.use(made.to(context.device))
        lines = [line.strip() for line in made.describe().splitlines()]
        notes = [line for line in lines if line.startswith("note: ")]
        remedy = "On all images it may be better; else lower {prototype_side}." if notes else ""
        verdict = "look" if notes else "good"
        return [Check("prototypes", "; ".join([lines[0], *notes]), verdict, remedy, ("prototype_side",))]

    def before_epoch(self, context: TrainingContext) -> None:
        if self.wants_prototypes:
            chosen = self.schedule.before_epoch(context, self.strides, self.channels)
            if chosen is not None:
                self.use(chosen.to(context.device))

    def after_step(self, batch: Sequence[Mapping[str, Tensor]]) -> None:
        if self.schedule.bank is not None and self.truth is not None:
            self.schedule.bank.add(batch, self.truth)

    def extra_state(self) -> dict[str, Tensor]:
        return self.schedule.state()

    def check_extra_state(self, tensors: Mapping[str, Tensor], context: TrainingContext) -> None:
        if tensors and not self.wants_prototypes:
            raise DistilError(
                f"{context.folder / CHECKPOINT} has features for prototypes, and this run has no prototypes: start "
                "another run."
            )
        if self.wants_prototypes:
            self.schedule.check_state(tensors, context, len(self.strides), self.channels)

    def load_extra_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.schedule.restored = dict(tensors)

    def after_save(self, context: TrainingContext) -> None:
        self.schedule.after_save(context)

    def use(self, prototypes: PrototypeSet) -> None:
        """Measure by these prototypes from now on. They are no part of state_dict: save them beside it.

        Raises: DistilError when they were made for other channels or lack a level.
        """
        made = (prototypes.student.shape[1], prototypes.teacher.shape[1])
        if made != self.channels:
            raise DistilError(
                f"these prototypes have {made[0]} student and {made[1]} teacher channels, the detectors have "
                f"{self.channels[0]} and {self.channels[1]}: generate prototypes with these two detectors"
            )
        missing = [stride for stride in self.strides if stride not in prototypes.strides]
        if missing:
            raise DistilError(
                f"these prototypes have levels of strides {prototypes.strides} and lack {missing}: generate prototypes "
                "with these two detectors"
            )
        bases = []
        for stride in self.strides:
            some = prototypes.of(prototypes.strides.index(stride))
            bases.append(_Basis(some.student.float(), some.teacher.float(), some.labels))
        self.bases = tuple(bases)

    @torch.no_grad()
    def measure(self, student: Trace, teacher: Trace) -> Reliabilities:
        """Reliabilities of the student's instances, without any loss."""
        with full_precision(student.logits):
            return self._reliabilities(student, self._vectors(student, paired_maps(student, teacher, self.levels)))

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        settings = self.settings
        maps = paired_maps(student, teacher, self.levels)
        adapted = (
            [adapt(student_map) for adapt, (student_map, _) in zip(self.adapting, maps, strict=True)]
            if self.local
            else []
        )
        with full_precision(student.logits):
            if self.schedule.bank is not None:
                with torch.no_grad():
                    self.truth = self._pooled(maps, [target["boxes"] for target in view.targets])
            vectors = self._vectors(student, maps)
            self.last = self._reliabilities(student, vectors)
            masks = self._masks(student, maps, self.last) if self.local else []
            twice_channels = 2 * self.channels[1]
            amounts = [self.last.own.new_full((), float(len(student.labels)))]
            amounts += [twice_channels * mask.sum() for pair in masks for mask in pair]
            instances, *sizes = shared(torch.stack(amounts))
            units = self._units(maps) if self.local else []
            fading = 1 - progress if settings.decay else 1.0
            losses = {}
            if settings.use_global and settings.global_weight > 0 and self.bases:
                losses["gkd.global"] = settings.global_weight * fading * self._global(vectors, self.last, instances)
            if self.local:
                foreground, background = [], []
                for level, (inside, outside) in enumerate(masks):
                    squares = (adapted[level].float() - maps[level][1].float()).square().sum(1, keepdim=True)
                    squares = squares / units[level]
                    foreground.append((inside * squares).sum() / sizes[2 * level])
                    background.append((outside * squares).sum() / sizes[2 * level + 1])
                summed = self.form == "published" and student.dense is not None
                of_levels = len(self.levels) if summed else 1
                losses["gkd.foreground"] = settings.foreground_weight * fading * of_levels * mean_of_levels(foreground)
                losses["gkd.background"] = settings.background_weight * fading * of_levels * mean_of_levels(background)
            if settings.soft_weight > 0:
                comparable(student, teacher)
                rows = soft_label_distance(student.logits, teacher.logits, student.activation, settings.temperature)
                losses["gkd.soft"] = settings.soft_weight * (self.last.own * rows).sum() / instances
        return losses

    def _pooled(self, maps: list[tuple[Tensor, Tensor]], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Both detectors' (l, i, c) features of boxes; the teacher's without gradient."""
        return pool_pair(
            [student_map for student_map, _ in maps], [teacher_map for _, teacher_map in maps], self.strides, boxes
        )

    def _vectors(self, student: Trace, maps: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        """Both detectors' (l, i, c) features of the instances; None while nothing measures them."""
        if not self.bases:
            return None
        device = student.labels.device
        if self.bases[0].labels.device != device:
            moved = (_Basis(b.student.to(device), b.teacher.to(device), b.labels.to(device)) for b in self.bases)
            self.bases = tuple(moved)
        return self._pooled(maps, student.boxes)

    def _reliabilities(self, student: Trace, vectors: tuple[Tensor, Tensor] | None) -> Reliabilities:
        boxes = torch.cat(list(student.boxes)).float()
        published = self.form == "published"
        level = released_levels(boxes, len(self.levels)) if published else pyramid_levels(boxes, self.strides)
        values = boxes.new_ones(len(self.levels), len(boxes))
        if vectors is not None and self.settings.reliability == "measured":
            rows = []
            for student_vectors, teacher_vectors, basis in zip(
                vectors[0].detach(), vectors[1], self.bases, strict=True
            ):
                if len(basis.labels) == 0:
                    rows.append(values[0])
                    continue
                student_nearest = nearest_cosine(student_vectors, student.labels, basis.student, basis.labels)
                teacher_nearest = nearest_cosine(teacher_vectors, student.labels, basis.teacher, basis.labels)
                rows.append(reliability(student_nearest, teacher_nearest))
            values = torch.stack(rows)
        return Reliabilities(values, values.gather(0, level[None])[0], level)

    def _masks(
        self, student: Trace, maps: list[tuple[Tensor, Tensor]], reliabilities: Reliabilities
    ) -> list[tuple[Tensor, Tensor]]:
        """Foreground M and background of every level, (n, 1, h, w)."""
        lengths = [len(boxes) for boxes in student.boxes]
        cells = "floor" if self.form == "published" else "centers"
        masks = []
        for index, (student_map, _) in enumerate(maps):
            values = (reliabilities.own * (reliabilities.level == index)).split(lengths)
            inside = painted(
                student.boxes, values, (student_map.shape[2], student_map.shape[3]), self.strides[index], cells=cells
            )
            masks.append((inside, (inside == 0).float()))
        return masks

    def _units(self, maps: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """What squared differences are measured in, on every level."""
        if self.settings.local_scale == "raw":
            return [teacher_map.new_ones((), dtype=torch.float32) for _, teacher_map in maps]
        energies = torch.stack([teacher_map.float().square().sum() for _, teacher_map in maps])
        sizes = energies.new_tensor([float(teacher_map.numel()) for _, teacher_map in maps])
        return list((shared(energies, TINY) / shared(sizes)).clamp_min(TINY))

    def _global(
        self, vectors: tuple[Tensor, Tensor] | None, reliabilities: Reliabilities, instances: Tensor
    ) -> Float[Tensor, ""]:
        assert vectors is not None
        kind, penalty = self.settings.projection, self.settings.penalty
        value = vectors[0].sum() * 0
        for level, (student_vectors, teacher_vectors, weights, basis) in enumerate(
            zip(*vectors, reliabilities.levels, self.bases, strict=True)
        ):
            if len(basis.labels):
                student_projection = weights[:, None] * projection(
                    student_vectors, basis.student, kind, penalty=penalty
                )
                teacher_projection = weights[:, None] * projection(
                    teacher_vectors, basis.teacher, kind, penalty=penalty
                )
                gaps = smooth_l1_loss(student_projection, teacher_projection, reduction="none").sum(1)
                if self.settings.global_levels == "own":
                    gaps = gaps * (reliabilities.level == level)
                value = value + gaps.sum() / (instances * len(basis.labels))
        return value
