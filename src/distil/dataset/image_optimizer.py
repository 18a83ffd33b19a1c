"""How stored parameters follow their gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi

from torch import Tensor

from distil.dataset.config import ImageSGD
from distil.parameterizations.base import Parameterization


@dataclass(frozen=True)
class ImageDescent:
    """Gradient descent with momentum over a run of `steps` steps: m <- momentum m + g; params <- params - lr m."""

    settings: ImageSGD
    steps: int

    def lr_at(self, step: int) -> float:
        """Learning rate in the step that is number `step` (from 0)."""
        if self.settings.lr_schedule == "constant":
            return self.settings.lr
        return self.settings.lr * (1 + cos(pi * step / self.steps)) / 2

    def scale(self, placed: Parameterization, params: Tensor, std: Sequence[float]) -> Tensor | float:
        """What multiplies the learning rate for it to be in the units of the settings."""
        return placed.normalized_scale(params, std) if self.settings.lr_space == "normalized" else 1.0

    def move_(self, params: Tensor, momentum: Tensor, gradient: Tensor, step: int, scale: Tensor | float) -> None:
        """One step in place. scale: multiplies the learning rate."""
        if self.settings.gradient_scale == "item":
            of_item = tuple(range(1, gradient.ndim))
            gradient = gradient / gradient.square().mean(of_item, keepdim=True).sqrt().clamp_min(1e-12)
        momentum.mul_(self.settings.momentum).add_(gradient)
        params.sub_(self.lr_at(step) * scale * momentum)
