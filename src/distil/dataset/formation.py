"""How a canvas's numbers become views: regions of an image, or the coefficients of few cosines, so many a view."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.errors import DistilError
from distil.functional.augment import normalise
from distil.functional.regions import crop_resize
from distil.functional.spectrum import (
    GREY,
    coefficients,
    cosine_images,
    jitter_of_cosines,
    lowest_frequencies,
    response_to_cosines,
)
from distil.rng import stream
from distil.settings import MatchingSettings
from distil.sources.images import ImageSet
from distil.types import Regions

SCORED = 1000
"""Real images, of all classes together, on which a network's use of the cosines is measured."""
JITTERED = 32
"""The same for jitter, which needs a prediction for each of them and each cosine."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The cosines that views are made of."""

    kept: Int[Tensor, " k"]
    """Positions of their coefficients in c*h*w."""
    atoms: Float[Tensor, "k c h w"]
    """What a canvas's numbers multiply: the cosines, all of length sqrt(c h w / k), so that numbers that change by 1
    change the pixels of their view by 1 in the root mean square."""

    @classmethod
    def of(cls, kept: Int[Tensor, " k"], shape: tuple[int, int, int], device: torch.device | str) -> "Spectrum":
        """The spectrum of these coefficients for views of `shape` (c, h, w)."""
        unit = math.sqrt(math.prod(shape) / len(kept))
        return cls(kept.to(device), unit * cosine_images(kept, shape, device=device))


def views_on(canvases: Float[Tensor, "n c h w"], formation: Regions | Spectrum) -> int:
    """Views of each canvas."""
    if isinstance(formation, Spectrum):
        return canvases[0].numel() // len(formation.kept)
    return formation.shape[1]


def views_of(
    canvases: Float[Tensor, "n c h w"], formation: Regions | Spectrum, size: tuple[int, int]
) -> Float[Tensor, "views c height width"]:
    """All views, canvas by canvas. With a spectrum, the numbers of a canvas, row by row and channel by channel, are
    its first view's coefficients, then its second's, and so on; a rest is not used."""
    if not isinstance(formation, Spectrum):
        return crop_resize(canvases, formation, size)
    count, cosines = views_on(canvases, formation), len(formation.kept)
    numbers = canvases.flatten(1)[:, : count * cosines].reshape(-1, cosines)
    return (numbers @ formation.atoms.flatten(1) + GREY).unflatten(1, tuple(formation.atoms.shape[1:]))


def numbers_on_a_canvas(shape: tuple[int, int, int], settings: MatchingSettings) -> int:
    """One for each value of an image; two where they share a byte."""
    return math.prod(shape) * (2 if settings.storage == "uint4" else 1)


def cosines_of_a_view(shape: tuple[int, int, int], settings: MatchingSettings) -> int:
    """Coefficients that each view of `shape` has, all of them at most.

    Raises: DistilError when there are more views than numbers.
    """
    numbers, views = numbers_on_a_canvas(shape, settings), settings.spectral_views
    if views > numbers:
        raise DistilError(f"--spectral-views {views} is more than a canvas has numbers, {numbers}: use fewer.")
    return min(numbers // views, math.prod(shape))


@torch.no_grad()
def kept_cosines(real: ImageSet, settings: MatchingSettings, proxy: nn.Module | None) -> Int[Tensor, " k"]:
    """Which coefficients views have, in rising order.

    "response" and "jitter" keep those that the proxy uses most on real images, "fixed" and "none" those of lowest
    frequency, "random" draws them. The others' numbers serve further views.
    """
    shape = (real.channels, *real.size)
    count = cosines_of_a_view(shape, settings)
    generator = stream(settings.seed, "cosines")
    if settings.policy == "random":
        scores = torch.rand(math.prod(shape), generator=generator)
    elif settings.policy in ("none", "fixed"):
        scores = lowest_frequencies(shape)
    elif proxy is None:
        raise ValueError(f"the {settings.policy} policy needs a proxy network")
    else:
        wanted = SCORED if settings.policy == "response" else JITTERED
        each = max(1, wanted // len(real.classes))
        images = torch.cat([real.sample_class(c, min(each, n), generator) for c, n in enumerate(real.counts)])
        if settings.policy == "jitter":
            images = images[torch.randperm(len(images), generator=generator)[:JITTERED].to(images.device)]

        def predict(x: Tensor) -> Tensor:
            return proxy(normalise(x, real.mean, real.std))

        if settings.policy == "response":
            with torch.enable_grad():
                scores = response_to_cosines(predict, images, generator)
        else:
            scores = jitter_of_cosines(predict, images, generator)
    return scores.cpu().argsort(descending=True, stable=True)[:count].sort().values


def spectral_canvases(
    real: ImageSet, spectrum: Spectrum, settings: MatchingSettings
) -> Float[Tensor, "n channels h w"]:
    """Canvases whose views are real images of the class (or, with init "noise", noise), as the spectrum shows them.

    The numbers are the images' kept coefficients in the units of the atoms. Where two numbers share a byte, canvases
    have twice the channels of an image. Draws are addressed by class name.
    """
    shape, ipc = (real.channels, *real.size), settings.ipc
    numbers, cosines = numbers_on_a_canvas(shape, settings), len(spectrum.kept)
    count = numbers // cosines
    unit = math.sqrt(math.prod(shape) / cosines)
    canvases = torch.zeros(len(real.classes) * ipc, numbers, device=real.images.device)
    for label, name in enumerate(real.classes):
        generator = stream(settings.seed, "initial", name)
        if settings.init == "noise":
            noise = torch.randn(ipc * count, *shape, generator=generator).to(canvases.device)
            mean, std = (noise.new_tensor(values).view(1, -1, 1, 1) for values in (real.mean, real.std))
            images = mean + std * noise
        else:
            images = real.sample_class(label, ipc * count, generator)
        values = coefficients(images)[:, spectrum.kept] / unit
        canvases[label * ipc : (label + 1) * ipc, : count * cosines] = values.view(ipc, -1)
    return canvases.unflatten(1, (-1, *real.size))
