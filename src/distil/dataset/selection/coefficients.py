"""UDD in the frequency domain: images keep the DCT coefficients that a network uses; the numbers of all others, which
are underutilized, serve further images.

Source: UDD names the response-based and the data-jittering-based policy; their form for coefficients is this library's
(docs/methods/udd.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from distil.dataset.config import Dct as DctSettings
from distil.dataset.protocols import Expected, Task
from distil.dataset.restoring import LARGEST
from distil.dataset.selection.coefficient_policies import CoefficientPolicy
from distil.dataset.selection.first_images import first_images
from distil.errors import DistilError
from distil.parameterizations.base import Parameterization
from distil.parameterizations.dct import Dct
from distil.rng import stream


@dataclass(frozen=True)
class CoefficientSelection:
    """DCT coefficients that a policy chooses, once or again from time to time.

    start: the policy of the first choice.
    """

    settings: DctSettings
    policy: CoefficientPolicy
    start: CoefficientPolicy
    task: Task

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, (c, h, w)."""
        return (self.task.real.channels, *self.task.real.size)

    def initial(self) -> tuple[Dct, Float[Tensor, "n channels h w"]]:
        generator = stream(self.task.seed, "cosines")
        with torch.no_grad():
            scores = self.start.scores(self.task, generator)
        count = coefficients_of_an_image(self.shape, self.settings)
        kept = scores.argsort(descending=True, stable=True)[:count].sort().values
        placed = self._placed(kept.to(self.task.device))
        return placed, self.first_params(placed)

    def _placed(self, kept: Tensor) -> Dct:
        return Dct(kept, self.shape, self.settings.bits)

    def first_params(self, placed: Dct) -> Float[Tensor, "n channels h w"]:
        """Parameters of images that are real images of the class (see `first_images`) or noise, as the kept
        frequencies show them."""
        real, ipc, count = self.task.real, self.task.ipc, placed.images_per_item
        items = []
        for label, name in enumerate(real.classes):
            if self.settings.init == "noise":
                generator = stream(self.task.seed, "initial", name)
                noise = torch.randn(ipc * count, *self.shape, generator=generator).to(self.task.device)
                mean, std = (noise.new_tensor(values).view(1, -1, 1, 1) for values in (real.mean, real.std))
                images = mean + std * noise
            else:
                images = first_images(self.task, label, ipc * count, self.settings.init_from)
            items.append(placed.encode(images.unflatten(0, (ipc, count))))
        return torch.cat(items)

    def refresh(
        self, outer: int, placed: Parameterization, params: Tensor, moments: Sequence[Tensor]
    ) -> Parameterization:
        """Put idle coefficients in the place of underutilized ones, if a choice is due.

        What is new begins with the coefficients of the images that the images began with, and without momentum.
        """
        before, settings = cast(Dct, placed), self.settings
        frozen = outer >= (1 - settings.freeze) * self.task.outer
        if not settings.refresh or outer == 0 or outer % settings.refresh or frozen:
            return placed
        with torch.no_grad():
            images = before.decode(params)
            generator = stream(self.task.seed, "cosines", outer)
            scores = self.policy.scores_again(images, before.kept, self.task, generator)
            if scores is None:
                return placed
            kept = scores.argsort(descending=True, stable=True)[: len(before.kept)].sort().values.to(before.kept)
            if torch.equal(kept, before.kept):
                return placed
            after = replace(before, kept=kept)
            fresh = self.first_params(after)
            stay = torch.isin(kept, before.kept)
            places = torch.searchsorted(before.kept, kept[stay])
            for now, new in ((params, fresh), *((each, torch.zeros_like(fresh)) for each in moments)):
                numbers = after.numbers_by_image(new)
                numbers[..., stay] = before.numbers_by_image(now)[..., places]
                after.numbers_by_image(now).copy_(numbers)
        return after

    def finished(self, placed: Parameterization, params: Tensor) -> Parameterization:
        return placed

    def expected(self, outer: int | None) -> dict[str, Expected]:
        channels, height, width = self.shape
        channels *= 2 if self.settings.bits == 4 else 1
        count = coefficients_of_an_image(self.shape, self.settings)
        return {
            "canvases": Expected((self.task.classes * self.task.ipc, channels, height, width), -LARGEST, LARGEST),
            "cosines": Expected((count,), 0, math.prod(self.shape) - 1, torch.int64),
        }

    def restored(self, tensors: Mapping[str, Tensor]) -> Parameterization:
        kept = tensors["cosines"]
        if not bool((kept.diff() > 0).all()):
            raise DistilError("its cosines are not in rising order")
        return self._placed(kept)

    def event(self, placed: Parameterization) -> tuple[str, dict[str, Any]] | None:
        return "cosines", {"kept": cast(Dct, placed).kept.tolist()}


def coefficients_of_an_image(shape: tuple[int, int, int], settings: DctSettings) -> int:
    """Coefficients that each image of `shape` has, all of them at most.

    Raises: DistilError when there are more images than numbers.
    """
    numbers = math.prod(shape) * (2 if settings.bits == 4 else 1)
    if settings.images > numbers:
        raise DistilError(
            f"{{images}} {settings.images} is more than an item has numbers, {numbers}: use fewer.", field="images"
        )
    return min(numbers // settings.images, math.prod(shape))
