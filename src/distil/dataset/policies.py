"""Policies: which windows of a canvas join the grid's cells as further views, and which cosines views are made of.

Source: UDD names the response-based and the data-jittering-based policy; the rest is our reconstruction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.data.images.image_set import ImageSet
from distil.dataset.formation import cosines_of_a_view
from distil.errors import DistilError
from distil.functional.augment import normalize
from distil.functional.dct import (
    coefficients,
    information_about_cosines,
    jitter_of_cosines,
    lowest_frequencies,
    response_to_cosines,
)
from distil.functional.regions import (
    candidate_windows,
    crop_resize,
    grid_regions,
    lowest_apart,
    window_means,
)
from distil.functional.utilization import jitter_divergence, response_map, spread_scores
from distil.rng import stream
from distil.settings import MatchingSettings
from distil.types import Regions

SCORED = 1000
"""Real images, of all classes together, on which a network's use of the cosines is measured."""
JITTERED = 32
"""The same for jitter, which needs a prediction for each of them and each cosine."""

Policy = Literal["none", "fixed", "random", "response", "jitter"]


@dataclass(frozen=True)
class Mined:
    """Windows chosen on each canvas, and the utilisation map that they were chosen by (0 = idle, 1 = most used)."""

    windows: Regions
    utilisation: Float[Tensor, "n h w"]


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
        raise DistilError(f"a {size[0]}x{size[1]} canvas at --factor {factor} has no windows to mine: use --factor 2.")
    return windows[fresh].to(device)


@torch.no_grad()
def mine(
    policy: Policy,
    canvases: Float[Tensor, "n c h w"],
    proxy: nn.Module | None,
    *,
    factor: int,
    count: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    jitter: float,
    jitter_draws: int,
    generator: torch.Generator,
    windows_factor: int = 0,
    apart: bool = False,
) -> Mined:
    """Choose `count` windows on every canvas among the candidates that are not cells of the grid.

    policy: "response" takes the windows of lowest mean response of the proxy; "jitter" those whose jitter, noise of
    standard deviation `jitter` added inside the window, changes the proxy's predictions least for their area; both
    pass over windows that overlap a chosen one by more than half (intersection over union), or, with `apart`, at all.
    "random" draws them, "fixed" takes the first ones. For "random" and "fixed" utilisation is zero everywhere.
    canvases: in [0, 1]. proxy: network trained on real images (unused by "random" and "fixed"). generator: on the CPU.
    Raises: DistilError if there are fewer candidates than `count`.
    """
    size = (canvases.shape[-2], canvases.shape[-1])
    windows = seam_windows(factor, size, windows_factor, device=canvases.device)
    overlap = 0.0 if apart else 0.5
    if count > len(windows):
        raise DistilError(
            f"--windows {count} is more than the {len(windows)} candidate windows of a {size[0]}x{size[1]} canvas at "
            f"--factor {factor}."
        )
    if policy in ("fixed", "random"):
        scores = torch.arange(len(windows), dtype=canvases.dtype).expand(len(canvases), -1)
        if policy == "random":
            scores = torch.rand(len(canvases), len(windows), generator=generator, dtype=canvases.dtype)
        if apart:
            chosen = lowest_apart(scores.to(canvases.device), windows, count, overlap=overlap)
        else:
            chosen = windows[scores.to(canvases.device).argsort(dim=1)[:, :count]]
        return Mined(chosen, torch.zeros_like(canvases[:, 0]))
    if proxy is None:
        raise ValueError(f"the {policy} policy needs a proxy network")
    if policy == "response":
        utilisation = response_utilisation(canvases, proxy, factor=factor, mean=mean, std=std)
        scores = window_means(utilisation, windows)
    else:
        every = candidate_windows(windows_factor or factor, size, device=canvases.device)
        all_scores = jitter_scores(canvases, every, proxy, factor, mean, std, jitter, jitter_draws, generator)
        utilisation = spread_scores(all_scores, every, size)
        scores = all_scores[:, (every[:, None] == windows[None]).all(2).float().argmax(0)]
    return Mined(lowest_apart(scores, windows, count, overlap=overlap), utilisation)


