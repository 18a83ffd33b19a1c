"""FGD: focal distillation of attended foreground and background, and global distillation of context."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.distributed import shared
from distil.detector.losses.maps import (
    FOUR,
    Form,
    Kind,
    aligning,
    checked_form,
    checked_weights,
    full_precision,
    kind_of,
    over_levels,
    painted,
    paired_maps,
    pyramids_of,
    relative,
    summed,
)
from distil.types import Trace, View

WEIGHTS = {"foreground": 4.0, "background": 2.0, "attention": 1.0, "global": 1.0}
"""Weights of the terms, in form "distil"."""
TEMPERATURE = 0.5
PUBLISHED: dict[Kind, tuple[dict[str, float], float]] = {
    "two-stage": ({"foreground": 5e-5, "background": 2.5e-5, "attention": 5e-5, "global": 5e-7}, 0.5),
    "retinanet": ({"foreground": 1e-3, "background": 5e-4, "attention": 5e-4, "global": 5e-6}, 0.5),
    "fcos": ({"foreground": 1.6e-3, "background": 8e-4, "attention": 8e-4, "global": 8e-6}, 0.8),
}
"""Weights of each level and the temperature, by the student's kind; of two-stage students the four finest levels.
Source: configs/distillers/fgd of FGD's code."""


def attention(
    maps: Float[Tensor, "n c h w"], temperature: float
) -> tuple[Float[Tensor, "n 1 h w"], Float[Tensor, "n c 1 1"]]:
    """Where, and in which channels, a map is strong: h w softmax(mean_c |F| / T) and c softmax(mean_hw |F| / T).

    Both average one. Source: FGD's focal distillation.
    """
    n, c, h, w = maps.shape
    strength = maps.abs()
    cells = (strength.mean(1).flatten(1) / temperature).softmax(1).view(n, 1, h, w) * (h * w)
    channels = (strength.mean((2, 3)) / temperature).softmax(1).view(n, c, 1, 1) * c
    return cells, channels


