"""Images as sums of few cosines: the transform behind the spectral formation, and how much a network uses each cosine.

Source: the discrete cosine transform (Ahmed, Natarajan, Rao 1974). Learning synthetic images by chosen coefficients is
known from FreD (Shin et al., NeurIPS 2023), which chooses them by explained variance; the scores by a network's
response and by jitter are ours (docs/methods/udd.md).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.functional.utilization import jitter_divergence

GREY = 0.5
"""The image whose coefficients are all zero is grey at this value."""

AT_ONCE = 128
"""Images that a network sees together."""


def cosines(
    size: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "{size} {size}"]:
    """Rows of the orthonormal DCT-II of a length, lowest frequency first."""
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    place = torch.arange(size, dtype=torch.float64)[None] + 0.5
    rows = torch.cos(math.pi * frequency * place / size) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows.to(device, dtype)


def coefficients(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c*h*w"]:
    """Coefficients of images in [0, 1]: the DCT over channel, row and column of their difference from mid grey.

    Along three color channels its rows are brightness (1, 1, 1), red against blue (1, 0, -1) and green against both
    (1, -2, 1), each divided by its length. Orthonormal, so that lengths are kept.
    """
    color, row, column = (cosines(size, device=images.device, dtype=images.dtype) for size in images.shape[1:])
    return torch.einsum("ab,nbhw->nahw", color, row @ (images - GREY) @ column.T).flatten(1)


def from_coefficients(values: Float[Tensor, "n m"], shape: tuple[int, int, int]) -> Float[Tensor, "n c h w"]:
    """The images of `shape` (c, h, w) whose coefficients these are: the inverse of `coefficients`."""
    color, row, column = (cosines(size, device=values.device, dtype=values.dtype) for size in shape)
    return torch.einsum("ab,nahw->nbhw", color, row.T @ values.unflatten(1, shape) @ column) + GREY


def from_kept_coefficients(
    values: Float[Tensor, "n k"], kept: Int[Tensor, " k"], shape: tuple[int, int, int]
) -> Float[Tensor, "n c h w"]:
    """The same of the coefficients at the positions `kept` in c*h*w alone; all others are zero."""
    zeros = values.new_zeros(len(values), math.prod(shape))
    return from_coefficients(zeros.index_copy(1, kept.to(values.device).long(), values), shape)


def shared_among_views(numbers: Float[Tensor, "n m"], count: int) -> Float[Tensor, "views {count}"]:
    """`count` numbers for each view, canvas by canvas: a canvas's first, then the next, as long as so many are left."""
    used = numbers.shape[1] // count * count
    return numbers[:, :used].reshape(-1, count)


def response_to_cosines(
    predict: Callable[[Tensor], Tensor], images: Float[Tensor, "n c h w"], generator: torch.Generator, draws: int = 4
) -> Float[Tensor, "c*h*w"]:
    """How strongly a network responds to each coefficient: its variance times the Fisher information about it.

    u_q = Var(a_q) E[(d log p(y|x) / d a_q)^2], y drawn from p(.|x): to second order, twice the divergence of the
    prediction when coefficient q is moved by its own standard deviation.
    predict: images in [0, 1] -> logits. draws: of y for each image. generator: on the CPU.
    """
    return coefficients(images).var(0) * information_about_cosines(predict, images, generator, draws)


def information_about_cosines(
    predict: Callable[[Tensor], Tensor], images: Float[Tensor, "n c h w"], generator: torch.Generator, draws: int = 4
) -> Float[Tensor, "c*h*w"]:
    """Fisher information of a network's prediction about each coefficient of images, also of one that they all lack.

    E[(d log p(y|x) / d a_q)^2], y drawn from p(.|x). predict, draws, generator: as for `response_to_cosines`.
    """
    with torch.no_grad():
        p = torch.cat([predict(part).float().softmax(1).cpu() for part in images.split(AT_ONCE)])
    total = torch.zeros_like(images[0].flatten())
    for _ in range(draws):
        drawn = torch.multinomial(p, 1, generator=generator).to(images.device)
        for part, labels in zip(images.split(AT_ONCE), drawn.split(AT_ONCE), strict=True):
            leaf = part.detach().requires_grad_()
            log_p = predict(leaf).log_softmax(1)
            gradient = torch.autograd.grad(log_p.gather(1, labels).sum(), leaf)[0]
            total += coefficients(gradient + GREY).square().sum(0)
    return total / (draws * len(images))


@torch.no_grad()
def jitter_of_cosines(
    predict: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    generator: torch.Generator,
    donors: Float[Tensor, "m c h w"] | None = None,
) -> Float[Tensor, "c*h*w"]:
    """How much a jitter of each coefficient changes a network's predictions.

    u_q = E KL(p(.|x) || p(.|x')), x' being x with coefficient q of an image drawn from the donors, which are the images
    themselves where none are given.
    predict: images in [0, 1] -> logits. generator: on the CPU.
    """
    _, channels, height, width = images.shape
    values, before = coefficients(images), predict(images)
    given = values if donors is None else coefficients(donors)
    order = torch.randperm(len(given), generator=generator)
    others = given[order[torch.arange(len(images)) % len(given)].to(images.device)]
    scores = []
    for part in torch.arange(values.shape[1]).split(max(1, AT_ONCE // len(images))):
        moved = values.repeat(len(part), 1, 1)
        for place, position in enumerate(part.tolist()):
            moved[place, :, position] = others[:, position]
        after = predict(from_coefficients(moved.flatten(0, 1), (channels, height, width)))
        scores.append(jitter_divergence(before.repeat(len(part), 1), after).view(len(part), -1).mean(1))
    return torch.cat(scores)


def lowest_frequencies(shape: tuple[int, int, int]) -> Float[Tensor, " coefficients"]:
    """Minus the length of each coefficient's frequency, along color counted double: what a fixed choice goes by."""
    channels, height, width = shape
    rows, columns = torch.arange(height) + 1.0, torch.arange(width) + 1.0
    length = (rows[:, None].square() + columns.square()).sqrt()
    return -torch.stack([length * (1 if plane == 0 else 2) for plane in range(channels)]).flatten()
