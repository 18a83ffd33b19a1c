"""DeFeat: features inside objects and outside of them, each a mean of its own."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.distributed import shared
from distil.detector.losses.maps import (
    Form,
    aligning,
    checked_form,
    checked_weights,
    full_precision,
    mean_of_levels,
    painted,
    paired_maps,
    pyramids_of,
    relative,
)
from distil.functional.boxes import released_levels
from distil.types import Trace, View

WEIGHTS: dict[Form, tuple[float, float]] = {"distil": (1.0, 4.0), "published": (3.0, 12.0)}
"""Weights of foreground and background, by form. Source of the published: DeFeat's code, Faster R-CNN on VOC, its only
settings."""


class DeFeat(DistillationLoss):
    """Decoupled features: `relative` squared error within the true boxes, and outside of them, each a mean of its own.

    Mean over levels; every box counts on every level; A: 1x1 convolution where channels differ.
    form "published", as DeFeat's code has it: sum m (A(F^s) - F^t)^2 / max(1, 2 c sum m) of features as they are; a box
    counts on the level of its size alone (`released_levels`) and paints the cells from floor(x1) to floor(x2), without
    the last; A is a 3x3 convolution also where channels agree, whose weights begin at 1e-4 times a normal draw.
    Source: DeFeat (Guo et al. 2021), its loss on the neck's features. Differs: its second part, decoupled class logits
    of proposals, is left to `ResponseKL`. In form "distil" also: relative to the teacher's energy; every box counts on
    every level, since a level of five without boxes teaches background alone; weights 1 to 4 are those of the
    global-knowledge paper's code, which took this loss over. The published form has 0.016 (foreground)
    and 0.84 (background) times the gradient at the start, for RetinaNet.
    """

    name = "defeat"

    def __init__(
        self,
        weight: float = 1.0,
        *,
        foreground: float | None = None,
        background: float | None = None,
        form: Form = "distil",
    ) -> None:
        """foreground, background: weights of the two terms; None: those of the form."""
        super().__init__(weight)
        self.form: Form = checked_form(form)
        checked_weights(self.name, foreground=foreground, background=background)
        self.foreground = WEIGHTS[self.form][0] if foreground is None else foreground
        self.background = WEIGHTS[self.form][1] if background is None else background

    def facts(self) -> dict[str, Any]:
        terms = {"foreground": self.foreground, "background": self.background}
        return {**super().facts(), **terms, "form": self.form}

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        pyramids = pyramids_of(student, teacher)
        self.levels, self.strides = pyramids.levels, pyramids.strides
        channels = (pyramids.student_channels, pyramids.teacher_channels)
        if self.form == "published":
            self.aligning = aligning(*channels, pyramids.levels, kernel=3, always=True)
            with torch.no_grad():
                for convolution in self.aligning:
                    convolution.get_parameter("weight").normal_().fmod_(2).mul_(1e-4)
        else:
            self.aligning = aligning(*channels, pyramids.levels)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        inside, outside = [], []
        for level, (student_map, teacher_map) in enumerate(paired_maps(student, teacher, self.levels)):
            student_map = self.aligning[level](student_map)
            with full_precision(student_map):
                mask = self._mask([target["boxes"].float() for target in view.targets], level, student_map)
                values = self._errors(student_map.float(), teacher_map.float(), mask, 1 - mask)
            inside.append(values[0])
            outside.append(values[1])
        return {
            "defeat.foreground": self.foreground * mean_of_levels(inside),
            "defeat.background": self.background * mean_of_levels(outside),
        }

    def _mask(self, boxes: list[Tensor], level: int, maps: Tensor) -> Float[Tensor, "n 1 h w"]:
        size, stride = (maps.shape[2], maps.shape[3]), self.strides[level]
        if self.form == "published":
            here = [(released_levels(some, len(self.levels)) == level).float() for some in boxes]
            return painted(boxes, here, size, stride, cells="floor")
        return painted(boxes, [torch.ones_like(some[:, 0]) for some in boxes], size, stride)

    def _errors(self, student_map: Tensor, teacher_map: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
        if self.form == "distil":
            return relative(student_map, teacher_map, *masks)
        squares = (student_map - teacher_map).square()
        sizes = shared(torch.stack([2 * student_map.shape[1] * mask.sum() for mask in masks]))
        return tuple((mask * squares).sum() / size for mask, size in zip(masks, sizes, strict=True))
