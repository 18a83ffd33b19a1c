"""MGD: the teacher's map generated from a part of the student's."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.maps import (
    FOUR,
    Form,
    Kind,
    aligning,
    checked_form,
    full_precision,
    kind_of,
    over_levels,
    paired_maps,
    pyramids_of,
    relative,
    summed,
)
from distil.errors import DistilError
from distil.rng import stream
from distil.types import Trace, View

SCALE, MASKED = 5.0, 0.65
"""Factor of the loss and share of the masked cells, in form "distil"."""
PUBLISHED: dict[Kind, tuple[float, float]] = {
    "two-stage": (5e-7, 0.45),
    "retinanet": (2e-5, 0.65),
    "fcos": (2e-5, 0.65),
}
"""Both by the student's kind, the factor for each level; of two-stage students the four finest. Source:
det/configs/distillers/mgd of MGD's code; FCOS has no settings there and gets RetinaNet's."""


class MGD(DistillationLoss):
    """Masked generation: 5 times the mean over levels of mean (G(m A(F^s)) - F^t)^2 / mean (F^t)^2.

    m: 0 in a share of the cells, drawn anew for every image and level, else 1; G: two 3x3 convolutions with a ReLU
    between, one pair a level; A: 1x1 convolution where channels differ. With `view.seeds` an image's mask depends on
    its own seed alone.
    form "published": the sum over levels of `summed` in place of that mean, as MGD's code has it.
    Source: MGD (Yang et al. 2022); share 0.65. Differs, in form "distil": means relative to the teacher's
    energy, so that weight and share do not depend on maps, channels and features; the code's sums have a weight of 2e-5
    for one-stage detectors and of 5e-7, and a share of 0.45, for two-stage ones, and 2.5 and 0.80 times the gradient.
    """

    name = "mgd"

    def __init__(self, weight: float = 1.0, *, masked: float | None = None, form: Form = "distil") -> None:
        """masked: share of the cells; None: that of the form, and of the student's kind."""
        super().__init__(weight)
        self.given = masked
        self.form: Form = checked_form(form)
        if masked is not None and not 0 <= masked < 1:
            raise DistilError(f"{{masked}} of mgd is {masked}: it is a share, at least 0 and below 1.", field="masked")

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "masked": self.given, "form": self.form}

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        published, kind = self.form == "published", kind_of(student)
        pyramids = pyramids_of(student, teacher, FOUR if published and kind == "two-stage" else None)
        self.levels = pyramids.levels
        self.scale, masked = PUBLISHED[kind] if published else (SCALE, MASKED)
        self.masked = masked if self.given is None else self.given
        self.aligning = aligning(pyramids.student_channels, pyramids.teacher_channels, pyramids.levels)
        channels = pyramids.teacher_channels
        self.generating = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
            )
            for _ in pyramids.levels
        )

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        values = []
        for level, (student_map, teacher_map) in enumerate(paired_maps(student, teacher, self.levels)):
            kept = _kept_cells(view, level, student_map, self.masked)
            made = self.generating[level](self.aligning[level](student_map) * kept)
            measure = summed if self.form == "published" else relative
            with full_precision(made):
                values.append(measure(made.float(), teacher_map.float())[0])
        return {"mgd": self.scale * over_levels(values, self.form)}


def _kept_cells(view: View, level: int, like: Float[Tensor, "n c h w"], masked: float) -> Float[Tensor, "n 1 h w"]:
    """1 in the cells that stay, 0 in a share `masked` of them."""
    n, _, h, w = like.shape
    if view.seeds is None:
        draws = torch.rand(n, 1, h, w, device=like.device)
    else:
        rows = [torch.rand(1, h, w, generator=stream(seed, "mgd", level)) for seed in view.seeds]
        draws = torch.stack(rows).to(like.device)
    return (draws >= masked).to(like.dtype)
