"""Random resized crops, the augmentation of networks for large images."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

RATIO = 4 / 3
"""Largest ratio of a crop's sides, relative to that of the image."""


def random_resized_crop(
    images: Float[Tensor, "n c h w"], generator: torch.Generator, *, smallest: float
) -> Float[Tensor, "n c h w"]:
    """One random crop of each image, enlarged bilinearly to the image's size; differentiable in the images.

    A crop has a uniform share of the area from `smallest` to 1, sides whose ratio is log-uniform from 3/4 to 4/3 times
    that of the image, neither longer than the image's, and lies anywhere inside. generator: on the CPU.

    Source: torchvision's RandomResizedCrop. Differs: a crop that does not fit is made narrower or flatter; there it is
    drawn again. Corners are real numbers.
    """
    share, ratio, across, down = torch.rand(4, len(images), generator=generator)
    share = smallest + (1 - smallest) * share
    ratio = (math.log(RATIO) * (2 * ratio - 1)).exp()
    width, height = (share * ratio).sqrt().clamp_max(1), (share / ratio).sqrt().clamp_max(1)
    # grid_sample counts from -1 to 1: a crop is `width` of that wide, its center within (1 - width) of the middle
    x, y = (2 * across - 1) * (1 - width), (2 * down - 1) * (1 - height)
    columns = _centers(images.shape[3]) * width[:, None] + x[:, None]
    rows = _centers(images.shape[2]) * height[:, None] + y[:, None]
    grid = torch.stack(
        [columns[:, None, :].expand(-1, images.shape[2], -1), rows[:, :, None].expand(-1, -1, images.shape[3])], -1
    )
    grid = grid.to(images.device, images.dtype)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _centers(count: int) -> Float[Tensor, " count"]:
    return (2 * torch.arange(count) + 1) / count - 1
