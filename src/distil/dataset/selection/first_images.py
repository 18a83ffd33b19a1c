"""The real images that decoded images begin as."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.dataset.labels import recognized
from distil.dataset.protocols import Task
from distil.dataset.selection.coresets import embedded, k_means
from distil.rng import seed_at, stream

REPEATS_NOISE = 0.3
"""Noise on images that begin as an image that another one began as, in standard deviations of the data."""


def first_images(task: Task, label: int, count: int, init_from: str = "random") -> Float[Tensor, "count c h w"]:
    """Real images of a class, in [0, 1] but for noise. The draws are addressed by the class's name.

    init_from: "random"; "kmeans" for those nearest to the centers of `count` clusters of the class, in the embedding of
    a fresh network (`task.network`; source: DREAM, Liu et al. 2023, its released code); or "recognized" for random ones
    among those that most experts recognize (`task.experts`), then others where they are too few (source: DATM, Guo et
    al. 2024).

    A class with fewer images than are needed shows some of them again; those begin with noise of REPEATS_NOISE times
    the data's standard deviation, since equal images would have equal gradients and stay equal.
    """
    generator = stream(task.seed, "initial", task.real.classes[label])
    images = chosen_images(task, label, count, init_from, generator)
    repeats = images[task.real.counts[label] :]
    noise = torch.randn(repeats.shape, generator=generator).to(task.device)
    repeats += REPEATS_NOISE * noise.new_tensor(task.real.std).view(1, -1, 1, 1) * noise
    return images


def chosen_images(
    task: Task, label: int, count: int, init_from: str, generator: torch.Generator
) -> Float[Tensor, "count c h w"]:
    """The same without noise on repeated images."""
    real = task.real
    if init_from == "random" or count >= real.counts[label]:
        return real.sample_class(label, count, generator)
    if init_from == "recognized":
        return real.batch(_recognized_first(task, label, generator)[:count]).images
    if task.network is None:
        raise ValueError("images nearest to k-means centers need a network that embeds them")
    members = real.by_class[label].cpu()
    seed = seed_at(task.seed, "initial", real.classes[label])
    return real.batch(members[k_means(embedded(task.network(), real, members), count, seed)]).images


def _recognized_first(task: Task, label: int, generator: torch.Generator) -> Int[Tensor, " members"]:
    """Positions of a class's images in random order, those that experts recognize before the others."""
    members = task.real.by_class[label].cpu()
    members = members[torch.randperm(len(members), generator=generator)]
    if task.experts is None:
        raise ValueError("images that experts recognize need experts")
    right = recognized(task, task.experts, members, label)
    return members[right.long().argsort(descending=True, stable=True)]
