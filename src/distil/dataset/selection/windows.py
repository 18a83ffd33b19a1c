"""UDD on pixels: windows of items that a network uses little, found during training, become further images.

Source: UDD names the response-based and the data-jittering-based policy; the rest is a reconstruction
(docs/methods/udd.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from distil.data.images.image_set import ImageSet
from distil.dataset.config import Windows
from distil.dataset.protocols import Expected, Task
from distil.dataset.selection.grid import GridSelection
from distil.dataset.selection.window_policies import WindowPolicy, mined_windows, response_utilization, seam_windows
from distil.errors import DistilError
from distil.functional.utilization import utilization_entropy
from distil.parameterizations.base import Parameterization
from distil.parameterizations.crops import Crops
from distil.rng import stream
from distil.types import Regions


@dataclass(frozen=True)
class WindowSelection:
    """A grid, and windows that a policy mines on the items as they are, again from time to time."""

    settings: Windows
    policy: WindowPolicy
    task: Task

    @property
    def grid(self) -> GridSelection:
        return GridSelection(self.settings, self.task)

    def initial(self) -> tuple[Crops, Float[Tensor, "n c h w"]]:
        return self.grid.initial()

    def due(self, outer: int, none_yet: bool) -> bool:
        """Whether windows are chosen when outer iteration `outer` begins."""
        settings, count = self.settings, self.task.outer
        if outer < min(settings.windows_start * count, count - 1):
            return False
        frozen = outer >= (1 - settings.windows_freeze) * count
        return none_yet or (outer % settings.refresh == 0 and not frozen and self.policy.renews)

    def refresh(
        self, outer: int, placed: Parameterization, params: Tensor, moments: Sequence[Tensor]
    ) -> Parameterization:
        """Choose windows if they are due; with windows_init "real", those that were not there before begin with real
        images."""
        crops, settings = cast(Crops, placed), self.settings
        if not self.due(outer, not crops.mined):
            return placed
        windows, utilization = mined_windows(
            self.policy,
            params,
            crops.unmined,
            settings.factor,
            settings.windows,
            settings.windows_factor,
            self.task,
            stream(self.task.seed, "windows", outer),
            apart=settings.windows_init == "real",
        )
        if settings.windows_init == "real":
            fresh = _not_among(windows, crops.windows if crops.mined else None)
            paste_real(params, windows, fresh, self.task.real, self.task.seed, outer)
        apart = getattr(settings.windows_loss, "kind", "") == "apart"
        return crops.with_windows(windows, utilization, apart=apart)

    def finished(self, placed: Parameterization, params: Tensor) -> Parameterization:
        """With the utilization of the items as they are, where a network measures it."""
        crops, used, task = cast(Crops, placed), None, self.task
        if task.proxy is not None:
            used = response_utilization(params.clamp(0, 1), crops.unmined, task.proxy, task.real)
        return replace(crops, utilization=used)

    def expected(self, outer: int | None) -> dict[str, Expected]:
        expected = self.grid.expected(outer)
        if outer is not None and self.due(outer, none_yet=True):
            count, size = self.task.classes * self.task.ipc, self.task.real.size
            expected["windows"] = Expected((count, self.settings.windows, 4), 0, max(size))
            expected["utilisation"] = Expected((count, *size), 0, 1)
        return expected

    def restored(self, tensors: Mapping[str, Tensor]) -> Parameterization:
        crops = self.grid.cells()
        if "windows" not in tensors:
            return crops
        windows, (height, width) = tensors["windows"], self.task.real.size
        x1, y1, x2, y2 = windows.unbind(-1)
        if not bool(((x1 < x2) & (y1 < y2) & (x2 <= width) & (y2 <= height)).all()):
            raise DistilError("its windows are not inside their items")
        apart = getattr(self.settings.windows_loss, "kind", "") == "apart"
        crops = replace(crops, regions=crops.regions.to(windows.device))
        return crops.with_windows(windows, tensors["utilisation"], apart=apart)

    def event(self, placed: Parameterization) -> tuple[str, dict[str, Any]] | None:
        crops = cast(Crops, placed)
        if not crops.mined or crops.utilization is None:
            return None
        used = float(utilization_entropy(crops.utilization))
        return "windows", {"windows": crops.windows.int().tolist(), "mue": used}


def paste_real(
    items: Float[Tensor, "n c h w"], regions: Regions, fresh: Bool[Tensor, "n r"], real: ImageSet, seed: int, at: int
) -> None:
    """Paste random real images of each item's class, shrunk with antialiasing, into its regions that are `fresh`.

    items: in [0, 1], class by class; changed in place. regions: inside the item, at whole pixels. at: address of the
    draws, beside the class's name.
    """
    ipc = len(items) // len(real.classes)
    for row in fresh.any(1).nonzero().flatten().tolist():
        places = regions[row][fresh[row]].int().tolist()
        label, copy = divmod(row, ipc)
        images = real.sample_class(label, len(places), stream(seed, "windows", "real", at, real.classes[label], copy))
        for image, (x1, y1, x2, y2) in zip(images, places, strict=True):
            shrunk = interpolate(image[None], size=(y2 - y1, x2 - x1), mode="bilinear", antialias=True)
            items[row, :, y1:y2, x1:x2] = shrunk[0].clamp(0, 1)


def _not_among(windows: Regions, before: Regions | None) -> Bool[Tensor, "n r"]:
    """Which windows of each item were not chosen before."""
    if before is None:
        return torch.ones(windows.shape[:2], dtype=torch.bool, device=windows.device)
    return ~(windows[:, :, None] == before[:, None]).all(3).any(2)


def check_windows(settings: Windows, size: tuple[int, int]) -> None:
    """Refuse windows that an item of `size` (h, w) does not have. Raises: DistilError that names the field."""
    if settings.windows_factor > min(size):
        raise DistilError(
            f"{{windows_factor}} {settings.windows_factor} is larger than the images' side, {min(size)} pixels: use a "
            "factor of 3 or 4.",
            field="windows_factor",
        )
    candidates = len(seam_windows(settings.factor, size, settings.windows_factor))
    if settings.windows > candidates:
        raise DistilError(
            f"{{windows}} {settings.windows} is more than the {candidates} candidate windows of a {size[0]}x{size[1]} "
            f"item at {{factor}} {settings.factor}: use {candidates} at most.",
            field=("windows", "factor"),
        )
