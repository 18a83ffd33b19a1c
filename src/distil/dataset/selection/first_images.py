"""The real images that decoded images begin as."""

import torch
from jaxtyping import Float
from torch import Tensor

from distil.dataset.protocols import Task
from distil.rng import stream

REPEATS_NOISE = 0.3
"""Noise on images that begin as an image that another one began as, in standard deviations of the data."""


def first_images(task: Task, label: int, count: int) -> Float[Tensor, "count c h w"]:
    """Real images of a class, in [0, 1] but for noise. The draws are addressed by the class's name.

    A class with fewer images than are needed shows some of them again; those begin with noise of REPEATS_NOISE times
    the data's standard deviation, since equal images would have equal gradients and stay equal.
    """
    real = task.real
    generator = stream(task.seed, "initial", real.classes[label])
    images = real.sample_class(label, count, generator)
    repeats = images[real.counts[label] :]
    noise = torch.randn(repeats.shape, generator=generator).to(task.device)
    repeats += REPEATS_NOISE * noise.new_tensor(real.std).view(1, -1, 1, 1) * noise
    return images
