"""Differentiable augmentation of normalized images, in the two published semantics, and CutMix.

Source: DSA (Zhao and Bilen 2021, section 3.2) for the operations and their strengths; IDC (Kim et al. 2022) for the
second way of combining them; CutMix (Yun et al. 2019).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

FLIP_PROBABILITY = 0.5
SCALE = 1.2
ROTATION_DEGREES = 15.0
CROP_PADDING = 0.125
CUTOUT = 0.5
BRIGHTNESS = 1.0
SATURATION = 2.0
CONTRAST = 0.5

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
ALWAYS_IN_IDC = ("flip", "color", "cutout")


def normalize(
    images: Float[Tensor, "n c h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "n c h w"]:
    """Channel by channel, (image - mean) / std."""
    shape = (1, -1, 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)


def operations_of(strategy: str) -> tuple[str, ...]:
    """The operations named in a strategy such as "color_crop_cutout"; "none" and "" name nothing.

    Raises: ValueError on a word that is not an operation.
    """
    if strategy in ("none", ""):
        return ()
    words = tuple(strategy.split("_"))
    unknown = [word for word in words if word not in OPERATIONS]
    if unknown:
        raise ValueError(f"unknown augmentation {unknown[0]!r} in {strategy!r}: choose from {', '.join(OPERATIONS)}")
    return words


def augment(
    images: Float[Tensor, "n c h w"], strategy: str, generator: torch.Generator, *, shared: bool, one: bool
) -> Float[Tensor, "n c h w"]:
    """Augment normalized images; differentiable in them.

    strategy: operations joined by underscores, e.g. "color_crop_cutout_flip_scale_rotate", or "none".
    generator: on the CPU; everything is drawn from it.
    shared: one draw for the whole batch (siamese augmentation, for matching), else one an image (for training).
    one: True for the semantics of DC and DSA, one operation of the list, chosen at random, for the whole batch; False
    for IDC's, flip, color and cutout always when listed, and one of the rest.
    """
    words = operations_of(strategy)
    if not words:
        return images
    if one:
        steps = [words[_pick(len(words), generator)]]
    else:
        rest = [word for word in words if word not in ALWAYS_IN_IDC]
        steps = [word for word in ("flip", "color") if word in words]
        steps += [rest[_pick(len(rest), generator)]] if rest else []
        steps += ["cutout"] if "cutout" in words else []
    draws = 1 if shared else len(images)
    for step in steps:
        images = _APPLY[step](images, draws, generator)
    return images


def _pick(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _uniform(draws: int, images: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(draws, 1, 1, 1, generator=generator, dtype=torch.float32)
    return drawn.to(images.device, images.dtype)


def _flip(images: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    return torch.where(_uniform(draws, images, generator) < FLIP_PROBABILITY, images.flip(3), images)


def _color(images: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    images = images + (_uniform(draws, images, generator) - 0.5) * BRIGHTNESS
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (_uniform(draws, images, generator) * SATURATION) + grey
    level = images.mean((1, 2, 3), keepdim=True)
    return (images - level) * (_uniform(draws, images, generator) + CONTRAST) + level


def _crop(images: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    margin_y, margin_x = int(height * CROP_PADDING + 0.5), int(width * CROP_PADDING + 0.5)
    top = torch.randint(2 * margin_y + 1, (draws,), generator=generator)
    left = torch.randint(2 * margin_x + 1, (draws,), generator=generator)
    padded = pad(images, (margin_x, margin_x, margin_y, margin_y))
    if draws == 1:
        y, x = int(top), int(left)
        return padded[:, :, y : y + height, x : x + width]
    rows = (top[:, None] + torch.arange(height)).to(images.device)
    columns = (left[:, None] + torch.arange(width)).to(images.device)
    image = torch.arange(n, device=images.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    # plain strides: channels last, for which a single channel can pass, instance norm's backward is slow on the CPU
    return cropped.reshape(-1).view(images.shape)


def _cutout(images: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    _, _, height, width = images.shape
    tall, wide = int(height * CUTOUT + 0.5), int(width * CUTOUT + 0.5)
    y = torch.randint(height + 1 - tall % 2, (draws, 1), generator=generator) - tall // 2
    x = torch.randint(width + 1 - wide % 2, (draws, 1), generator=generator) - wide // 2
    row, column = torch.arange(height), torch.arange(width)
    rows = (row >= y) & (row < y + tall)
    columns = (column >= x) & (column < x + wide)
    hole = (rows[:, None, :, None] & columns[:, None, None, :]).to(images.device)
    return images.masked_fill(hole, 0)


def _warp(images: Tensor, matrices: Tensor) -> Tensor:
    matrices = matrices.to(images.device, images.dtype).expand(len(images), -1, -1)
    grid = affine_grid(matrices, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def _scale(images: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    factors = torch.rand(draws, 2, generator=generator) * (SCALE - 1 / SCALE) + 1 / SCALE
    matrices = torch.zeros(draws, 2, 3)
    matrices[:, 0, 0], matrices[:, 1, 1] = factors[:, 0], factors[:, 1]
    return _warp(images, matrices)


def _rotate(images: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    angle = (torch.rand(draws, generator=generator) - 0.5) * 2 * math.radians(ROTATION_DEGREES)
    matrices = torch.zeros(draws, 2, 3)
    matrices[:, 0, 0], matrices[:, 0, 1] = angle.cos(), -angle.sin()
    matrices[:, 1, 0], matrices[:, 1, 1] = angle.sin(), angle.cos()
    return _warp(images, matrices)


_APPLY = {
    "flip": _flip,
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "scale": _scale,
    "rotate": _rotate,
}


def cutmix(
    images: Float[Tensor, "n c h w"], targets: Float[Tensor, "n k"], generator: torch.Generator, *, probability: float
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k"]]:
    """With `probability`, paste one box of a shuffled batch into every image and mix the targets by area.

    targets: class probabilities. The box's area, before it is cut at the border, is a uniform share of the image; the
    targets are mixed by the area that is left.
    Source: CutMix with Beta(1, 1), as every protocol here uses it.
    """
    if probability == 0 or float(torch.rand(1, generator=generator)) >= probability:
        return images, targets
    kept = float(torch.rand(1, generator=generator))
    n, _, height, width = images.shape
    order = torch.randperm(n, generator=generator).to(images.device)
    tall, wide = int(height * math.sqrt(1 - kept)), int(width * math.sqrt(1 - kept))
    y, x = _pick(height, generator), _pick(width, generator)
    top, bottom = max(0, y - tall // 2), min(height, y + tall // 2)
    left, right = max(0, x - wide // 2), min(width, x + wide // 2)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / (height * width)
    return mixed, (1 - share) * targets + share * targets[order]
