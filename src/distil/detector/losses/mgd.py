"""MGD: the teacher's map generated from a part of the student's."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.detector.losses.maps import (
    Form,
    Pyramids,
    aligning,
    full_precision,
    over_levels,
    paired_maps,
    relative,
    summed,
)
from distil.rng import stream
from distil.types import Trace, View


class MGD(nn.Module):
    """Masked generation: mean over levels of mean (G(m A(F^s)) - F^t)^2 / mean (F^t)^2.

    m: 0 in a share of the cells, drawn anew for every image and level, else 1; G: two 3x3 convolutions with a ReLU
    between, one pair a level; A: 1x1 convolution where channels differ. With `view.seeds` an image's mask depends on
    its own seed alone.
    form "published": the sum over levels of `summed` in place of that mean, as MGD's code has it.
    Source: MGD (Yang et al. 2022); share 0.65. Differs, in form "distil": means relative to the teacher's
    energy, so that weight and share do not depend on maps, channels and features; the code's sums have a weight of 2e-5
    for one-stage detectors and of 5e-7, and a share of 0.45, for two-stage ones, and 2.5 and 0.80 times the gradient.
    """

    def __init__(
        self,
        pyramids: Pyramids,
        *,
        weight: float = 5.0,
        masked: float = 0.65,
        form: Form = "distil",
    ) -> None:
        super().__init__()
        self.levels, self.weight, self.masked = pyramids.levels, weight, masked
        self.form: Form = form
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
        for level, (own, aim) in enumerate(paired_maps(student, teacher, self.levels)):
            kept = _kept_cells(view, level, own, self.masked)
            made = self.generating[level](self.aligning[level](own) * kept)
            measure = summed if self.form == "published" else relative
            with full_precision(made):
                values.append(measure(made.float(), aim.float())[0])
        return {"mgd": self.weight * over_levels(values, self.form)}


def _kept_cells(view: View, level: int, like: Float[Tensor, "n c h w"], masked: float) -> Float[Tensor, "n 1 h w"]:
    """1 in the cells that stay, 0 in a share `masked` of them."""
    n, _, h, w = like.shape
    if view.seeds is None:
        draws = torch.rand(n, 1, h, w, device=like.device)
    else:
        rows = [torch.rand(1, h, w, generator=stream(seed, "mgd", level)) for seed in view.seeds]
        draws = torch.stack(rows).to(like.device)
    return (draws >= masked).to(like.dtype)
