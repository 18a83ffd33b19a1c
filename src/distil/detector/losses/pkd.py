"""PKD: the correlation of the channels of two maps."""

from jaxtyping import Float
from torch import Tensor, nn

from distil.detector.losses.distributed import moments, shared
from distil.detector.losses.maps import Pyramids, aligned_distance, aligning
from distil.types import Trace, View


class PKD(nn.Module):
    """Pearson distance: mean over levels of mean (z(A(F^s)) - z(F^t))^2 / 2, which is 1 - the correlation of channels.

    z standardises every channel over the images and cells of the batch; A: 1x1 convolution where channels differ.
    Source: PKD (Cao et al. 2022) and mmrazor's code and settings: 6 on each of the four finest levels of Faster R-CNN,
    which is 24 times their mean; 10 on each between one-stage detectors. Form "published" (see peers) has these.
    Differs: deviations are of n, not n - 1, cells, which leaves out a factor 1 - 1/n; channels may differ. With the
    weight as it is here, 24 on all common levels of every pair, the fifth level counts as well, and the student's
    gradient is 0.74 of the released one for RetinaNet and 0.92 for Faster R-CNN: kept as what gkd,pkd=0.05 was
    measured with (docs/results/detector.md).
    """

    def __init__(
        self,
        pyramids: Pyramids,
        *,
        weight: float = 24.0,
    ) -> None:
        super().__init__()
        self.levels, self.weight = pyramids.levels, weight
        self.aligning = aligning(pyramids.student_channels, pyramids.teacher_channels, pyramids.levels)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        value = aligned_distance(self.aligning, student, teacher, self.levels, _pearson)
        return {"pkd": self.weight * value}


def _pearson(own: Float[Tensor, "n c h w"], aim: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    difference = _standardised(own) - _standardised(aim)
    return difference.square().sum() / (2 * shared(difference.new_full((), float(difference.numel()))))


def _standardised(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    mean, deviation = moments(maps)
    return (maps - mean) / deviation
