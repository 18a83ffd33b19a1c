"""How a canvas's numbers become views: regions of an image, or the coefficients of few cosines, so many a view."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.data.images.image_set import ImageSet
from distil.errors import DistilError
from distil.functional.dct import coefficients, from_kept_coefficients, shared_among_views
from distil.functional.regions import crop_resize
from distil.rng import stream
from distil.settings import MatchingSettings
from distil.types import Regions

REPEATS_NOISE = 0.3
"""Of views that begin as an image that another view began as, in standard deviations of the data."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The cosines that views are made of."""

    kept: Int[Tensor, " k"]
    """Positions of their coefficients in c*h*w."""
    shape: tuple[int, int, int]
    """Of a view: (c, h, w)."""

    @property
    def unit(self) -> float:
        """The coefficient that a number of 1 stands for: sqrt(c h w / k), so that numbers that change by 1 change the
        pixels of their view by 1 in the root mean square."""
        return math.sqrt(math.prod(self.shape) / len(self.kept))


def views_on(canvases: Float[Tensor, "n c h w"], formation: Regions | Spectrum) -> int:
    """Views of each canvas."""
    if isinstance(formation, Spectrum):
        return canvases[0].numel() // len(formation.kept)
    return formation.shape[1]


def views_of(
    canvases: Float[Tensor, "n c h w"], formation: Regions | Spectrum, size: tuple[int, int]
) -> Float[Tensor, "views _channels height width"]:
    """All views, canvas by canvas. With a spectrum, the numbers of a canvas, row by row and channel by channel, are
    its first view's coefficients, then its second's, and so on; a rest is not used."""
    if not isinstance(formation, Spectrum):
        return crop_resize(canvases, formation, size)
    numbers = shared_among_views(canvases.flatten(1), len(formation.kept))
    return from_kept_coefficients(formation.unit * numbers, formation.kept, formation.shape)


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


def spectral_canvases(
    real: ImageSet, spectrum: Spectrum, settings: MatchingSettings
) -> Float[Tensor, "n channels h w"]:
    """Canvases whose views are real images of the class (or, with init "noise", noise), as the spectrum shows them.

    The numbers are the images' kept coefficients in units of the spectrum. Where two numbers share a byte, canvases
    have twice the channels of an image. Draws are addressed by class name.

    A class with fewer images than it has views shows some of them again; those begin with noise of REPEATS_NOISE times
    the data's standard deviation, since equal views would have equal gradients and stay equal (ours).
    """
    shape, ipc = spectrum.shape, settings.ipc
    numbers, cosines = numbers_on_a_canvas(shape, settings), len(spectrum.kept)
    count = numbers // cosines
    canvases = torch.zeros(len(real.classes) * ipc, numbers, device=real.images.device)
    for label, name in enumerate(real.classes):
        generator = stream(settings.seed, "initial", name)
        if settings.init == "noise":
            noise = torch.randn(ipc * count, *shape, generator=generator).to(canvases.device)
            mean, std = (noise.new_tensor(values).view(1, -1, 1, 1) for values in (real.mean, real.std))
            images = mean + std * noise
        else:
            images = real.sample_class(label, ipc * count, generator)
            repeats = images[real.counts[label] :]
            noise = torch.randn(repeats.shape, generator=generator).to(canvases.device)
            repeats += REPEATS_NOISE * noise.new_tensor(real.std).view(1, -1, 1, 1) * noise
        values = coefficients(images)[:, spectrum.kept] / spectrum.unit
        canvases[label * ipc : (label + 1) * ipc, : count * cosines] = values.view(ipc, -1)
    return canvases.unflatten(1, (-1, *real.size))
