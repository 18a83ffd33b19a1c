"""How stored parameters follow their gradient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

from torch import Tensor

from distil.dataset.config import ImageAdam, ImageSGD
from distil.parameterizations.base import Parameterization


@dataclass(frozen=True)
class ImageDescent:
    """Gradient descent with momentum over a run of `steps` steps: m <- momentum m + g; params <- params - lr m."""

    settings: ImageSGD
    steps: int

    moments: ClassVar[tuple[str, ...]] = ("momentum",)
    """Names of the tensors, each of the shape of the parameters, that it keeps between steps; they begin as zero."""

    def lr_at(self, step: int) -> float:
        """Learning rate in the step that is number `step` (from 0)."""
        return _lr_at(self.settings, step, self.steps)

    def scale(self, placed: Parameterization, params: Tensor, std: Sequence[float]) -> Tensor | float:
        """What multiplies the learning rate for it to be in the units of the settings."""
        return placed.normalized_scale(params, std) if self.settings.lr_space == "normalized" else 1.0

    def move_(
        self, params: Tensor, moments: Mapping[str, Tensor], gradient: Tensor, step: int, scale: Tensor | float = 1.0
    ) -> None:
        """One step in place, number `step` of the run. scale: multiplies the learning rate."""
        if self.settings.gradient_scale == "item":
            of_item = tuple(range(1, gradient.ndim))
            gradient = gradient / gradient.square().mean(of_item, keepdim=True).sqrt().clamp_min(1e-12)
        moments["momentum"].mul_(self.settings.momentum).add_(gradient)
        params.sub_(self.lr_at(step) * scale * moments["momentum"])

    def largest(self, step: int, std: Sequence[float], largest_param: float) -> dict[str, float]:
        """What no moment exceeds before the step that is number `step` while parameters stay below `largest_param`: the
        momentum has moved them by less than twice that."""
        scale = max(min(std) ** 2, 1e-12) if self.settings.lr_space == "normalized" else 1.0
        return {"momentum": 2 * largest_param / (self.lr_at(max(step - 1, 0)) * scale)}


@dataclass(frozen=True)
class ImageAdamW:
    """AdamW: m <- b1 m + (1 - b1) g; s <- b2 s + (1 - b2) g^2; with both divided by one minus the power of their decay,
    params <- (1 - lr decay) params - lr m / (sqrt(s) + 1e-8).

    Source: Loshchilov and Hutter 2019. Equal to torch.optim.AdamW. Where a policy puts new parameters in the place of
    others, their moments begin as zero while the powers go on.
    """

    settings: ImageAdam
    steps: int

    moments: ClassVar[tuple[str, ...]] = ("momentum", "square")

    def lr_at(self, step: int) -> float:
        """Learning rate in the step that is number `step` (from 0)."""
        return _lr_at(self.settings, step, self.steps)

    def scale(self, placed: Parameterization, params: Tensor, std: Sequence[float]) -> float:
        """One: steps of AdamW do not depend on the size of a gradient."""
        return 1.0

    def move_(
        self, params: Tensor, moments: Mapping[str, Tensor], gradient: Tensor, step: int, scale: Tensor | float = 1.0
    ) -> None:
        """One step in place, number `step` of the run. scale: multiplies the learning rate."""
        (first, second), lr = self.settings.betas, self.lr_at(step) * float(scale)
        mean, square = moments["momentum"], moments["square"]
        params.mul_(1 - lr * self.settings.weight_decay)
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (square / (1 - second ** (step + 1))).sqrt_().add_(1e-8)
        params.addcdiv_(mean, size, value=-lr / (1 - first ** (step + 1)))

    def largest(self, step: int, std: Sequence[float], largest_param: float) -> dict[str, float]:
        """Nothing bounds a gradient: numbers that float32 can hold."""
        return dict.fromkeys(self.moments, 3e38)


ImageOptimizer = ImageDescent | ImageAdamW


def image_optimizer(settings: ImageSGD | ImageAdam, steps: int) -> ImageOptimizer:
    """The optimizer of a run of `steps` steps."""
    return ImageAdamW(settings, steps) if isinstance(settings, ImageAdam) else ImageDescent(settings, steps)


def _lr_at(settings: ImageSGD | ImageAdam, step: int, steps: int) -> float:
    if settings.lr_schedule == "constant":
        return settings.lr
    return settings.lr * (1 + cos(pi * step / steps)) / 2
