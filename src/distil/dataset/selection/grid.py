"""Items cut into the cells of a grid, which stay as they are (DC, DSA, DM, IDC)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distil.dataset.config import Grid
from distil.dataset.protocols import Expected, Task
from distil.dataset.restoring import LARGEST
from distil.dataset.selection.first_images import chosen_images
from distil.errors import DistilError
from distil.parameterizations.base import Parameterization
from distil.parameterizations.crops import Crops
from distil.rng import stream


@dataclass(frozen=True)
class GridSelection:
    """A grid for the whole run."""

    settings: Grid
    task: Task

    def initial(self) -> tuple[Crops, Float[Tensor, "n c h w"]]:
        """Items in [0, 1], class by class: noise about the data's mean with its standard deviation, a random real
        image of the class each, or ("mix") a random real image for each cell. Draws are addressed by class name.

        Source: DC (noise), DSA (real), IDC's released code (mix). Differs: IDC shrinks with nearest neighbor.
        """
        cells, task = self.cells(), self.task
        items = [cells.encode(self._images(label, name)) for label, name in enumerate(task.real.classes)]
        return cells, torch.cat(items).clamp_(0, 1)

    def cells(self) -> Crops:
        bits = 32 if self.settings.storage == "float32" else 8
        return Crops.grid(self.settings.factor, self.task.real.size, bits, self.task.device)

    def _images(self, label: int, name: str) -> Float[Tensor, "ipc v c h w"]:
        real, ipc, factor = self.task.real, self.task.ipc, self.settings.factor
        generator = stream(self.task.seed, "initial", name)
        if self.settings.init == "noise":
            noise = torch.randn(ipc, real.channels, *real.size, generator=generator).to(self.task.device)
            mean, std = (noise.new_tensor(values).view(1, -1, 1, 1) for values in (real.mean, real.std))
            return (mean + std * noise).clamp(0, 1)[:, None]
        how = self.settings.init_from
        if self.settings.init == "real" or factor == 1:
            return chosen_images(self.task, label, ipc, how, generator)[:, None]
        images = chosen_images(self.task, label, ipc * factor**2, how, generator)
        return images.unflatten(0, (factor**2, ipc)).transpose(0, 1)

    def refresh(
        self, outer: int, placed: Parameterization, params: Tensor, moments: Sequence[Tensor]
    ) -> Parameterization:
        return placed

    def finished(self, placed: Parameterization, params: Tensor) -> Parameterization:
        return placed

    def expected(self, outer: int | None) -> dict[str, Expected]:
        count, real = self.task.classes * self.task.ipc, self.task.real
        return {"canvases": Expected((count, real.channels, *real.size), -LARGEST, LARGEST)}

    def restored(self, tensors: Mapping[str, Tensor]) -> Parameterization:
        return self.cells()

    def event(self, placed: Parameterization) -> tuple[str, dict[str, Any]] | None:
        return None


def check_grid(settings: Grid, size: tuple[int, int]) -> None:
    """Refuse a grid that does not cut images of `size` (h, w). Raises: DistilError that names the factor."""
    if settings.factor > min(size):
        raise DistilError(
            f"{{factor}} {settings.factor} is larger than the images' side, {min(size)} pixels: use 2 or 3.",
            field="factor",
        )
    starts = [(settings.factor - 1) * math.ceil(side / settings.factor) for side in size]
    if any(start >= side for start, side in zip(starts, size, strict=True)):
        raise DistilError(
            f"{{factor}} {settings.factor} does not cut {size[0]}x{size[1]} images: its last cells would start "
            "outside. Use a smaller factor, or one that divides the side.",
            field="factor",
        )
