"""PKD: the correlation of the channels of two maps."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.distributed import moments, shared
from distil.detector.losses.maps import FOUR, Form, aligned_distance, aligning, checked_form, kind_of, pyramids_of
from distil.types import Trace, View

SCALE = 24.0
"""Factor of the mean over levels, in form "distil"."""
PUBLISHED_ONE_STAGE, PUBLISHED = 10.0, 6.0
"""Factor of each level, between two one-stage detectors and otherwise. Source: mmrazor's configs/distill/mmdet/pkd
(Faster R-CNN 6, Mask R-CNN to RetinaNet 6, RetinaNet, RepPoints and FCOS to RetinaNet 10)."""


class PKD(DistillationLoss):
    """Pearson distance: 24 times the mean over levels of mean (z(A(F^s)) - z(F^t))^2 / 2, which is 1 - the correlation
    of channels.

    z standardizes every channel over the images and cells of the batch; A: 1x1 convolution where channels differ.
    Source: PKD (Cao et al. 2022) and mmrazor's code and settings: 6 on each of the four finest levels of Faster R-CNN,
    which is 24 times their mean; 10 on each between one-stage detectors. Form "published" has these.
    Differs: deviations are of n, not n - 1, cells, which leaves out a factor 1 - 1/n; channels may differ. With the
    factor as it is here, 24 on all common levels of every pair, the fifth level counts as well, and the student's
    gradient is 0.74 of the released one for RetinaNet and 0.92 for Faster R-CNN: kept as what gkd,pkd=0.05 was
    measured with (docs/results/detector.md).
    """

    name = "pkd"

    def __init__(self, weight: float = 1.0, *, form: Form = "distil") -> None:
        super().__init__(weight)
        self.form: Form = checked_form(form)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "form": self.form}

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        pyramids = pyramids_of(student, teacher, FOUR if self.form == "published" else None)
        self.levels = pyramids.levels
        self.scale = SCALE
        if self.form == "published":
            one_stage = "two-stage" not in (kind_of(student), kind_of(teacher))
            self.scale = (PUBLISHED_ONE_STAGE if one_stage else PUBLISHED) * len(self.levels)
        self.aligning = aligning(pyramids.student_channels, pyramids.teacher_channels, pyramids.levels)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        value = aligned_distance(self.aligning, student, teacher, self.levels, _pearson)
        return {"pkd": self.scale * value}


def _pearson(student: Float[Tensor, "n c h w"], teacher: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    difference = _standardized(student) - _standardized(teacher)
    return difference.square().sum() / (2 * shared(difference.new_full((), float(difference.numel()))))


def _standardized(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    mean, deviation = moments(maps)
    return (maps - mean) / deviation
