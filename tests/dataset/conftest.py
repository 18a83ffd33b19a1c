"""A small real image set with made-up pixels."""

import pytest
import torch

from distil.data.images.image_set import ImageSet


def make_images(classes=3, each=12, side=8, channels=1, seed=0) -> ImageSet:
    """Noise about a class's own pattern, so that classes can be told apart."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, 1, channels, side, side, generator=generator)
    noise = torch.rand(classes, each, channels, side, side, generator=generator)
    images = (255 * (0.7 * patterns + 0.3 * noise)).to(torch.uint8).flatten(0, 1)
    return ImageSet(
        images=images,
        labels=torch.arange(classes).repeat_interleave(each),
        classes=tuple("abcdefgh"[:classes]),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        name="made up",
    )


@pytest.fixture
def real() -> ImageSet:
    return make_images()
