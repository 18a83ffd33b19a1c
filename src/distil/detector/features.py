"""Losses of other methods on feature maps, to combine with global knowledge or to compare it to.

In form "distil" all are mean-reduced and free of the scale of features, so that one weight serves every detector:
squared differences are divided by the mean square of the teacher's map (`relative`). Weights multiply means over
levels; where no source is named, the weight is our choice. Form "published" has the reductions, masks and levels of the
released code; its weights are in distil.detector.published. Effects in the docstrings are ratios of gradients on the
student's weights, RetinaNet and Faster R-CNN on scenes (benchmarks/loss_forms.py).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.detector.maps import (
    Form,
    Pyramids,
    aligned_distance,
    aligning,
    full_precision,
    mean_of_levels,
    moments,
    over_levels,
    painted,
    paired_maps,
    shared,
)
from distil.functional.boxes import released_levels
from distil.rng import stream
from distil.types import Trace, View

TINY = 1e-12


def relative(
    student: Float[Tensor, "n c h w"],
    teacher: Float[Tensor, "n c h w"],
    *masks: Float[Tensor, "n 1 h w"],
    focus: Tensor | None = None,
) -> tuple[Float[Tensor, ""], ...]:
    """Squared difference of two maps, relative to the teacher's mean square: one value for each mask, one without any.

    sum m focus (s - t)^2 / (c sum m * mean t^2), sums over images, channels and cells (of all processes). Where a mask
    is 0 everywhere the value is 0.
    focus: (n, c, h, w), weights that average one and so take no part in the divisor.
    """
    squares = (student - teacher).square()
    squares = (squares if focus is None else squares * focus).sum(1, keepdim=True)
    masks = masks or (torch.ones_like(squares),)
    size = teacher.new_full((), float(teacher.numel()))
    amounts = torch.stack([*(mask.sum() for mask in masks), teacher.square().sum(), size])
    *masses, energy, count = shared(amounts, TINY)
    mean_square = teacher.shape[1] * energy / count
    return tuple(
        (mask * squares).sum() / (mass * mean_square).clamp(min=TINY) for mask, mass in zip(masks, masses, strict=True)
    )


def summed(
    student: Float[Tensor, "n c h w"],
    teacher: Float[Tensor, "n c h w"],
    *masks: Float[Tensor, "n 1 h w"],
    focus: Tensor | None = None,
) -> tuple[Float[Tensor, ""], ...]:
    """Squared difference of two maps, an image: one value for each mask, one without any.

    sum m focus (s - t)^2 / n, sums over images, channels and cells, n images (of all processes): the form of the
    released FGD and MGD, which grows with the maps' cells, their channels and the square of their features.
    focus: (n, c, h, w).
    """
    squares = (student - teacher).square()
    squares = (squares if focus is None else squares * focus).sum(1, keepdim=True)
    images = shared(teacher.new_full((), float(len(teacher))))
    return tuple((mask * squares).sum() / images for mask in masks or (torch.ones_like(squares),))


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


class PKD(nn.Module):
    """Pearson distance: mean over levels of mean (z(A(F^s)) - z(F^t))^2 / 2, which is 1 - the correlation of channels.

    z standardises every channel over the images and cells of the batch; A: 1x1 convolution where channels differ.
    Source: PKD (Cao et al. 2022) and mmrazor's code and settings: 6 on each of the four finest levels of Faster R-CNN,
    which is 24 times their mean; 10 on each between one-stage detectors. Form "published" (see peers) has these.
    Differs: deviations are of n, not n - 1, cells, which leaves out a factor 1 - 1/n; channels may differ. With the
    weight as it is here, 24 on all common levels of every pair, the fifth level counts as well, and the student's
    gradient is 0.74 of the released one for RetinaNet and 0.92 for Faster R-CNN: kept as what gkd,pkd=0.05 was
    measured with (docs/detector.md).
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


class DeFeat(nn.Module):
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

    def __init__(
        self,
        pyramids: Pyramids,
        *,
        foreground: float = 1.0,
        background: float = 4.0,
        form: Form = "distil",
    ) -> None:
        super().__init__()
        self.levels, self.strides = pyramids.levels, pyramids.strides
        self.form: Form = form
        self.foreground, self.background = foreground, background
        channels = (pyramids.student_channels, pyramids.teacher_channels)
        if form == "published":
            self.aligning = aligning(*channels, pyramids.levels, kernel=3, always=True)
            with torch.no_grad():
                for convolution in self.aligning:
                    convolution.get_parameter("weight").normal_().fmod_(2).mul_(1e-4)
        else:
            self.aligning = aligning(*channels, pyramids.levels)

    def forward(self, student: Trace, teacher: Trace, view: View, progress: float) -> dict[str, Tensor]:
        inside, outside = [], []
        for level, (own, aim) in enumerate(paired_maps(student, teacher, self.levels)):
            own = self.aligning[level](own)
            with full_precision(own):
                mask = self._mask([target["boxes"].float() for target in view.targets], level, own)
                values = self._errors(own.float(), aim.float(), mask, 1 - mask)
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

    def _errors(self, own: Tensor, aim: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
        if self.form == "distil":
            return relative(own, aim, *masks)
        squares = (own - aim).square()
        sizes = shared(torch.stack([2 * own.shape[1] * mask.sum() for mask in masks]))
        return tuple((mask * squares).sum() / size for mask, size in zip(masks, sizes, strict=True))
