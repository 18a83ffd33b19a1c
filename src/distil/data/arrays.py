"""Mathematics on stacks of uint8 images that every source shares: resizing, channel statistics, stratified splits."""

from collections.abc import Sequence

import torch
import torch.nn.functional
from jaxtyping import Int, UInt8
from torch import Tensor

from distil.data.fitting import check_fits
from distil.errors import DistilError
from distil.rng import stream

CHUNK = 1024
"""Most images converted to float at a time, so that a whole set never exists in float."""

CHUNK_BYTES = 256 << 20
"""Most memory that such a chunk takes, unless one image alone takes more."""

SEEN_PIXELS = 1 << 20


def images_at_once(bytes_per_image: int) -> int:
    """How many images are converted at a time: CHUNK, or as many as CHUNK_BYTES hold."""
    return max(1, min(CHUNK, CHUNK_BYTES // max(1, bytes_per_image)))


def seen_at_once(size: tuple[int, int], most: int) -> int:
    """How many images of a (height, width) a network sees at a time where no gradients are needed: `most`, or as many
    as have SEEN_PIXELS, lest the maps of large images fill the memory."""
    return max(1, min(most, SEEN_PIXELS // (size[0] * size[1])))


def resize_images(images: UInt8[Tensor, "n c h w"], size: int) -> UInt8[Tensor, "n c s s"]:
    """The central square of each image, resized to size x size by antialiased bilinear interpolation.

    Raises: DistilError if the resized images do not fit in memory.
    """
    count, channels, height, width = images.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    if side == size:
        return square.contiguous()
    step = images_at_once(4 * channels * (side**2 + 2 * size**2))
    needed = channels * size**2 * (count + 8 * min(step, count))
    check_fits(needed, f"{count:,} images of {size} x {size} pixels need", "Give a smaller {size}.", field="size")
    resized = torch.empty(count, channels, size, size, dtype=torch.uint8, device=images.device)
    for start in range(0, count, step):
        enlarged = torch.nn.functional.interpolate(
            square[start : start + step].float(), size=(size, size), mode="bilinear", antialias=True
        )
        resized[start : start + step] = enlarged.round_().clamp_(0, 255).to(torch.uint8)
    return resized


def channel_statistics(images: UInt8[Tensor, "n c h w"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel, images in [0, 1], exact by counting pixel values.

    A channel with one value only has standard deviation 0 and would divide by zero: 1/255 is the least returned.
    """
    values = torch.arange(256)
    means, deviations = [], []
    for channel in range(images.shape[1]):
        histogram = torch.zeros(256, dtype=torch.int64)
        for chunk in images[:, channel].split(images_at_once(images.shape[2] * images.shape[3])):
            histogram += torch.bincount(chunk.reshape(-1), minlength=256).cpu()
        total = int(histogram.sum())
        first, second = int((histogram * values).sum()), int((histogram * values * values).sum())
        means.append(first / total / 255)
        deviations.append(max(1.0, ((total * second - first * first) / total**2) ** 0.5) / 255)
    return tuple(means), tuple(deviations)


def stratified_split(
    labels: Int[Tensor, " n"], classes: Sequence[str], held_out: Sequence[int], seed: int, *address: str | int
) -> tuple[Int[Tensor, " kept"], Int[Tensor, " held"]]:
    """Indices of the images that are kept and of those held out, both in ascending order, on the CPU.

    held_out: how many images of each class are held out. Which ones depends on (seed, address, name of the class)
        and on the order of that class's images alone.
    """
    labels = labels.cpu()
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label, (name, count) in enumerate(zip(classes, held_out, strict=True)):
        members = (labels == label).nonzero().squeeze(1)
        held[members[torch.randperm(len(members), generator=stream(seed, *address, name))[:count]]] = True
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)


def held_out_counts(counts: Sequence[int], classes: Sequence[str], fraction: float, name: str) -> list[int]:
    """How many images of each class a fraction is: rounded, at least one, and at least one stays.

    Raises: DistilError if the fraction is not between 0 and 1, or a class has fewer than two images.
    """
    if not 0 < fraction < 1:
        raise DistilError(f"cannot hold out a fraction {fraction} of {name}: give a number between 0 and 1.")
    for class_name, count in zip(classes, counts, strict=True):
        if count < 2:
            raise DistilError(
                f"{name}: class {class_name!r} has {count} image, and a split needs at least 2 of each class: "
                "add images to that class, leave it out, or give a test split."
            )
    return [min(max(round(count * fraction), 1), count - 1) for count in counts]
