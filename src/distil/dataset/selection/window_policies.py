"""Which windows of an item are underutilized: UDD's response-based and data-jittering-based policy, and controls."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.data.images.image_set import ImageSet
from distil.dataset.protocols import Task
from distil.errors import DistilError
from distil.functional.augment import normalize
from distil.functional.regions import candidate_windows, grid_regions, lowest_apart, window_means
from distil.functional.utilization import jitter_divergence, response_map, spread_scores
from distil.parameterizations.crops import Crops
from distil.types import Regions

OVERLAP = 0.5
"""Windows may overlap a chosen one by this intersection over union."""


class WindowPolicy(Protocol):
    """How much the windows of items are used."""

    @property
    def renews(self) -> bool:
        """Whether a later choice can differ from the first."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether windows may overlap as they please, unless they are asked to lie apart."""
        ...

    def scores(
        self,
        items: Float[Tensor, "n c h w"],
        cells: Crops,
        windows: Float[Tensor, "r 4"],
        every: Float[Tensor, "e 4"],
        task: Task,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n h w"]]:
        """(how much each window of each item is used, a map of that over the pixels in [0, 1]).

        items: in [0, 1]. cells: the regions that are images already. windows: candidates that are no cells. every: all
        candidates. generator: on the CPU.
        """
        ...


@dataclass(frozen=True)
class FixedWindows:
    """The first windows, the same on every item: a control. Utilization is zero everywhere."""

    renews: bool = False
    overlaps: bool = True

    def scores(
        self, items: Tensor, cells: Crops, windows: Tensor, every: Tensor, task: Task, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        scores = torch.arange(len(windows), dtype=items.dtype).expand(len(items), -1)
        return scores.to(items.device), torch.zeros_like(items[:, 0])


@dataclass(frozen=True)
class RandomWindows:
    """Windows drawn at random: a control. Utilization is zero everywhere."""

    renews: bool = True
    overlaps: bool = True

    def scores(
        self, items: Tensor, cells: Crops, windows: Tensor, every: Tensor, task: Task, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        scores = torch.rand(len(items), len(windows), generator=generator, dtype=items.dtype)
        return scores.to(items.device), torch.zeros_like(items[:, 0])


@dataclass(frozen=True)
class ResponseToWindows:
    """The mean response of the proxy network over the window."""

    renews: bool = True
    overlaps: bool = False

    def scores(
        self, items: Tensor, cells: Crops, windows: Tensor, every: Tensor, task: Task, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        utilization = response_utilization(items, cells, _proxy(task), task.real)
        return window_means(utilization, windows), utilization


@dataclass(frozen=True)
class JitterOfWindows:
    """How much a jitter inside the window, noise of standard deviation `jitter`, changes the proxy's predictions for
    its area; over `draws` draws."""

    jitter: float
    draws: int
    renews: bool = True
    overlaps: bool = False

    def scores(
        self, items: Tensor, cells: Crops, windows: Tensor, every: Tensor, task: Task, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        scores = jitter_scores(items, every, cells, _proxy(task), task.real, self.jitter, self.draws, generator)
        utilization = spread_scores(scores, every, (items.shape[-2], items.shape[-1]))
        return scores[:, (every[:, None] == windows[None]).all(2).float().argmax(0)], utilization


def _proxy(task: Task) -> nn.Module:
    if task.proxy is None:
        raise ValueError("this policy needs a proxy network")
    return task.proxy


def seam_windows(
    factor: int, size: tuple[int, int], windows_factor: int = 0, *, device: torch.device | str = "cpu"
) -> Float[Tensor, "r 4"]:
    """The candidate windows that are not cells of the grid, as large as cells of a grid of `windows_factor` (0: of
    `factor`).

    Raises: DistilError when none is left, as at factor 1.
    """
    windows, cells = candidate_windows(windows_factor or factor, size), grid_regions(factor, size)
    fresh = ~(windows[:, None] == cells[None]).all(2).any(1)
    if not fresh.any():
        raise DistilError(
            f"a {size[0]}x{size[1]} item at {{factor}} {factor} has no windows to mine: use {{factor}} 2.",
            field="factor",
        )
    return windows[fresh].to(device)


@torch.no_grad()
def mined_windows(
    policy: WindowPolicy,
    items: Float[Tensor, "n c h w"],
    cells: Crops,
    factor: int,
    count: int,
    windows_factor: int,
    task: Task,
    generator: torch.Generator,
    *,
    apart: bool = False,
) -> tuple[Regions, Float[Tensor, "n h w"]]:
    """(`count` windows on every item [n, count, 4], the utilization that they were chosen by).

    The windows of lowest score among the candidates that are not cells of the grid; those that overlap a chosen one by
    more than OVERLAP are passed over, or, with `apart`, those that overlap one at all.
    Raises: DistilError if there are fewer candidates than `count`.
    """
    size = (items.shape[-2], items.shape[-1])
    windows = seam_windows(factor, size, windows_factor, device=items.device)
    if count > len(windows):
        raise DistilError(
            f"{{windows}} {count} is more than the {len(windows)} candidate windows of a {size[0]}x{size[1]} item at "
            f"{{factor}} {factor}.",
            field=("windows", "factor"),
        )
    every = candidate_windows(windows_factor or factor, size, device=items.device)
    scores, utilization = policy.scores(items, cells, windows, every, task, generator)
    if policy.overlaps and not apart:
        return windows[scores.argsort(dim=1)[:, :count]], utilization
    return lowest_apart(scores, windows, count, overlap=0.0 if apart else OVERLAP), utilization


@torch.no_grad()
def response_utilization(
    items: Float[Tensor, "n c h w"], cells: Crops, proxy: nn.Module, real: ImageSet, *, batch: int = 512
) -> Float[Tensor, "n h w"]:
    """Utilization of each item's pixels by the proxy's response to its cells; see functional.utilization."""
    size = (items.shape[-2], items.shape[-1])
    maps = []
    for part in items.split(max(1, batch // cells.images_per_item)):
        images = normalize(cells.decode(part), real.mean, real.std)
        activations = proxy.activations(images)  # pyright: ignore[reportCallIssue]
        maps.append(response_map(activations, cells.regions, size, size))
    return torch.cat(maps)


@torch.no_grad()
def jitter_scores(
    items: Float[Tensor, "n c h w"],
    windows: Float[Tensor, "r 4"],
    cells: Crops,
    proxy: nn.Module,
    real: ImageSet,
    jitter: float,
    draws: int,
    generator: torch.Generator,
) -> Float[Tensor, "n r"]:
    """Sensitivity of the proxy to each window: how much a jitter inside it changes the predictions, for its area.

    score_b = mean over draws and cells of KL(proxy(x) || proxy(x + mask_b noise)) / |b|, noise ~ N(0, jitter^2),
    the jittered item clamped to [0, 1].
    """

    def predict(images: Tensor) -> Tensor:
        return proxy(normalize(cells.decode(images), real.mean, real.std))

    before = torch.cat([predict(part) for part in items.split(128)])
    columns = []
    for window in windows:
        x1, y1, x2, y2 = (int(side) for side in window)
        total = torch.zeros(len(items), device=items.device)
        for _ in range(draws):
            noise = torch.randn(items.shape[0], items.shape[1], y2 - y1, x2 - x1, generator=generator) * jitter
            jittered = items.clone()
            jittered[:, :, y1:y2, x1:x2] += noise.to(items.device, items.dtype)
            after = torch.cat([predict(part) for part in jittered.clamp(0, 1).split(128)])
            total += jitter_divergence(before, after).view(len(items), -1).mean(1)
        columns.append(total / (draws * (y2 - y1) * (x2 - x1)))
    return torch.stack(columns, dim=1)
