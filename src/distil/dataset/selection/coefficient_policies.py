"""Which DCT coefficients are used: UDD's response-based and data-jittering-based policy, and controls."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.dataset.protocols import Task
from distil.errors import DistilError
from distil.functional.augment import normalize
from distil.functional.dct import (
    coefficients,
    information_about_cosines,
    jitter_of_cosines,
    lowest_frequencies,
    response_to_cosines,
)

SCORED = 1000
"""Real images, of all classes together, on which a network's use of the coefficients is measured."""
JITTERED = 32
"""The same for jitter, which needs a prediction for each of them and each coefficient."""


class CoefficientPolicy(Protocol):
    """How much each coefficient of an image is used. A policy with a `proxy_steps` attribute has a network that was
    trained on real images, for so many updates, as `task.proxy`."""

    def scores(self, task: Task, generator: torch.Generator) -> Float[Tensor, " coefficients"]:
        """Before the first step, for every coefficient in c*h*w; those of the highest scores are kept. On the CPU."""
        ...

    def scores_again(
        self, images: Float[Tensor, "n c h w"], kept: Int[Tensor, " k"], task: Task, generator: torch.Generator
    ) -> Float[Tensor, " coefficients"] | None:
        """The same during the run, by the synthetic images as they are, which have the coefficients `kept`; None: the
        choice stays."""
        ...


@dataclass(frozen=True)
class LowestFrequencies:
    """The lowest frequencies are used most: a control."""

    def scores(self, task: Task, generator: torch.Generator) -> Tensor:
        return lowest_frequencies(_shape(task))

    def scores_again(self, images: Tensor, kept: Tensor, task: Task, generator: torch.Generator) -> None:
        return None


@dataclass(frozen=True)
class RandomFrequencies:
    """Any frequencies: a control."""

    def scores(self, task: Task, generator: torch.Generator) -> Tensor:
        return torch.rand(math.prod(_shape(task)), generator=generator)

    def scores_again(self, images: Tensor, kept: Tensor, task: Task, generator: torch.Generator) -> None:
        return None


@dataclass(frozen=True)
class VarianceOfFrequencies:
    """The coefficients that vary most among real images of one class, on average over the classes: a control without a
    network, by FreD's criterion. Source: FreD (Shin et al. 2023), equation 4; there each class has frequencies of its
    own (`--parameterization fred`)."""

    def scores(self, task: Task, generator: torch.Generator) -> Tensor:
        each = max(2, SCORED // task.classes)
        of_class = [coefficients(task.real.sample_class(c, each, generator)).var(0) for c in range(task.classes)]
        return torch.stack(of_class).mean(0).cpu()

    def scores_again(self, images: Tensor, kept: Tensor, task: Task, generator: torch.Generator) -> None:
        return None


@dataclass(frozen=True)
class ResponseToFrequencies:
    """How strongly the proxy network responds to each coefficient: its variance times the Fisher information about it.

    During the run it is measured on the synthetic images: of a kept coefficient with its variance among them, of an
    idle one with that among real images, which it would begin with. Where predictions of the images are not finite, the
    choice stays: the loop names the step.
    Raises: DistilError when the proxy's predictions of real images are not finite.
    """

    def scores(self, task: Task, generator: torch.Generator) -> Tensor:
        predict, images = _predict(task), _real_images(task, SCORED, generator)
        _check_finite(predict, images)
        with torch.enable_grad():
            return response_to_cosines(predict, images, generator).cpu()

    def scores_again(self, images: Tensor, kept: Tensor, task: Task, generator: torch.Generator) -> Tensor | None:
        predict, real = _predict(task), _real_images(task, SCORED, generator)
        images = images[torch.randperm(len(images), generator=generator)[:SCORED].to(images.device)]
        if not bool(predict(images).isfinite().all()):
            return None
        spread = coefficients(real).var(0)
        spread[kept] = coefficients(images).var(0)[kept]
        with torch.enable_grad():
            return spread * information_about_cosines(predict, images, generator)


@dataclass(frozen=True)
class JitterOfFrequencies:
    """How much the proxy's predictions change when a coefficient is replaced by that of another real image.

    Raises: DistilError when the proxy's predictions of real images are not finite.
    """

    def scores(self, task: Task, generator: torch.Generator) -> Tensor:
        predict, images = _predict(task), _some(_real_images(task, JITTERED, generator), generator)
        _check_finite(predict, images)
        return jitter_of_cosines(predict, images, generator).cpu()

    def scores_again(self, images: Tensor, kept: Tensor, task: Task, generator: torch.Generator) -> Tensor | None:
        predict, real = _predict(task), _some(_real_images(task, JITTERED, generator), generator)
        images = images[torch.randperm(len(images), generator=generator)[:JITTERED].to(images.device)]
        if not bool(predict(images).isfinite().all()):
            return None
        return jitter_of_cosines(predict, images, generator, real)


def _shape(task: Task) -> tuple[int, int, int]:
    return (task.real.channels, *task.real.size)


def _predict(task: Task) -> Callable[[Tensor], Tensor]:
    """The proxy's logits of images in [0, 1]."""
    proxy = task.proxy
    if proxy is None:
        raise ValueError("this policy needs a proxy network")
    return lambda images: proxy(normalize(images, task.real.mean, task.real.std))


def _real_images(task: Task, wanted: int, generator: torch.Generator) -> Tensor:
    """Real images of all classes on which to ask the proxy."""
    each = max(1, wanted // task.classes)
    counts = enumerate(task.real.counts)
    return torch.cat([task.real.sample_class(label, min(each, n), generator) for label, n in counts])


def _some(images: Tensor, generator: torch.Generator) -> Tensor:
    return images[torch.randperm(len(images), generator=generator)[:JITTERED].to(images.device)]


def _check_finite(predict: Callable[[Tensor], Tensor], images: Tensor) -> None:
    if not bool(predict(images[:JITTERED]).isfinite().all()):
        raise DistilError(
            "the proxy network's predictions are not finite numbers: its training on the real images went wrong. "
            "Look for damaged or constant images, or use {policy} fixed, which needs no proxy.",
            field="policy",
        )
