"""FitNets' hint loss on every level of the pyramid."""

from torch import Tensor, nn

from distil.detector.losses.maps import Pyramids, aligned_distance, aligning, relative
from distil.types import Trace, View


class FeatureMSE(nn.Module):
    """Squared error of every map: mean over levels of mean (A(F^s) - F^t)^2 / mean (F^t)^2.

    A: 1x1 convolution where channels differ, else nothing.
    Source: FitNets (Romero et al. 2015), hint loss. Differs: relative to the teacher's energy; on all pyramid levels.
    """

    def __init__(
        self,
        pyramids: Pyramids,
        *,
        weight: float = 5.0,
    ) -> None:
        super().__init__()
        self.levels, self.weight = pyramids.levels, weight
        self.aligning = aligning(pyramids.student_channels, pyramids.teacher_channels, pyramids.levels)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        value = aligned_distance(self.aligning, student, teacher, self.levels, lambda own, aim: relative(own, aim)[0])
        return {"mse": self.weight * value}
