"""FitNets' hint loss on every level of the pyramid."""

from torch import Tensor

from distil.detector.adapters.protocol import DetectorAdapter
from distil.detector.losses.base import DistillationLoss
from distil.detector.losses.maps import aligned_distance, aligning, pyramids_of, relative
from distil.types import Trace, View

SCALE = 5.0
"""Factor of the loss. Ours."""


class FeatureMSE(DistillationLoss):
    """Squared error of every map: 5 times the mean over levels of mean (A(F^s) - F^t)^2 / mean (F^t)^2.

    A: 1x1 convolution where channels differ, else nothing.
    Source: FitNets (Romero et al. 2015), hint loss. Differs: relative to the teacher's energy; on all pyramid levels.
    """

    name = "mse"

    def prepare(self, student: DetectorAdapter, teacher: DetectorAdapter) -> None:
        pyramids = pyramids_of(student, teacher)
        self.levels = pyramids.levels
        self.aligning = aligning(pyramids.student_channels, pyramids.teacher_channels, pyramids.levels)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        value = aligned_distance(
            self.aligning,
            student,
            teacher,
            self.levels,
            lambda student_map, teacher_map: relative(student_map, teacher_map)[0],
        )
        return {"mse": SCALE * value}
