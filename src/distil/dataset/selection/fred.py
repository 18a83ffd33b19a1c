"""FreD's frequencies: of each class those that vary most among the images that it begins with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.dataset.config import Fred as FredSettings
from distil.dataset.protocols import Expected, Task
from distil.dataset.restoring import LARGEST
from distil.dataset.selection.first_images import first_images
from distil.errors import DistilError
from distil.functional.dct import coefficients
from distil.parameterizations.base import Parameterization
from distil.parameterizations.fred import Fred, lowest_first


@dataclass(frozen=True)
class FredSelection:
    """The frequencies of a class are chosen once: those whose coefficients vary most among its first images, which are
    real ones, in the mean of their color channels.

    Source: FreD (Shin et al. 2023), its released code.
    """

    settings: FredSettings
    task: Task

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, (c, h, w)."""
        return (self.task.real.channels, *self.task.real.size)

    def initial(self) -> tuple[Fred, Float[Tensor, "n channels h w"]]:
        task, kept = self.task, list[Tensor]()
        count = coefficients_of_a_channel(self.shape, self.settings)
        numbers = math.prod(self.shape) * (2 if self.settings.bits == 4 else 1)
        each = task.ipc * (numbers // (self.shape[0] * count))
        images = [first_images(task, label, each, self.settings.init_from) for label in range(task.classes)]
        for of_class in images:
            kept.append(most_varying(of_class, count))
        placed = self._placed(torch.stack(kept))
        whole = torch.stack(images).unflatten(1, (task.ipc, -1)).flatten(0, 1)
        return placed, placed.encode(whole)

    def _placed(self, kept: Tensor) -> Fred:
        return Fred(kept, (self.task.ipc,) * self.task.classes, self.shape, self.settings.bits)

    def refresh(
        self, outer: int, placed: Parameterization, params: Tensor, moments: Sequence[Tensor]
    ) -> Parameterization:
        return placed

    def finished(self, placed: Parameterization, params: Tensor) -> Parameterization:
        return placed

    def expected(self, outer: int | None) -> dict[str, Expected]:
        channels, height, width = self.shape
        channels *= 2 if self.settings.bits == 4 else 1
        count = coefficients_of_a_channel(self.shape, self.settings)
        return {
            "canvases": Expected((self.task.classes * self.task.ipc, channels, height, width), -LARGEST, LARGEST),
            "masks": Expected((self.task.classes, count), 0, height * width - 1, torch.int64),
        }

    def restored(self, tensors: Mapping[str, Tensor]) -> Parameterization:
        kept = tensors["masks"]
        if not torch.equal(lowest_first(kept, self.task.real.size), kept):
            raise DistilError("its masks are not in the order of their frequencies")
        return self._placed(kept)

    def event(self, placed: Parameterization) -> tuple[str, dict[str, Any]] | None:
        return "masks", {"kept": cast(Fred, placed).kept.tolist()}


def most_varying(images: Float[Tensor, "n c h w"], count: int) -> Int[Tensor, " {count}"]:
    """The `count` frequencies whose DCT coefficients vary most among the images, as positions in h*w, lowest first."""
    varying = coefficients(images.mean(1, keepdim=True)).var(0, correction=0)
    kept = varying.argsort(descending=True, stable=True)[:count]
    return lowest_first(kept[None], (images.shape[2], images.shape[3]))[0]


def coefficients_of_a_channel(shape: tuple[int, int, int], settings: FredSettings) -> int:
    """Coefficients that each channel of each image has, all of them at most.

    Raises: DistilError when an item has too few numbers for its images.
    """
    numbers = math.prod(shape[1:]) * (2 if settings.bits == 4 else 1)
    if settings.images > numbers:
        raise DistilError(
            f"{{images}} {settings.images} is more than an item has numbers in a channel, {numbers}: use fewer.",
            field="images",
        )
    return min(numbers // settings.images, math.prod(shape[1:]))