@torch.no_grad()
def response_utilisation(
    canvases: Float[Tensor, "n c h w"],
    proxy: nn.Module,
    *,
    factor: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch: int = 512,
) -> Float[Tensor, "n h w"]:
    """Utilisation of each canvas pixel by the proxy's response to the grid's views; see functional.utilisation."""
    size = (canvases.shape[-2], canvases.shape[-1])
    cells = grid_regions(factor, size, device=canvases.device)[None]
    maps = []
    for part in canvases.split(max(1, batch // cells.shape[1])):
        views = normalize(crop_resize(part, cells, size), mean, std)
        maps.append(response_map(proxy.activations(views), cells, size, size))  # pyright: ignore[reportCallIssue]
    return torch.cat(maps)


@torch.no_grad()
def jitter_scores(
    canvases: Float[Tensor, "n c h w"],
    windows: Float[Tensor, "r 4"],
    proxy: nn.Module,
    factor: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    jitter: float,
    draws: int,
    generator: torch.Generator,
) -> Float[Tensor, "n r"]:
    """Sensitivity of the proxy to each window: how much a jitter inside it changes the predictions, for its area.

    score_b = mean over draws and grid views of KL(proxy(x) || proxy(x + mask_b noise)) / |b|, noise ~ N(0, jitter^2),
    the jittered canvas clamped to [0, 1].
    """
    size = (canvases.shape[-2], canvases.shape[-1])
    cells = grid_regions(factor, size, device=canvases.device)[None]

    def predict(images: Tensor) -> Tensor:
        return proxy(normalize(crop_resize(images, cells, size), mean, std))

    before = torch.cat([predict(part) for part in canvases.split(128)])
    columns = []
    for window in windows:
        x1, y1, x2, y2 = (int(side) for side in window)
        total = torch.zeros(len(canvases), device=canvases.device)
        for _ in range(draws):
            noise = torch.randn(canvases.shape[0], canvases.shape[1], y2 - y1, x2 - x1, generator=generator) * jitter
            jittered = canvases.clone()
            jittered[:, :, y1:y2, x1:x2] += noise.to(canvases.device, canvases.dtype)
            after = torch.cat([predict(part) for part in jittered.clamp(0, 1).split(128)])
            total += jitter_divergence(before, after).view(len(canvases), -1).mean(1)
        columns.append(total / (draws * (y2 - y1) * (x2 - x1)))
    return torch.stack(columns, dim=1)


def kept_cosines(real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None) -> Int[Tensor, " k"]:
    """Which coefficients views begin with, in rising order: those of the highest `cosine_scores`. The others' numbers
    serve further views.

    Raises: DistilError when the proxy's predictions are not finite, or there are more views than numbers.
    """
    count = cosines_of_a_view((real.channels, *real.size), settings)
    if settings.spectral_start != "policy":
        settings = replace(settings, policy=settings.spectral_start)
    return cosine_scores(real, settings, proxy).argsort(descending=True, stable=True)[:count].sort().values


@torch.no_grad()
def cosine_scores(
    real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None
) -> Float[Tensor, " coefficients"]:
    """What the policy goes by, for every coefficient of an image; on the CPU.

    "response" and "jitter" measure how much the proxy uses it on real images, "fixed" and "none" prefer low
    frequencies, "random" draws.
    Raises: DistilError when the proxy's predictions are not finite.
    """
    shape = (real.channels, *real.size)
    generator = stream(settings.seed, "cosines")
    if settings.policy == "random":
        return torch.rand(math.prod(shape), generator=generator)
    if settings.policy in ("none", "fixed"):
        return lowest_frequencies(shape)
    predict, images = _proxy_and_images(real, settings, proxy, generator)
    if not bool(predict(images[:JITTERED]).isfinite().all()):
        raise DistilError(
            "the proxy network's predictions are not finite numbers: its training on the real images went wrong. "
            "Look for damaged or constant images, or use --policy fixed, which needs no proxy."
        )
    if settings.policy == "jitter":
        return jitter_of_cosines(predict, images, generator).cpu()
    with torch.enable_grad():
        return response_to_cosines(predict, images, generator).cpu()


@torch.no_grad()
def cosines_kept_next(
    views: Float[Tensor, "n c h w"],
    kept: Int[Tensor, " k"],
    real: ImageSet,
    settings: MatchingSettings,
    proxy: nn.Module | None,
    outer: int,
) -> Int[Tensor, " k"]:
    """Which coefficients views have from now on, in rising order: underutilized ones among `kept` give way to idle
    ones that would be used more.

    Utilisation is measured on the views: of a kept coefficient with its variance among them, of an idle one with that
    among real images, which it would begin with ("response"); or by the change that a real image's coefficient makes
    in a view ("jitter"). Where predictions of the views are not finite, the choice stays: the loop names the step.
    """
    generator = stream(settings.seed, "cosines", outer)
    predict, images = _proxy_and_images(real, settings, proxy, generator)
    most = SCORED if settings.policy == "response" else JITTERED
    views = views[torch.randperm(len(views), generator=generator)[:most].to(views.device)]
    if not bool(predict(views).isfinite().all()):
        return kept
    if settings.policy == "jitter":
        scores = jitter_of_cosines(predict, views, generator, images)
    else:
        spread = coefficients(images).var(0)
        spread[kept] = coefficients(views).var(0)[kept]
        with torch.enable_grad():
            scores = spread * information_about_cosines(predict, views, generator)
    return scores.argsort(descending=True, stable=True)[: len(kept)].sort().values.to(kept)


def _proxy_and_images(
    real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None, generator: torch.Generator
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The proxy's logits of images in [0, 1], and real images of all classes on which to ask it."""
    if proxy is None:
        raise ValueError(f"the {settings.policy} policy needs a proxy network")
    wanted = SCORED if settings.policy == "response" else JITTERED
    each = max(1, wanted // len(real.classes))
    images = torch.cat([real.sample_class(c, min(each, n), generator) for c, n in enumerate(real.counts)])
    if settings.policy == "jitter":
        images = images[torch.randperm(len(images), generator=generator)[:JITTERED].to(images.device)]
    return lambda x: proxy(normalize(x, real.mean, real.std)), images
