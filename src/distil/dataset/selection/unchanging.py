"""A parameterization that stays as it is for the whole run: how one of the user's making stands in a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distil.dataset.protocols import Expected, Task
from distil.dataset.restoring import LARGEST
from distil.dataset.selection.first_images import first_images
from distil.distilled_set.record import checked_params
from distil.errors import DistilError
from distil.parameterizations.base import Parameterization


@dataclass(frozen=True)
class UnchangingSelection:
    """One parameterization, whose parameters begin as real images of their class."""

    parameterization: Parameterization
    task: Task

    def initial(self) -> tuple[Parameterization, Float[Tensor, "n ..."]]:
        """Parameters that real images of the class, as many as an item decodes to, are encoded in."""
        task, each = self.task, self.parameterization.images_per_item
        items = []
        for label in range(task.classes):
            images = first_images(task, label, task.ipc * each)
            items.append(self.parameterization.encode(images.unflatten(0, (task.ipc, each))))
        params = torch.cat(items)
        self._check(params)
        return self.parameterization, params

    def _check(self, params: Tensor) -> None:
        """Refuse, before the first step, parameters or decoded images of another shape than the run needs, and what
        cannot be saved after the last."""
        task, name = self.task, type(self.parameterization).__name__
        if params.ndim != 4 or len(params) != task.classes * task.ipc:
            raise DistilError(
                f"{name}.encode made parameters of shape {list(params.shape)}: expected [{task.classes * task.ipc}, "
                f"channels, height, width] for {task.classes} classes of {task.ipc} items."
            )
        with torch.no_grad():
            decoded = list(self.parameterization.select(slice(0, 1)).decode(params[:1]).shape)
        wanted = [self.parameterization.images_per_item, task.real.channels, *task.real.size]
        if decoded != wanted:
            raise DistilError(f"{name}.decode made images of shape {decoded} of one item: expected {wanted}.")
        try:
            stored, kept = self.parameterization.quantize(params)
            stored = checked_params(stored)
            kept.checked(stored)
        except DistilError as error:
            raise DistilError(f"what {name}.quantize made cannot be saved: {error}") from error

    def refresh(
        self, outer: int, placed: Parameterization, params: Tensor, moments: Sequence[Tensor]
    ) -> Parameterization:
        return placed

    def finished(self, placed: Parameterization, params: Tensor) -> Parameterization:
        return placed

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.initial()[1].shape)

    def expected(self, outer: int | None) -> dict[str, Expected]:
        state = self.parameterization.state()
        kept = {name: Expected(tuple(tensor.shape), -inf, inf, tensor.dtype) for name, tensor in state.items()}
        return {"canvases": Expected(self._shape, -LARGEST, LARGEST), **kept}

    def restored(self, tensors: Mapping[str, Tensor]) -> Parameterization:
        return self.parameterization

    def event(self, placed: Parameterization) -> tuple[str, dict[str, Any]] | None:
        return None
