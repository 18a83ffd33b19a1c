import pytest
import torch
import torch.nn.functional

from distil.data.arrays import channel_statistics, resize_images, stratified_split
from distil.rng import stream


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=stream(0, "images"), dtype=torch.uint8)


def test_resizing_to_the_same_size_changes_nothing():
    images = random_images(3, 2, 6, 6)
    assert torch.equal(resize_images(images, 6), images)


def test_the_central_square_is_cut_out():
    images = random_images(2, 1, 4, 8)
    assert torch.equal(resize_images(images, 4), images[:, :, :, 2:6])
    assert torch.equal(resize_images(images.transpose(2, 3).contiguous(), 4), images.transpose(2, 3)[:, :, 2:6])


def test_doubling_is_the_three_to_one_blend():
    row = torch.tensor([0, 100], dtype=torch.uint8).reshape(1, 1, 1, 2).expand(1, 1, 2, 2)
    assert resize_images(row, 4)[0, 0, 0].tolist() == [0, 25, 75, 100]


def test_shrinking_is_antialiased():
    stripes = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    small = resize_images(stripes, 8).float()
    assert (small - 100).abs().max() <= 6


def test_chunks_do_not_show(monkeypatch):
    images = random_images(11, 3, 8, 8)
    whole = resize_images(images, 5)
    monkeypatch.setattr("distil.data.arrays.CHUNK", 4)
    assert torch.equal(resize_images(images, 5), whole)
    assert channel_statistics(images) == channel_statistics(images)


def test_statistics_are_those_of_every_pixel(monkeypatch):
    monkeypatch.setattr("distil.data.arrays.CHUNK", 4)
    images = random_images(11, 3, 5, 7)
    mean, std = channel_statistics(images)
    pixels = images.double().transpose(0, 1).reshape(3, -1) / 255
    assert mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-12)
    assert std == pytest.approx(pixels.std(1, correction=0).tolist(), abs=1e-12)


def test_a_constant_channel_can_be_divided_by():
    assert channel_statistics(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)) == ((0.2,), (1 / 255,))


def test_the_counts_asked_for_are_held_out():
    labels = torch.tensor([0, 1, 1, 0, 1, 1])
    kept, held = stratified_split(labels, ("a", "b"), (1, 3), 0, "x")
    assert labels[held].bincount().tolist() == [1, 3]
    assert sorted(kept.tolist() + held.tolist()) == list(range(6))
