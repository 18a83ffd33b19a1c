import torch

from distil.functional.resized_crop import random_resized_crop
from distil.rng import stream


def coordinates(count: int, height: int, width: int) -> torch.Tensor:
    """Images whose channels are the row and the column of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).float().expand(count, -1, -1, -1)


def test_shares_and_places_are_those_of_random_resized_crops():
    images = random_resized_crop(coordinates(4000, 30, 40), stream(0, "crop"), smallest=0.25)
    steps_down = images[:, 0, 15, 20] - images[:, 0, 14, 20]  # pixels of the source per pixel of the crop
    steps_right = images[:, 1, 15, 20] - images[:, 1, 15, 19]
    share, ratio = steps_down * steps_right, steps_right / steps_down
    assert share.min() > 0.249
    assert share.max() <= 1.0001
    assert abs(share.mean() - 0.6) < 0.03  # (1 + .25) / 2, less what does not fit
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.34
    assert images[:, 0].min() >= 0
    assert images[:, 0].max() <= 29
    assert images[:, 1].max() <= 39
    middle = images.mean((0, 2, 3))
    assert torch.allclose(middle, torch.tensor([14.5, 19.5]), atol=0.3)


def test_the_whole_image_is_itself_and_draws_are_addressed():
    images = torch.rand(3, 1, 6, 6, generator=stream(0, "images"))
    one, same, other = (random_resized_crop(images, stream(seed, "c"), smallest=0.3) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == images.shape
    flat = torch.full((2, 3, 5, 5), 0.7)
    assert torch.allclose(random_resized_crop(flat, stream(0, "c"), smallest=0.1), flat)