class Context(nn.Module):
    """A map with its global context added (GcBlock): F + W2 relu(LN(W1 sum_j softmax_j(Wk F) F_j)).

    W2 starts at zero, so that the block starts as the identity. Source: GCNet (Cao et al. 2019), as FGD uses it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // 2)
        self.weigh = nn.Conv2d(channels, 1, 1)
        self.narrow, self.norm, self.widen = (
            nn.Linear(channels, narrow),
            nn.LayerNorm(narrow),
            nn.Linear(narrow, channels),
        )
        nn.init.zeros_(self.widen.weight)
        nn.init.zeros_(self.widen.bias)

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        weights = self.weigh(maps).flatten(1).softmax(1)
        context = torch.einsum("ncp,np->nc", maps.flatten(2), weights)
        return maps + self.widen(self.norm(self.narrow(context)).relu())[:, :, None, None]


class FGD(DistillationLoss):
    """Focal and global knowledge, mean over levels.

    foreground, background: `relative` squared error of A(F^s) and F^t weighted by S C M, S and C the teacher's
    attention over cells and channels, M within true boxes 1 / (the box's area in cells), the largest where boxes
    overlap, and outside of them 1 / (the image's number of such cells). attention: mean |S^s - S^t| + mean |C^s -
    C^t|. global: `relative` squared error of both maps after a context block of their own. A: 1x1 convolution where
    channels differ.
    form "published", as FGD's code has it: the sum over levels of `summed` in place of means of `relative`, attention
    sum |S^s - S^t| + sum |C^s - C^t| an image; boxes paint the cells from floor(x1) to ceil(x2), both included, and
    their area is of these cells.
    Source: FGD (Yang et al. 2022), focal and global distillation; T = 0.5. Differs: boxes are divided by the stride
    (the code divides by the image's unpadded size, which shifts those of padded images); the context blocks' attention
    begins with torch's first weights. In form "distil" also: means relative to the teacher's energy in place of sums,
    whose weights differ from detector to detector by a factor of 20; weights keep the paper's 2 to 1 of foreground to
    background, and are otherwise ours; the published foreground has 4.3 (RetinaNet) and 0.58 (Faster R-CNN) times
    the gradient. Boxes paint the cells whose centers they hold, and areas are true ones: the code's rounding paints 2.3
    times as many cells on the finest level of scenes, so that small objects get more of their surroundings than of
    themselves (benchmarks/loss_forms.py).
    """

    name = "fgd"

    def __init__(
        self,
        weight: float = 1.0,
        *,
        foreground: float | None = None,
        background: float | None = None,
        attention: float | None = None,
        context: float | None = None,
        temperature: float | None = None,
        form: Form = "distil",
    ) -> None:
        """foreground, background, attention, context: weights of the terms, context of the global one; temperature: of
        the attention. None: those of the form, and of the student's kind."""
        super().__init__(weight)
        self.given = {"foreground": foreground, "background": background, "attention": attention, "global": context}
        self.given_temperature = temperature
        self.form: Form = checked_form(form)
        terms = {"foreground": foreground, "background": background, "attention": attention, "context": context}
        checked_weights(self.name, **terms, temperature=temperature)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **self.given, "temperature": self.given_temperature, "form": self.form}

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        published, kind = self.form == "published", kind_of(student)
        pyramids = pyramids_of(student, teacher, FOUR if published and kind == "two-stage" else None)
        self.levels, self.strides = pyramids.levels, pyramids.strides
        weights, temperature = PUBLISHED[kind] if published else (WEIGHTS, TEMPERATURE)
        self.weights = {name: x if (given := self.given[name]) is None else given for name, x in weights.items()}
        self.temperature = temperature if self.given_temperature is None else self.given_temperature
        self.aligning = aligning(pyramids.student_channels, pyramids.teacher_channels, pyramids.levels)
        self.student_context = nn.ModuleList(Context(pyramids.teacher_channels) for _ in pyramids.levels)
        self.teacher_context = nn.ModuleList(Context(pyramids.teacher_channels) for _ in pyramids.levels)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        values: dict[str, list[Tensor]] = {name: [] for name in self.weights}
        boxes = [target["boxes"].float() for target in view.targets]
        measure = summed if self.form == "published" else relative
        for level, (student_map, teacher_map) in enumerate(paired_maps(student, teacher, self.levels)):
            student_map = self.aligning[level](student_map)
            with full_precision(student_map):
                student_map, teacher_map = student_map.float(), teacher_map.float()
                student_cells, student_channels = attention(student_map, self.temperature)
                teacher_cells, teacher_channels = attention(teacher_map, self.temperature)
                inside = _scale_mask(
                    boxes, (student_map.shape[2], student_map.shape[3]), self.strides[level], self.form
                )
                outside = (inside == 0).float()
                outside = outside / outside.sum((2, 3), keepdim=True).clamp(min=1)
                errors = measure(student_map, teacher_map, inside, outside, focus=teacher_cells * teacher_channels)
                after = measure(self.student_context[level](student_map), self.teacher_context[level](teacher_map))
                values["foreground"].append(errors[0])
                values["background"].append(errors[1])
                values["attention"].append(
                    _gap(student_cells, teacher_cells, self.form) + _gap(student_channels, teacher_channels, self.form)
                )
                values["global"].append(after[0])
        return {f"fgd.{name}": weight * over_levels(values[name], self.form) for name, weight in self.weights.items()}


def _scale_mask(boxes: list[Tensor], size: tuple[int, int], stride: int, form: Form) -> Float[Tensor, "n 1 h w"]:
    if form == "published":
        corners = [(some[:, :2] / stride).floor() for some in boxes]
        sides = [(some[:, 2:] / stride).ceil() + 1 - first for some, first in zip(boxes, corners, strict=True)]
        return painted(boxes, [1 / side.prod(1) for side in sides], size, stride, cells="outward")
    areas = [((some[:, 2] - some[:, 0]) * (some[:, 3] - some[:, 1])) / stride**2 for some in boxes]
    return painted(boxes, [1 / area.clamp(min=1) for area in areas], size, stride)


def _gap(a: Tensor, b: Tensor, form: Form) -> Float[Tensor, ""]:
    gap = (a - b).abs()
    return gap.sum() / shared(gap.new_full((), float(len(gap) if form == "published" else gap.numel())))
